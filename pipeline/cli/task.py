# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tasks share: how a task ends, the exit statuses in its help, the farm that it works on.

Each task parses, calls one function, prints, and sets the exit status. It imports the rooms
that it needs when it runs, so that a command that needs few of them starts at once.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base import places
from pipeline.base.errors import MEANINGS, ExitStatus, TwinbuildError, UsageError, command_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from invoke.exceptions import Exit
    from invoke.tasks import Task

    from pipeline.base.display import Display
    from pipeline.farm.run import Request, Run
    from pipeline.farm.workspace import Workspace

SIGPIPE_STATUS = 128 + signal.SIGPIPE  # as a shell reports a program that its reader left
EVERY_TASK = (ExitStatus.DONE, ExitStatus.USAGE, ExitStatus.INFRASTRUCTURE)


class FarmTask:
    """A task as its module has it: a function that invoke calls, and how invoke is to take it.

    invoke itself is imported by who needs it: that takes longer than all else that `--list` does.
    """

    def __init__(
        self, function: Callable[..., None], statuses: tuple[ExitStatus, ...], **options: Any
    ) -> None:
        self.function = function
        self.name = function.__name__.replace("_", "-")
        self.documentation = function.__doc__ or ""
        self.statuses = statuses
        self.options = options

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Do the task; raise invoke's `Exit` if it does not end with status 0."""
        self.function(*args, **kwargs)

    @property
    def line(self) -> str:
        """What it does, in a line."""
        return self.documentation.strip().partition("\n")[0]

    def for_invoke(self) -> Task[Callable[..., None]]:
        """Return the task as invoke has it; its help lists the statuses that it may end with."""
        import copy
        import inspect

        from invoke.tasks import task

        text = inspect.cleandoc(self.documentation)
        if self.statuses:
            rows = [f"  {int(one)}  {MEANINGS[one]}" for one in sorted({*self.statuses})]
            text = "\n".join([text, "", "Exit status:", *rows])
        self.function.__doc__ = text
        made: Task[Callable[..., None]] = task(**copy.deepcopy(self.options))(self.function)
        return made


def farm_task(*statuses: ExitStatus) -> Callable[[Callable[..., None]], FarmTask]:
    """Make a task whose errors are one line and an exit status, and which stops cleanly on SIGTERM.

    `statuses` are those that it may end with in addition to those of every task; its help lists
    them. Everything that it prints, errors included, is safe for a terminal.
    """

    def decorate(function: Callable[..., None]) -> FarmTask:
        @functools.wraps(function)
        def guarded(*args: object, **kwargs: object) -> None:
            from pipeline.base.plain import plain_output

            signal.signal(signal.SIGTERM, _end)
            try:
                try:
                    with plain_output():
                        function(*args, **_whole(kwargs))
                finally:
                    sys.stdout.flush()  # not when Python ends, which would print a traceback
            except BrokenPipeError:
                # The reader of a pipe has closed it: there is nobody to print anything for.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise end_with(SIGPIPE_STATUS) from None
            except (TwinbuildError, OSError) as error:
                raise exit_of(error) from error
            except KeyboardInterrupt:
                raise end_with(130, "twinbuild: interrupted; nothing is left running") from None

        return FarmTask(guarded, (*EVERY_TASK, *statuses))

    return decorate


def bare_task(*statuses: ExitStatus, **options: Any) -> Callable[[Callable[..., None]], FarmTask]:
    """Make a task that reports its errors itself.

    `statuses` are as in `farm_task`; without any, its help says itself how it ends. `options` are
    those of invoke's `task`: what the help says of an option, which ones may be repeated.
    """
    every = EVERY_TASK if statuses else ()
    return lambda function: FarmTask(function, (*every, *statuses), **options)


def end_with(status: int, message: str | None = None) -> Exit:
    """Return what ends a task with an exit status, and a message for the user."""
    from invoke.exceptions import Exit

    return Exit(message, code=status)


def _whole(options: dict[str, object]) -> dict[str, object]:
    """Return options with an absolute `source`, if it is a folder, for stages that run elsewhere.

    Raise UsageError if a value is an option: `invoke` takes any word for one that is missing.
    """
    for name, value in options.items():
        if isinstance(value, str) and value.startswith("--"):
            option = f"--{name.strip('_').replace('_', '-')}"
            raise UsageError(
                f"{option} needs a value, not {value}", remedy=f"see {command_line('--list')}"
            )
    source = options.get("source")
    path = Path(source if isinstance(source, str) else "").expanduser()
    return options | {"source": str(path.resolve())} if path.parts and path.is_dir() else options


def exit_of(error: TwinbuildError | OSError) -> Exit:
    """Return the exception that ends a task with an error: its detail, then one line."""
    from pipeline.base.disk_room import cannot_write, no_room
    from pipeline.base.plain import plain_lines

    if isinstance(error, TwinbuildError):
        detail = f"{plain_lines(error.detail)}\n" if error.detail else ""
        line = " ".join(str(error).splitlines())
        return end_with(int(error.status), f"{detail}twinbuild: {plain_lines(line)}")
    if no_room(error):
        return exit_of(cannot_write(error))
    where = f": {error.filename}" if error.filename else ""
    return end_with(4, plain_lines(f"twinbuild: {error.strerror or error}{where}"))


def _end(*_: object) -> None:
    """Do on SIGTERM what Ctrl-C does, even where that is ignored: in a script's background."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    if callable(on_interrupt):
        on_interrupt(signal.SIGINT, None)
    else:
        raise KeyboardInterrupt


def pinned_key() -> Path:
    """Return where the farm keeps the public half of the key that signs its releases."""
    return places.farm / "keys" / "release.asc"


def open_display() -> Display:
    """Return the display that shows a person the progress of a task."""
    from rich.console import Console

    from pipeline.base.display import Display

    # The display uses escape sequences of its own, and makes the texts that it gets safe.
    screen = getattr(sys.stdout, "raw", sys.stdout)
    # Not as rich decides: FORCE_COLOR, which pipelines set, would let it redraw lines in a log.
    terminal = screen.isatty()
    return Display(Console(file=screen, force_terminal=terminal, highlight=False, soft_wrap=True))


def open_farm() -> Workspace:
    """Return the farm; raise UsageError if there is none."""
    from pipeline.farm.workspace import open_workspace

    return open_workspace(places.farm)


def open_farm_and_run(run: str) -> tuple[Workspace, Run]:
    """Return the farm and one of its runs; raise UsageError if there is none of that name."""
    from pipeline.farm.run import open_run

    workspace = open_farm()
    return workspace, open_run(workspace.runs, run)


def request(
    workspace: Workspace,
    image: str,
    commit: str,
    *,
    tag: str | None = None,
    source: str | None = None,
    environment: str | None = None,
    compression: str = "fast",
    vary: str = "default",
) -> Request:
    """Return the request of a run; raise UsageError for an impossible value."""
    from pipeline.farm.run import Request

    return Request.of(
        {
            "image": image,
            "commit": commit,
            "source": source,
            "tag": tag,
            "compression": compression,
            "vary": vary,
            "environments": (environment,) if environment else tuple(workspace.farm.environments),
        }
    )
