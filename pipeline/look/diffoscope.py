# SPDX-License-Identifier: GPL-3.0-or-later
"""Run diffoscope on a pair of contents, if it is installed: sandboxed, limited and optional.

diffoscope starts third-party programs on contents that come from a build. They run in a sandbox
without network, home directory or any storage but memory; each has limits on memory, CPU time and
output, and all of them end with the sandbox. Where no sandbox is possible, it is not run.
"""

import re
import tempfile
from pathlib import Path

from pipeline.base import command
from pipeline.base.errors import InfrastructureFailed, UsageError
from pipeline.base.plain import plain
from pipeline.documents.explanation import DiffoscopeOutput
from pipeline.look import sandbox

PROGRAM = "diffoscope"
OPTIONS = (
    *("--no-progress", "--text", "-", "--text-color", "never"),
    *("--max-text-report-size", "262144", "--max-container-depth", "3"),
)
TIMEOUT_S = 20.0
MEMORY_LIMIT = 1024**3  # of each program that it starts
FILE_LIMIT = 64 * 1024**2
SCRATCH_LIMIT = 256 * 1024**2  # of everything that they write, which is kept in memory
LINES_LIMIT = 60
LINE_LIMIT = 300
NAME = re.compile(r"[A-Za-z0-9._-]{0,60}\Z")
MISSING = "diffoscope is not installed, and not needed"
DIFFERENT = 1


def unusable() -> str:
    """Return why diffoscope cannot be run, as a sentence; an empty string if it can."""
    try:
        command.find(PROGRAM)
    except UsageError:
        return MISSING
    refusal = sandbox.refusal()
    return plain(f"diffoscope was not run: {refusal}") if refusal else ""


def ask(name: str, contents: tuple[bytes, bytes]) -> DiffoscopeOutput:
    """Compare two contents with diffoscope; the suffix of `name` hints at their format."""
    kept = NAME.search(name)
    limits = [f"--as={MEMORY_LIMIT}", f"--fsize={FILE_LIMIT}", f"--cpu={TIMEOUT_S:.0f}", "--core=0"]
    with tempfile.TemporaryDirectory(prefix="twinbuild-") as folder:
        given, paths = Path(folder) / "given", []
        for side, content in zip(("first", "second"), contents, strict=True):
            paths.append(given / side / f"x{kept[0] if kept else ''}")
            paths[-1].parent.mkdir(parents=True)
            paths[-1].write_bytes(content)
        out, errors = Path(folder) / "out", Path(folder) / "errors"
        try:
            program = command.find(PROGRAM)
            inside: list[str | Path] = [program, *OPTIONS, *paths]
            readable = [program.resolve(), given]
            command.run(
                [
                    *("prlimit", *limits),
                    *sandbox.wrapped(inside, readable, scratch_limit=SCRATCH_LIMIT),
                ],
                timeout_s=TIMEOUT_S,
                stdout_to=out,
                stderr_to=errors,
                accept=(DIFFERENT,),
            )
        except (InfrastructureFailed, UsageError) as error:
            what = error.what.partition(": ")[0]
            return DiffoscopeOutput(note=plain(f"diffoscope failed: {what}"))
        return _lines(out)


def _lines(out: Path) -> DiffoscopeOutput:
    with out.open("rb") as file:
        content = file.read(FILE_LIMIT // 64)
    lines = content.decode(errors="replace").splitlines()[2:]  # without the names of both files
    if not lines:  # a program that exceeds its limits may exit with the status for a difference
        return DiffoscopeOutput(note="diffoscope failed: it printed nothing")
    shown = tuple(plain(line.expandtabs(4), limit=LINE_LIMIT) for line in lines[:LINES_LIMIT])
    return DiffoscopeOutput(shown, cut=len(lines) > LINES_LIMIT)
