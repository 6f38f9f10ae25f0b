# SPDX-License-Identifier: GPL-3.0-or-later
"""Time limits for servers, and sockets that enforce them even if bytes trickle in."""

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

    A file of any size may take any time as long as it keeps arriving: at the slowest rate, 1 GB
    takes twelve days. Everything else has a limit: the beginning of a response `answer_s`, even if
    it trickles in or is delayed by `100 Continue`, and a small document `document_s`.
    """

    connect_s: float = 10.0  # for each of a host's addresses, and for the TLS handshake
    silence_s: float = 30.0  # without a single byte
    answer_s: float = 60.0  # until status and headers have arrived
    document_s: float = 600.0  # until a document that `get` returns has arrived
    slowest_bytes_per_s: float = 1024.0  # on average over twice `silence_s`
    attempts: int = 3
    pause_s: float = 0.5  # before the second attempt; doubled before each further one

    def answer_deadline(self) -> "Deadline":
        """Return the deadline by which the headers of a response must have arrived, from now."""
        deadline = Deadline(self.silence_s)
        deadline.set(self.answer_s)
        return deadline


@dataclass
class Deadline:
    """When reads must have ended, by the monotonic clock, and the longest silence until then."""

    silence_s: float
    at: float = math.inf

    def set(self, seconds: float) -> None:
        """Set the deadline to this number of seconds from now."""
        self.at = time.monotonic() + seconds

    def apply(self, opened: socket.socket) -> None:
        """Set a socket's timeout to the time that is left; raise TimeoutError if none is."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        opened.settimeout(min(self.silence_s, left))


class PatientSocket(socket.socket):
    """A socket without TLS; if it has no `deadline`, it is like any other."""

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
    """Return a TLS context that checks host names and certificates.

    The root certificates are those that the environment variables of `requests` name, or else those
    in the file or folder `default`.
    """
    return _context(next(filter(None, map(os.environ.get, ROOTS)), default))


@cache
def _context(roots: str) -> ssl.SSLContext:
    kind = "capath" if Path(roots).is_dir() else "cafile"
    context = ssl.create_default_context(**{kind: roots})  # type: ignore[arg-type]
    context.sslsocket_class = PatientTLSSocket
    return context
