# SPDX-License-Identifier: GPL-3.0-or-later
"""An Engine that can die: a socket that passes everything on to the real one until it is cut."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

REAL = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


@dataclass
class Cut:
    """Where the Engine can be reached, and what ends it."""

    address: str
    listener: socket.socket
    open: list[socket.socket] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def now(self) -> None:
        """End all connections, and take no more."""
        for end in (self.listener, *self.open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def cut_engine(path: Path) -> Iterator[Cut]:
    """Listen at `path`; everything is over when the block ends."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        cut = Cut(f"unix://{path}", listener)
        _start(cut, _accept, cut)
        yield cut
        cut.now()
        for thread in cut.threads:
            thread.join()


def _start(cut: Cut, target: object, *arguments: object) -> None:
    thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
    cut.threads.append(thread)
    thread.start()


def _accept(cut: Cut) -> None:
    with suppress(OSError):
        while True:
            ours, _ = cut.listener.accept()
            real = socket.socket(socket.AF_UNIX)
            real.connect(REAL)
            cut.open += [ours, real]
            _start(cut, _pass_on, ours, real)
            _start(cut, _pass_on, real, ours)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
