# SPDX-License-Identifier: GPL-3.0-or-later
"""Explains why a hook failed: names the file and line, or says that a build has no network."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest.serial_port import StepFailed

NO_NETWORK = re.compile(
    r"could ?n[o']t resolve|unable to resolve|temporary failure (?:in name resolution|resolving)"
    r"|network is unreachable|name or service not known|no address associated with hostname"
    r"|failed to establish a new connection|could not connect to server",
    re.IGNORECASE,
)
HOST = re.compile(r"\b(?:[a-z0-9-]+\.)+[a-z]{2,}\b", re.IGNORECASE)
# Programs whose error messages begin with a word other than their name.
CALLED = {"fatal": "git", "E": "apt|apt-get", "W": "apt|apt-get", "Err": "apt|apt-get"}
REMEDY = "a build has no network; commit the file or put it into a package"


@contextmanager
def hook_named(hook: Path, source: Path) -> Iterator[None]:
    """Add the hook's file in the `source`, and the line if known, to a StepFailed in the block."""
    try:
        yield
    except StepFailed as failure:
        if failure.status != STATUS_BUILD_FAILED:
            raise
        text = hook.read_text(errors="replace") if hook.is_file() else ""
        what = _explained(failure, hook.name, text, hook.relative_to(source).as_posix())
        raise StepFailed(failure.status, what, failure.detail) from failure


def _explained(failure: StepFailed, name: str, text: str, shown: str) -> str:
    lines = failure.detail.splitlines()
    complaint = next((line for line in reversed(lines) if NO_NETWORK.search(line)), "")
    number = _line_blamed(name, failure.detail)
    if complaint:
        number = number or _line_of_caller(complaint, text)
    where = f"{shown}:{number}" if number else shown
    return f"{failure.what} ({where})" + (f": {REMEDY}" if complaint else "")


def _line_blamed(name: str, detail: str) -> int:
    """Return the last line number that a shell or Python reported; 0 if none did."""
    path = rf"\S*{re.escape(name)}"
    shell = rf"^{path}: (?:line )?(\d+): |^\s*File \"{path}\", line (\d+)"
    found = re.findall(shell, detail, re.MULTILINE)
    return int("".join(found[-1])) if found else 0


def _line_of_caller(complaint: str, text: str) -> int:
    """Return the number of the only line that runs the failing program; 0 if not exactly one."""
    word = re.split(r"[:\s]", complaint.strip(), maxsplit=1)[0]
    program = re.compile(rf"(?<![\w.-])(?:{CALLED.get(word) or re.escape(word)})(?![\w.-])")
    hosts = {host.lower() for host in HOST.findall(complaint)}
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if program.search(line) and not line.lstrip().startswith("#")
    ]
    with_host = [one for one in lines if any(host in one[1].lower() for host in hosts)]
    likely = with_host or lines
    return likely[0][0] if len(likely) == 1 else 0
