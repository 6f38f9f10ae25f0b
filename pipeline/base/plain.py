# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes text from others safe to show: no control or escape characters reach the terminal.

Code that prints cannot know where a text comes from: an archive, a server, git, a build. So all
output of a task passes through `plain_output`, and that of a run's display through `plain`; nothing
else writes to the terminal.
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
    """Make everything that is printed in the block safe; escape what cannot be encoded."""
    with redirect_stdout(PlainStream(sys.stdout)), redirect_stderr(PlainStream(sys.stderr)):
        yield


def print_plain(text: str, *, error: bool = False) -> None:
    """Print a text in safe form, to standard error if it is an error.

    If the reader has closed the pipe, stop silently.
    """
    with plain_output():
        stream = sys.stderr if error else sys.stdout
        try:
            stream.write(f"{text}\n")
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class PlainStream(io.TextIOBase):
    """A stream that prints text in safe form: to a terminal, a pipe, a file."""

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Print a text; newlines and tabs stay."""
        shown = "\t".join(map(plain_lines, text.split("\t")))
        encoding = self.raw.encoding or "utf-8"
        self.raw.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flush the stream below."""
        self.raw.flush()

    def close(self) -> None:
        """Leave the stream below open: whoever opened it flushes and closes it.

        Python closes a stream that has no more references; if the reader has closed the pipe, a
        flush would then fail silently, or, since Python 3.13, print "Exception ignored".
        """

    def isatty(self) -> bool:
        """Tell whether the stream below is a terminal."""
        return self.raw.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream below."""
        return self.raw.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True
