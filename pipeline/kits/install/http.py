# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that speaks HTTP on an installed system: patience, limits, resuming, hashing.

It is as strict as the farm's (`pipeline/base/transfer.py`). A server is hostile input: what it
sends is counted against a limit, and what has a known SHA-256 is nothing before it matches.
Redirects are few, their bodies unread, never from https to http, and to public addresses alone
unless they stay with the host that was named. Certificates are checked against this machine's
roots, or those that `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` or `SSL_CERT_FILE` names. Proxies come
from the environment.
"""

import http.client
import math
import netrc
import os
import re
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

from pipeline.documents.plain import plain
from pipeline.documents.public_address import NotPublic, open_socket, refuse_private_name
from pipeline.documents.web_address import Misled, WebAddress, follow, parse
from pipeline.kits.install.failure import InfrastructureFailed, InputsUnverified, UsageError
from pipeline.kits.install.part import PIECE, Advance, Part, WrongBytes

CONNECT_S = 10.0  # for each of a host's addresses, and for the TLS handshake
SILENCE_S = 30.0  # without a single byte
ANSWER_S = 60.0  # until status and headers are there
DOCUMENT_S = 600.0  # until all of a small document is there
SLOWEST = 1024  # bytes a second, on average in each two SILENCE_S
ATTEMPTS = 3
PAUSE_S = 0.5  # before the second attempt; doubled before each further one
REDIRECTS = 5
MOVED = (301, 302, 303, 307, 308)
PASSING = (408, 425, 429)  # statuses that may be different a moment later, as all from 500 on
OK, PARTIAL, SERVER_ERROR = 200, 206, 500
LENGTH = re.compile(r"[0-9]{1,18}")
ROOTS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

Done = TypeVar("Done")

_NETWORK = (OSError, http.client.HTTPException)


class NotFound(InfrastructureFailed):
    """The server answered, and does not have the file."""


class _Refused(Exception):
    """The server's answer will not change: 404 and its like."""


def get(url: str, *, limit: int) -> bytes:
    """Return a small document of at most `limit` bytes.

    Raise NotFound if the server answers that it has none, InputsUnverified if it is larger, else
    InfrastructureFailed.
    """
    address = _parse(url)
    return _patiently(address, partial(_whole, address, limit))


def download(url: str, path: Path, *, size: int, sha256: str, advance: Advance) -> None:
    """Fetch the bytes with this size and SHA-256 into a file.

    What the file holds is taken as the beginning, and an interrupted transfer goes on where it
    stopped. Raise what `get` raises; InputsUnverified for wrong bytes, of which nothing is kept.
    """
    address = _parse(url)
    with path.open("r+b") as file:
        part = Part(file, path, size, sha256, advance)
        if not part.is_complete():
            _patiently(address, partial(_receive, address, part))


def _parse(url: str) -> WebAddress:
    try:
        return parse(url)
    except ValueError as error:
        shown = plain(url.rpartition("@")[2], limit=200)
        raise UsageError(f"{shown} is no address to fetch from: {error}") from error


def _patiently(address: WebAddress, attempt: Callable[[], Done]) -> Done:
    """Try again until the attempts are used up; raise the error of the last one."""
    name, place = unquote(address.target), address.host
    problem: Exception = AssertionError("there was no attempt")
    for turn in range(ATTEMPTS):
        time.sleep(PAUSE_S * 2 ** (turn - 1) if turn else 0)
        try:
            return attempt()
        except WrongBytes as error:
            what = plain(f"{name} has wrong bytes at {place}")
            raise InputsUnverified(what, detail=plain(str(error))) from error
        except _Refused as error:
            raise NotFound(plain(f"{place} has no {name}"), detail=plain(str(error))) from error
        except (Misled, NotPublic) as error:
            what = plain(f"{name} could not be fetched from {place}: {error}")
            raise InfrastructureFailed(what, remedy="tell who runs the server") from error
        except _NETWORK as error:
            problem = error
    raise InfrastructureFailed(
        plain(f"{name} could not be fetched from {place}: {problem or type(problem).__name__}"),
        remedy="try again later",
    ) from problem


def _whole(address: WebAddress, limit: int) -> bytes:
    content, end = bytearray(), time.monotonic() + DOCUMENT_S
    with _answer(address, {}) as answer:
        for piece in answer.pieces():
            content += piece
            if len(content) > limit:
                raise WrongBytes(f"more than {limit} bytes")
            if time.monotonic() > end:
                raise TimeoutError(f"{DOCUMENT_S:.0f} s are not enough")
    return bytes(content)


def _receive(address: WebAddress, part: Part) -> None:
    """Append the rest of a file; begin anew, once, if what was there is not its beginning."""
    resumed = part.length > 0
    try:
        _append(address, part)
    except WrongBytes:
        part.restart()
        if not resumed:
            raise
        _append(address, part)


def _append(address: WebAddress, part: Part) -> None:
    headers = {"Range": f"bytes={part.length}-"} if part.length else {}
    try:
        with _answer(address, headers) as answer:
            if not answer.continues(part.length):
                part.restart()
            for piece in answer.pieces():
                part.append(piece)
    except _Refused:
        if not part.length:
            raise
        # No bytes after the last one is how a server may answer to a part that is too long.
        raise WrongBytes(f"does not continue a part of {part.length} bytes") from None
    part.check()


class _Answer:
    """An answer with the file in it: its head was read, its body was not."""

    def __init__(self, response: http.client.HTTPResponse, opened: "_Timed") -> None:
        self._response, self._opened = response, opened

    def continues(self, offset: int) -> bool:
        """Tell whether it begins at `offset`; one without a range begins at 0."""
        if self._response.status == OK:
            return offset == 0
        stated = self._response.headers.get("Content-Range", "")
        return stated.startswith(f"bytes {offset}-")

    def pieces(self) -> Iterator[bytes]:
        """Give the body as it comes; raise a network error when it is too slow or stops short."""
        left, began, received = self._length(), time.monotonic(), 0
        while left:
            # Chunk sizes and trailers that trickle in are a silence, too.
            self._opened.set_end(SILENCE_S)
            piece = self._response.read1(int(min(PIECE, left)))
            if not piece:
                break
            left -= len(piece)
            received += len(piece)
            yield piece
            lasted = time.monotonic() - began
            if lasted > 2 * SILENCE_S:
                if received < SLOWEST * lasted:
                    raise TimeoutError(f"{received} bytes in {lasted:.0f} s")
                began, received = time.monotonic(), 0
        if 0 < left < math.inf:
            raise ConnectionError(f"ended {left:.0f} bytes too early")

    def _length(self) -> float:
        stated = self._response.headers.get("Content-Length")
        if stated is None or self._response.headers.get("Transfer-Encoding"):
            return math.inf
        if not LENGTH.fullmatch(stated.strip()):
            raise ConnectionError(f"says that {stated[:40]!r} bytes follow")
        return int(stated)


@contextmanager
def _answer(address: WebAddress, headers: dict[str, str]) -> Iterator[_Answer]:
    """Give the answer to a request, its body to be read; redirects are followed."""
    there = address
    for _ in range(REDIRECTS + 1):
        with closing(_connect(there, address)) as connection:
            same = (there.scheme, there.place) == (address.scheme, address.place)
            identity = _authorization(address) if same else {}
            response, opened = _ask(connection, there, {**headers, **identity})
            with closing(response):
                if response.status not in MOVED:
                    _refuse_status(there, response.status)
                    yield _Answer(response, opened)
                    return
                there = follow(there, response.headers.get_all("Location") or [])
    raise Misled(f"{address.url} leads on more than {REDIRECTS} times")


def _ask(
    connection: "_Plain | _Secure", address: WebAddress, headers: dict[str, str]
) -> tuple[http.client.HTTPResponse, "_Timed"]:
    connection.connect()
    opened = connection.sock
    opened.set_end(ANSWER_S)
    target = address.url if connection.asks_proxy else address.target
    own = {"Accept": "*/*", "User-Agent": "twinbuild", "Connection": "close"}
    connection.request("GET", target, headers={**own, **connection.proxy_headers, **headers})
    return connection.getresponse(), opened


def _refuse_status(address: WebAddress, status: int) -> None:
    """Raise for an answer without the file; the server's own words for it are not repeated."""
    if status in PASSING or status >= SERVER_ERROR:
        raise ConnectionError(f"{address.url}: status {status}")
    if status not in (OK, PARTIAL):
        raise _Refused(f"{address.url}: status {status}")


def _authorization(address: WebAddress) -> dict[str, str]:
    """Return the Authorization header, for the server alone that was named."""
    known = address.credentials or _in_netrc(address.host)
    if not known:
        return {}
    return {"Authorization": f"Basic {b64encode(':'.join(known).encode()).decode()}"}


def _in_netrc(host: str) -> tuple[str, str] | None:
    try:
        found = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError, RuntimeError):
        return None
    return (found[0], found[2] or "") if found else None


# --- connections --------------------------------------------------------------------------------


class _Timed:
    """When a socket's reads must have ended, by the monotonic clock."""

    _end = math.inf

    def set_end(self, seconds: float) -> None:
        """Let reads end in so many seconds."""
        self._end = time.monotonic() + seconds

    def _time_left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        return min(SILENCE_S, left)


class _Socket(_Timed, socket.socket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(self._time_left())
        return super().recv_into(*args, **kwargs)


class _TLSSocket(_Timed, ssl.SSLSocket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(self._time_left())
        return super().recv_into(*args, **kwargs)


class _Plain(http.client.HTTPConnection):
    """A connection whose socket is opened here; `asks_proxy` is for what a proxy is to fetch."""

    asks_proxy = False
    sock: Any

    def __init__(self, host: str, port: int, dial: Callable[..., _Socket], **more: Any) -> None:
        super().__init__(host, port, timeout=CONNECT_S, **more)
        self._dial, self._dialled = dial, list[_Socket]()
        self._create_connection = self._dial_once
        self.proxy_headers: dict[str, str] = {}

    def _dial_once(self, *place: Any) -> _Socket:
        self._dialled.append(self._dial(*place))
        return self._dialled[-1]

    def connect(self) -> None:
        try:
            super().connect()
        except BaseException:
            for opened in self._dialled:  # http.client leaves it open when a proxy refuses
                if opened.fileno() >= 0:
                    socket.close(opened.detach())
            raise


class _Secure(_Plain, http.client.HTTPSConnection):
    """With TLS: host name and certificate are the address's, also through a proxy."""


def _connect(address: WebAddress, named: WebAddress) -> _Plain | _Secure:
    """Return a connection, not yet opened, for an address that `named` is or has led to.

    Only what was named may lie on a private network. Raise NotPublic, now or when it is opened.
    """
    is_named, proxy = address.place in named.places, _proxy(address)
    if proxy and not is_named:
        refuse_private_name(address.host)
    server = proxy or address
    dial = partial(_dial, public=not (is_named or proxy))
    if address.scheme == "http":
        plain_one = _Plain(server.host, server.port, dial)
        plain_one.asks_proxy = bool(proxy)
        plain_one.proxy_headers = _proxy_headers(proxy)
        return plain_one
    secure = _Secure(server.host, server.port, dial, context=_context())
    if proxy:
        secure.set_tunnel(address.host, address.port, _proxy_headers(proxy))
    return secure


def _dial(place: tuple[str, int], *_: object, public: bool) -> _Socket:
    opened = open_socket(*place, public=public, timeout_s=CONNECT_S, kind=_Socket)
    opened.set_end(ANSWER_S)
    return opened


def _proxy(address: WebAddress) -> WebAddress | None:
    """Return the environment's proxy for an address; raise UsageError if it is none."""
    proxies = getproxies()
    text = proxies.get(address.scheme) or proxies.get("all")
    if not text or proxy_bypass(address.host):
        return None
    try:
        found = parse(text if "://" in text else f"http://{text}")
    except ValueError as error:
        raise UsageError(
            f"the proxy for {address.scheme} is no address: {error}",
            remedy=f"correct {address.scheme}_proxy",
        ) from error
    if found.scheme != "http":
        raise UsageError("a proxy that needs TLS cannot be used", remedy="use another one")
    return found


def _proxy_headers(proxy: WebAddress | None) -> dict[str, str]:
    if proxy is None or proxy.credentials is None:
        return {}
    known = ":".join(proxy.credentials).encode()
    return {"Proxy-Authorization": f"Basic {b64encode(known).decode()}"}


def _context() -> ssl.SSLContext:
    roots = next(filter(None, map(os.environ.get, ROOTS)), None)
    folder, file = (roots, None) if roots and Path(roots).is_dir() else (None, roots)
    context = ssl.create_default_context(capath=folder, cafile=file)
    context.sslsocket_class = _TLSSocket
    return context
