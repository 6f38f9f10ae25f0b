# SPDX-License-Identifier: GPL-3.0-or-later
"""Time limits for servers, and sockets whose reads obey them even if bytes trickle in."""

import math
import os
import socket
import ssl
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOTS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class Patience:
    """How long a server may take before it counts as down; each address gets `attempts`.

    A file of any size may take its time as long as it keeps coming: at the slowest rate, 1 GB takes
    twelve days. Everything else has a limit: the beginning of an answer `answer_s`, even if it
    trickles in or is delayed by `100 Continue`, and a small document `document_s`.
    """

    connect_s: float = 10.0  # for each of a host's addresses, and for the TLS handshake
    silence_s: float = 30.0  # without a single byte
    answer_s: float = 60.0  # until status and headers are there
    document_s: float = 600.0  # until all of a document is there that `get` returns
    slowest_bytes_per_s: float = 1024.0  # on average in each two `silence_s`
    attempts: int = 3
    pause_s: float = 0.5  # before the second attempt; doubled before each further one

    def answer_deadline(self) -> "Deadline":
        """Return by when the answer to a request sent now must have begun."""
        deadline = Deadline(self.silence_s)
        deadline.set(self.answer_s)
        return deadline


@dataclass
class Deadline:
    """When reads must have ended, by the monotonic clock; and the longest silence before."""

    silence_s: float
    at: float = math.inf

    def set(self, seconds: float) -> None:
        """Let reads end in so many seconds."""
        self.at = time.monotonic() + seconds

    def apply(self, opened: socket.socket) -> None:
        """Give a socket the time that is left for its next read; raise TimeoutError if it is up."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        opened.settimeout(min(self.silence_s, left))


class PatientSocket(socket.socket):
    """A plain socket; without a `deadline` it is like any other."""

    deadline: Deadline | None = None

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read what there is, until the deadline."""
        if self.deadline:
            self.deadline.apply(self)
        return super().recv_into(*args, **kwargs)


class PatientTLSSocket(ssl.SSLSocket):
    """The same with TLS, for `SSLContext.sslsocket_class`; a handshake already has one timeout."""

    deadline: Deadline | None = None

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read what there is, until the deadline."""
        if self.deadline:
            self.deadline.apply(self)
        return super().recv_into(*args, **kwargs)


def tls_context(default: str) -> ssl.SSLContext:
    """Return a context that checks host names and certificates, by the variables of `requests`.

    If none is set, `default` is the file or folder of root certificates.
    """
    return _context(next(filter(None, map(os.environ.get, ROOTS)), default))


@cache
def _context(roots: str) -> ssl.SSLContext:
    kind = "capath" if Path(roots).is_dir() else "cafile"
    context = ssl.create_default_context(**{kind: roots})  # type: ignore[arg-type]
    context.sslsocket_class = PatientTLSSocket
    return context
