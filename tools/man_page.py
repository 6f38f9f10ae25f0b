# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/reference/twinbuild.1, the manual page, from the help of all tasks.

Run `python3 -m tools.man_page` after a change to a task's help. The page is committed, and the
wheel has a copy: what builds the wheel has only the standard library, but this needs invoke.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from invoke.collection import Collection

from pipeline.base.errors import MEANINGS
from pipeline.cli.parser import documentation
from tools import installed

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "twinbuild.1"
HEAD = r""".\" SPDX-License-Identifier: GPL-3.0-or-later
.\" Made by tools/man_page.py from the help of the tasks.
.TH TWINBUILD 1 "" Twinbuild "User Commands"
.SH NAME
twinbuild \- build an operating\-system image twice, publish it only if both are the same
.SH SYNOPSIS
.nf
\fBtwinbuild\fR \fITASK\fR [\fB\-\-option\fR \fIVALUE\fR ...] [\fITASK\fR ...]
\fBtwinbuild \-\-list\fR | \fB\-\-version\fR | \fB\-\-completion\fR \fISHELL\fR
\fBtwinbuild\fR \fITASK\fR \fB\-\-help\fR
.fi
.SH DESCRIPTION
A task works for the farm that the current folder is in: the nearest folder, from there upwards,
that has a
.IR farm.yaml .
In a checkout of Twinbuild,
.B ./farm
.I TASK
does the same, and installs what is missing first.
.PP
.B \-\-completion
prints what lets a shell complete tasks and options: bash, fish or zsh.
.SH TASKS"""
TAIL = r""".SH ENVIRONMENT
.TP
.B NO_COLOR
If not empty, nothing is coloured.
.TP
.B TWINBUILD_PLAIN
If not empty, and where
.B TERM
is
.IR dumb ,
lines follow one another and are never redrawn.
.SH FILES
.I docs/
of Twinbuild's sources has a tutorial, how\-tos and the reference.
.SH SEE ALSO
.BR gpg (1),
.BR git\-tag (1)"""


def page(namespace: Collection) -> str:
    """Return the page, written with the macros of man(7)."""
    lines = [HEAD]
    contexts = {str(context.name): context for context in namespace.to_contexts()}
    for name in sorted(contexts):
        lines += [f".SS {_escaped(name)}", *_paragraphs(documentation(namespace, name))]
        for spelling, text in contexts[name].help_tuples():
            lines += [".TP", f"\\fB{_escaped(spelling)}\\fR", _line(text or "")]
    lines.append(".SH EXIT STATUS")
    for status, meaning in MEANINGS.items():
        lines += [".TP", f".B {int(status)}", _line(meaning)]
    return "\n".join(line for line in [*lines, TAIL] if line) + "\n"


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """Yield a task's help: indented lines are kept as they are, an empty line ends a paragraph."""
    kept = False
    for number, line in enumerate(lines):
        if line.startswith(" ") != kept:
            kept = not kept
            yield ".nf" if kept else ".fi"
        if line:
            yield _line(line)
        elif number + 1 < len(lines):
            yield ".PP"
    if kept:
        yield ".fi"


def _line(text: str) -> str:
    """Return a line of text, escaped so that it is not a request, whatever it begins with."""
    escaped = _escaped(text)
    return f"\\&{escaped}" if escaped[:1] in (".", "'", " ") else escaped


def _escaped(text: str) -> str:
    typed = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"[^\x00-\x7f]", lambda found: f"\\[u{ord(found[0]):04X}]", typed)


if __name__ == "__main__":
    PAGE.write_text(page(installed.all_of_a_farm()))
