# SPDX-License-Identifier: GPL-3.0-or-later
"""Text from others, made safe to show: no control or escape character reaches a terminal.

Who prints does not know where a text comes from: an archive, a server, git, a build. So all that a
task prints passes `plain_output`, and a run's display passes `plain`; nothing else writes to the
terminal.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

from pipeline.documents.plain import plain, plain_lines

__all__ = ["PlainStream", "plain", "plain_lines", "plain_output", "print_plain"]


@contextmanager
def plain_output() -> Iterator[None]:
    """Let all that is printed while the block runs be safe; what cannot be encoded is escaped."""
    with redirect_stdout(PlainStream(sys.stdout)), redirect_stderr(PlainStream(sys.stderr)):
        yield


def print_plain(text: str, *, error: bool = False) -> None:
    """Print a text in safe form, on standard error if it tells of one.

    A reader that has left ends the output quietly.
    """
    with plain_output():
        stream = sys.stderr if error else sys.stdout
        try:
            stream.write(f"{text}\n")
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class PlainStream(io.TextIOBase):
    """Where text goes to be printed in safe form: a terminal, a pipe, a file."""

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Print a text, its lines and tabs as they are."""
        shown = "\t".join(map(plain_lines, text.split("\t")))
        encoding = self.raw.encoding or "utf-8"
        self.raw.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        self.raw.flush()

    def close(self) -> None:
        """Leave the stream below as it is: who opened it flushes and closes it.

        Python closes a stream that nothing refers to; a flush then would fail unheard, or, since
        Python 3.13, print "Exception ignored" where the reader has left.
        """

    def isatty(self) -> bool:
        """Tell whether somebody may be watching."""
        return self.raw.isatty()

    def fileno(self) -> int:
        """Return the descriptor that is written to."""
        return self.raw.fileno()

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True
