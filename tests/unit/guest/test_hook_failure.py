# SPDX-License-Identifier: GPL-3.0-or-later
"""How the failure of a hook is reported: real shells, what programs without a network print."""

import subprocess
from pathlib import Path

import pytest

from pipeline.documents.progress import STATUS_INFRASTRUCTURE
from pipeline.guest.hook_failure import REMEDY, hook_named
from pipeline.guest.serial_port import StepFailed

HOOK = "images/live/mini/hooks/normal/40-fetch.hook.chroot"


def failure(tmp_path: Path, text: str, output: str, status: int = 3) -> StepFailed:
    hook = tmp_path / HOOK
    hook.parent.mkdir(parents=True)
    hook.write_text(text)
    with pytest.raises(StepFailed) as caught, hook_named(hook, tmp_path):
        raise StepFailed(status, "hook 40-fetch.hook.chroot failed with status 6", output)
    return caught.value


@pytest.mark.parametrize(
    "line",
    [
        "curl: (6) Could not resolve host: files.example.org",
        "wget: unable to resolve host address 'files.example.org'",
        "fatal: unable to access 'https://files.example.org/x/': Could not resolve host: x",
        "E: Failed to fetch http://x.example.org/x  Temporary failure resolving 'x.example.org'",
        "ping: files.example.org: Temporary failure in name resolution",
        "ssh: connect to host 192.0.2.1 port 22: Network is unreachable",
    ],
)
def test_a_hook_that_needs_the_network_is_reported_with_its_line(tmp_path: Path, line: str) -> None:
    text = (
        "#!/bin/sh\nset -e\n# curl wget git apt-get ping ssh\necho curling\n"
        "curl https://files.example.org/x; wget x; git clone x; apt-get update; ping x; ssh x\n"
    )
    what = failure(tmp_path, text, f"before\n{line}\nafter").what
    assert what.endswith(f"({HOOK}:5): {REMEDY}")


def test_of_two_lines_the_one_with_the_host_is_named(tmp_path: Path) -> None:
    text = "#!/bin/sh\ncurl https://a.example.org/\ncurl https://b.example.org/\n"
    what = failure(tmp_path, text, "curl: (6) Could not resolve host: b.example.org").what
    assert f"{HOOK}:3" in what


def test_a_line_that_is_not_known_is_not_made_up(tmp_path: Path) -> None:
    text = "#!/bin/sh\ncurl $A\ncurl $B\n"
    what = failure(tmp_path, text, "curl: (6) Could not resolve host: b.example.org").what
    assert what.endswith(f"({HOOK}): {REMEDY}")


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_the_line_that_a_shell_blames_is_named(tmp_path: Path, shell: str) -> None:
    text = f"#!{shell}\nset -e\ntrue\nno-such-program\n"
    script = tmp_path / "40-fetch.hook.chroot"
    script.write_text(text)
    output = subprocess.run([shell, script], capture_output=True, text=True, check=False).stderr
    what = failure(tmp_path, text, output).what
    assert what == f"hook 40-fetch.hook.chroot failed with status 6 ({HOOK}:4)"


def test_a_full_disk_is_not_the_hooks_fault(tmp_path: Path) -> None:
    output = "curl: (6) Could not resolve host: x"
    caught = failure(tmp_path, "curl x\n", output, STATUS_INFRASTRUCTURE)
    assert caught.what == "hook 40-fetch.hook.chroot failed with status 6"
