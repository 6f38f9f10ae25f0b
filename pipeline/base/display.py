# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the progress of a run: environments side by side on a terminal, plain lines elsewhere.

Plain lines, one after the other and never redrawn, are for logs, for terminals that cannot move the
cursor (`TERM=dumb`) and for people who set `TWINBUILD_PLAIN`: a screen reader reads each line once.
Colours only repeat what words say; there are none if `NO_COLOR` is set (no-color.org).

This bypasses `plain_output`, so every text from elsewhere is passed through `plain` here.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pipeline.base.plain import plain
from pipeline.documents.progress import NOTE, Record

REFRESH_PER_S = 4
REPEAT_EVERY_S = 60.0  # a sign of life in a log


class Display:
    """The display of a run. `say` and `tell` may be called from any thread."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._redraws = (
            console.is_terminal
            and not console.is_dumb_terminal
            and not os.environ.get("TWINBUILD_PLAIN")
        )
        self._columns: dict[str, _Column] = {}
        self._printing = threading.Lock()

    def say(self, line: str) -> None:
        """Print a line."""
        with self._printing:
            self.console.print(Text(plain(line)))

    def tell(self, environment: str) -> Callable[[Record], None]:
        """Add an environment to the display; return the function to call with its records."""
        column = self._columns.setdefault(environment, _Column(environment))

        def take(record: Record) -> None:
            line = column.take(record)
            if line and not self._redraws:
                self.say(line)

        return take

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Show the environments while the block runs."""
        if not self._redraws:
            yield
            return
        with Live(self, console=self.console, refresh_per_second=REFRESH_PER_S, transient=True):
            yield
        for column in self._columns.values():
            self.say(column.summary())

    @contextmanager
    def bar(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show a progress bar during the block; yield a function of bytes done and total bytes."""
        if not self._redraws:
            yield self._bar_in_lines(what)
            return
        words = TextColumn("{task.description}", markup=False)
        columns = (words, BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as bars:
            task = bars.add_task(plain(what), total=None)

            def take(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)

            yield take

    @contextmanager
    def bars(self) -> Iterator[Callable[[str, int, int], None]]:
        """Show a progress bar for each step during the block.

        Yield a function of a step's name, bytes done and total bytes; a new name starts a new bar.
        """
        takes: dict[str, Callable[[int, int], None]] = {}  # that of the step shown
        with ExitStack() as stack:

            def watch(what: str, done: int, total: int) -> None:
                if what not in takes:
                    stack.close()
                    takes.clear()
                    takes[what] = stack.enter_context(self.bar(what))
                takes[what](done, total)

            yield watch

    def _bar_in_lines(self, what: str) -> Callable[[int, int], None]:
        shown = time.monotonic()

        def take(done: int, total: int) -> None:
            nonlocal shown
            if time.monotonic() - shown > REPEAT_EVERY_S:
                shown = time.monotonic()
                self.say(f"{what}: {done / 2**20:.0f} of {total / 2**20:.0f} MiB")

        return take

    def __rich__(self) -> RenderableType:
        table = Table.grid(expand=True, padding=(0, 2))
        columns = list(self._columns.values())  # a copy: builds may add columns meanwhile
        for _ in columns:
            table.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
        table.add_row(*(column.render() for column in columns))
        return table


class _Column:
    """One environment: its steps, how long they took, and the last line of its log."""

    def __init__(self, name: str) -> None:
        self.name = plain(name)
        self.started = self.step_started = self.reported = time.monotonic()
        self.step = "waiting"
        self.last = ""
        self.done: list[tuple[str, float]] = []

    def take(self, record: Record) -> str | None:
        """Take a record; return a line if it should appear in a log."""
        now = time.monotonic()
        kind = record.kind
        if kind == "step":
            self.step, self.step_started, self.reported = plain(record.step), now, now
            return f"{self.name}: {self.step} …"
        if kind == "step-done":
            self.done.append((self.step, now - self.step_started))
            return f"{self.name}: {self.step} took {now - self.step_started:.0f} s"
        if kind in (NOTE, "failed"):
            self.last = plain(record.line or record.what)
            return f"{self.name}: {self.last}"
        if kind == "log":
            self.last = plain(record.line)
        if now - self.reported > REPEAT_EVERY_S:
            self.reported = now
            return f"{self.name}: {self.step}, {now - self.step_started:.0f} s: {self.last}"
        return None

    def summary(self) -> str:
        """Return the line that remains when the display is removed."""
        steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.done)
        return f"{self.name}: {steps or self.step}"

    def render(self) -> RenderableType:
        now = time.monotonic()
        rows = [Text(f"{self.name}  {now - self.started:.0f} s", style="bold")]
        rows += [Text(f"✓ {name}  {seconds:.0f} s", style="green") for name, seconds in self.done]
        rows.append(Text(f"▶ {self.step}  {now - self.step_started:.0f} s"))
        rows.append(Text(self.last, style="dim"))
        return Group(*rows)
