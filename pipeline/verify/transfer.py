# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server has: requests with limits in bytes and in time, redirects followed by hand."""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from pipeline.verify.report import INFRASTRUCTURE, SIGNATURE, Refused

REDIRECTS_LIMIT = 5
TIMEOUT_LIMIT_S = 86400.0
TOTAL_TIMES = 10  # a whole answer may take this many times the time that a server may be silent
LEAST_RATE = 1024  # bytes a second, above that
CHUNK_LINE_LIMIT = 4096

CONTENT_LENGTH = re.compile(r"[0-9]{1,15}")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


class Trouble(Exception):
    """A request that failed; `code` is the HTTP status if there was one, `absent` if no file."""

    def __init__(self, what: str, code: int = 0, *, absent: bool = False) -> None:
        super().__init__(what)
        self.code = code
        self.absent = absent or code in (404, 410)


FAILURES = (OSError, http.client.HTTPException, ValueError, Trouble)  # of a request, and later


@dataclass(frozen=True)
class RemoteRelease:
    """Where a release lies: URL and tag, and how long (in seconds) to wait for a sign of life."""

    url: str
    tag: str
    timeout_s: float

    def address(self, name: str) -> str:
        """Return the address of one of its files."""
        return f"{self.url.rstrip('/')}/{urllib.parse.quote(self.tag)}/{urllib.parse.quote(name)}"

    def open(self, name: str, offset: int = 0) -> Any:
        """Open one of its files from `offset` on; raise Trouble if that fails.

        Redirects are followed by hand, to http and https alone and never from https to http; the
        bodies that come with them and with errors are not read.
        """
        url = self.address(name)
        for _ in range(REDIRECTS_LIMIT + 1):
            try:
                return _open(url, offset, self.timeout_s)
            except urllib.error.HTTPError as error:
                location = error.headers.get("Location", "")
                error.close()
                if error.code not in (301, 302, 303, 307, 308):
                    raise Trouble(f"HTTP status {error.code}", error.code) from error
                url = _redirected(url, location)
        raise Trouble(f"more than {REDIRECTS_LIMIT} redirects")

    def read(self, name: str, limit: int, *, absent: int = INFRASTRUCTURE) -> bytes:
        """Read a small file; `absent` is the exit status if the server has none."""
        try:
            with self.open(name) as response:
                content = bytes(response.read(limit + 1))
                length = content_length(response)
        except FAILURES as error:
            status = absent if getattr(error, "absent", False) else INFRASTRUCTURE
            raise Refused(
                status, f"cannot read {self.address(name)}: {reason_of(error)}"
            ) from error
        if len(content) > limit:
            raise Refused(SIGNATURE, f"{name} is larger than {limit} bytes")
        if length not in (None, len(content)):
            raise Refused(INFRASTRUCTURE, f"{self.address(name)} was cut off: try again")
        return content


def _open(url: str, offset: int, timeout_s: float) -> Any:
    """Request an address, once; raise HTTPError for any answer but a file's content."""
    request = urllib.request.Request(url)  # noqa: S310
    request.add_header("Accept-Encoding", "identity")
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        opener = urllib.request.build_opener(_Http, _Https, _NoRedirects)
        response = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        absent = isinstance(getattr(error, "reason", None), FileNotFoundError)
        raise Trouble(reason_of(error), absent=absent) from error
    try:
        _check_head(response, offset)
    except Trouble:
        response.close()
        raise
    return response


def _check_head(response: Any, offset: int) -> None:
    """Raise Trouble unless what follows is the file itself, or its rest if that was asked for."""
    status, coding = getattr(response, "status", None), response.headers.get("Content-Encoding")
    if status not in ((None, 200, 206) if offset else (None, 200)):  # None: a file of this machine
        raise Trouble(f"HTTP status {status}, which was not asked for", int(status or 0))
    if coding not in (None, "", "identity"):
        raise Trouble(f"the server sends it as {coding!r:.40}, which was not asked for")
    content_length(response)


def content_length(response: Any) -> int | None:
    """Return how many bytes the server says will follow; raise Trouble if it says nonsense."""
    length = response.headers.get("Content-Length")
    if length is None or response.headers.get("Transfer-Encoding"):
        return None
    if not CONTENT_LENGTH.fullmatch(length.strip()):
        raise Trouble(f"the server says that {length!r:.40} bytes follow")
    return int(length)


def _redirected(url: str, location: str) -> str:
    """Return where a redirect leads to; raise Trouble if it must not be followed."""
    try:
        target = normal_url(urllib.parse.urljoin(url, location))
    except ValueError as error:
        raise Trouble(f"a redirect to {location!r:.200}: {error}") from error
    schemes = [urllib.parse.urlsplit(address).scheme for address in (url, target)]
    if not location or schemes not in (["http", "http"], ["http", "https"], ["https", "https"]):
        raise Trouble(f"a redirect to {target!r:.200} is not followed")
    return target


def normal_url(value: str) -> str:
    """Return an address in the characters that go over the wire; raise ValueError if it is none."""
    parts = urllib.parse.urlsplit(value)
    host, port = parts.hostname or "", parts.port  # both raise ValueError
    if "@" in parts.netloc or not re.fullmatch(r"[^\s\x00-\x1f\x7f]*", parts.netloc):
        raise ValueError("it has a user name, a password or odd characters where the host belongs")
    if parts.scheme not in ("http", "https", "file"):
        raise ValueError("it must start with https://, http:// or file://")
    if not host and parts.scheme != "file":
        raise ValueError("it names no host")
    host = f"[{host}]" if ":" in host else host.encode("idna").decode()
    netloc = host if port is None else f"{host}:{port}"
    safe = "/%:@!$&'()*+,;=~?[]"
    path, query = (
        urllib.parse.quote(part, safe, "utf-8", "surrogateescape")
        for part in (parts.path, parts.query)
    )
    return urllib.parse.urlunsplit((parts.scheme, netloc, path, query, ""))


def reason_of(error: Exception) -> str:
    """Return what an error says, or its kind if it says nothing."""
    return str(getattr(error, "reason", None) or error) or type(error).__name__


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves redirects alone: urllib would read their bodies, however long."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> None:
        """Handle nothing, so that an HTTPError comes out."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Clocked(io.RawIOBase):
    """What comes from a socket, for a limited time in all, and not in silence either.

    The head of an answer has to be there within the time that the server may be silent, the whole
    within `TOTAL_TIMES` that, and a second more for each `LEAST_RATE` bytes.
    """

    def __init__(self, connection: Any) -> None:
        self._socket, self._file = connection, connection.makefile("rb", buffering=0)
        self._silence = connection.gettimeout() or TIMEOUT_LIMIT_S
        self._begin, self._received, self._times = time.monotonic(), 0, 1

    def has_head(self) -> None:
        """Give the rest of the answer its time."""
        self._times = TOTAL_TIMES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        limit = self._silence * self._times + self._received / LEAST_RATE * (self._times > 1)
        left = self._begin + limit - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server is too slow")
        self._socket.settimeout(min(self._silence, left))
        try:
            count: int | None = self._file.readinto(buffer)
        except (TimeoutError, socket.timeout) as error:
            silent = f"the server was silent for {self._silence:g} s"
            why = silent if left > self._silence else "the server is too slow"
            raise TimeoutError(why) from error
        self._received += count or 0
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Chunks(io.RawIOBase):
    """The content of a chunked body (RFC 9112, 7.1); http.client takes a size of -1 for all."""

    def __init__(self, file: Any) -> None:
        self._file, self._left, self._ended = file, 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left and not self._ended:
            line = self._file.readline(CHUNK_LINE_LIMIT)
            size = CHUNK.fullmatch(line)
            if not size:
                raise http.client.HTTPException("the server sends a malformed chunk")
            self._left = int(size[1], 16)
            self._ended = not self._left
        piece = self._file.read(min(len(buffer), self._left)) if self._left else b""
        buffer[: len(piece)] = piece
        self._left -= len(piece)
        if not self._ended and not piece:
            raise http.client.HTTPException("the connection was cut off")
        if not self._ended and not self._left and self._file.readline(3) not in (b"\r\n", b"\n"):
            raise http.client.HTTPException("the server sends a malformed chunk")
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer that is read by the clock, and whose chunks are read here."""

    def __init__(self, connection: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(connection, *arguments, **options)
        self.fp.close()
        self._clock = _Clocked(connection)
        self.fp = io.BufferedReader(self._clock)

    def begin(self) -> None:
        super().begin()
        self._clock.has_head()
        if self.chunked:
            self.fp = io.BufferedReader(_Chunks(self.fp))
            self.chunked, self.length = False, None


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(_Connection, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: Any) -> Any:
        context = ssl.create_default_context()
        return self.do_open(_SecureConnection, request, context=context)
