# SPDX-License-Identifier: GPL-3.0-or-later
"""A server over raw sockets, which answers what a test writes byte by byte; and how it is asked."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline.base.transfer import Client, Patience

HASTY = Patience(
    connect_s=1, silence_s=0.2, answer_s=0.4, document_s=1, attempts=1, slowest_bytes_per_s=1000
)
ONCE = Patience(attempts=1)
FOUND = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"

Behaviour = Callable[[socket.socket, bytes], None]  # the connection, and the request's head


@dataclass
class HostileServer:
    """Where the server listens, and what it was asked: each request's head."""

    port: int
    asked: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def answering(answer: bytes) -> Behaviour:
    """Return what sends these bytes to everybody, and hangs up."""
    return lambda connection, _: connection.sendall(answer)


@contextmanager
def hostile_server(
    behave: Behaviour, wrap: Callable[[socket.socket], socket.socket] = lambda plain: plain
) -> Iterator[HostileServer]:
    """Let `behave` answer until the block ends; `wrap` may put TLS around a connection."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = HostileServer(listening.getsockname()[1])

    def serve(plain: socket.socket) -> None:
        with plain, suppress(OSError), wrap(plain) as connection:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    return
                head += piece
            server.asked.append(head)
            behave(connection, head)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(1)
            while connection.recv(65536):
                pass

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def get(url: str, limit: int = 1000, patience: Patience = ONCE, **more: Any) -> bytes:
    """Ask for a document, once."""
    with Client(patience=patience, **more) as client:
        return client.get([url], limit=limit)


def moved(location: bytes, more: bytes = b"") -> bytes:
    """Return an answer that leads elsewhere."""
    return b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\n" + more + b"\r\n"


def first(answer: bytes) -> Behaviour:
    """Answer so to `/`, and with the file elsewhere."""

    def behave(connection: socket.socket, head: bytes) -> None:
        connection.sendall(answer if head.startswith(b"GET / ") else FOUND)

    return behave
