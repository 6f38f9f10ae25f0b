# SPDX-License-Identifier: GPL-3.0-or-later
"""diffoscope on one pair of contents, where it is installed: in a sandbox, bounded, never needed.

It starts programs of others on contents that come from a build. They run in a sandbox without
network, home or anything to write to; each has limits on memory, time and what it writes, and all
of them end with it. Where there can be no sandbox it is not run.
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
SCRATCH_LIMIT = 256 * 1024**2  # of all that they write, which is kept in memory
LINES_LIMIT = 60
LINE_LIMIT = 300
NAME = re.compile(r"[A-Za-z0-9._-]{0,60}\Z")
MISSING = "diffoscope is not installed, and not needed"
DIFFERENT = 1


def unusable() -> str:
    """Return why diffoscope cannot be asked, in a sentence; nothing if it can."""
    try:
        command.find(PROGRAM)
    except UsageError:
        return MISSING
    refusal = sandbox.refusal()
    return plain(f"diffoscope was not run: {refusal}") if refusal else ""


def ask(name: str, contents: tuple[bytes, bytes]) -> DiffoscopeOutput:
    """Let diffoscope compare two contents; the ending of `name` says which format they may have."""
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
    lines = content.decode(errors="replace").splitlines()[2:]  # the names of both files
    if not lines:  # a program that dies of its limits may have the status of a difference
        return DiffoscopeOutput(note="diffoscope failed: it printed nothing")
    shown = tuple(plain(line.expandtabs(4), limit=LINE_LIMIT) for line in lines[:LINES_LIMIT])
    return DiffoscopeOutput(shown, cut=len(lines) > LINES_LIMIT)
