# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that speaks HTTP: addresses in order, patience and limits, resuming, hashing.

What a server sends is hostile input. Everything is counted against a limit, and bytes with a known
SHA-256 are not used before they match. Redirects are followed here, not by urllib3: only a few,
without reading their bodies, only over http(s), never from https to http, and to private networks
only if the operator named the host. Proxies come from the environment (`http_proxy`, `https_proxy`,
`no_proxy`, also in upper case) or, if none is set there, from the creator of the client.
"""

import re
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, BinaryIO, Self, TypeVar
from urllib.request import getproxies

import urllib3
from requests.utils import (
    DEFAULT_CA_BUNDLE_PATH,
    get_auth_from_url,
    get_netrc_auth,
    prepend_scheme_if_needed,
    select_proxy,
    should_bypass_proxies,
)
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool

from pipeline.base.errors import InfrastructureFailed
from pipeline.base.fetch_failure import BARRED, Missing, NotServed, failure
from pipeline.base.named_address import parse_named
from pipeline.base.part import PIECE, Advance, Part, WrongBytes
from pipeline.base.patient_socket import Deadline, Patience, PatientSocket, tls_context
from pipeline.documents.public_address import open_socket, refuse_private_name
from pipeline.documents.web_address import Misled, WebAddress, follow

__all__ = ["Client", "Missing", "Patience"]
WORKERS = 4
REDIRECTS = 5
MOVED = (301, 302, 303, 307, 308)
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "twinbuild"}
LENGTH = re.compile(r"[0-9]{1,18}")
# Statuses that are worth a retry.
PASSING = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    *(status for status in HTTPStatus if status >= HTTPStatus.INTERNAL_SERVER_ERROR),
}

Job = TypeVar("Job")
Dial = Callable[[str, int], PatientSocket]  # connects to host and port

_NETWORK = (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)
_FAULTS = (NotServed, WrongBytes, *BARRED, *_NETWORK)


class Client:
    """An HTTP client for several threads at once; as a context manager it closes its connections.

    `named` are the addresses that the operator has named, in farm.yaml, by a variable or in apt's
    sources; only their hosts may be on private networks. Without it, the addresses given to the
    methods count as named, and only the targets of redirects are checked.
    """

    def __init__(
        self,
        *,
        proxies: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        named: Iterable[str] | None = None,
    ) -> None:
        self._patience = patience or Patience()
        self._proxies = dict(proxies or {})
        self._names_all = named is None
        self._named = {place for url in named or () for place in parse_named(url).places}
        self._stopped = threading.Event()
        self._down: set[tuple[str, int]] = set()
        self._managers: dict[str | None, urllib3.PoolManager] = {}
        self._opening = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for manager in self._managers.values():
            manager.clear()

    def get(self, urls: Sequence[str], *, limit: int) -> bytes:
        """Return a small document of at most `limit` bytes from the first address that has it.

        Raise Missing if no address has it, otherwise InfrastructureFailed.
        """
        problems: list[Exception] = []
        for url in self._in_order(urls):
            try:
                return self._patiently(url, partial(self._whole, url, limit))
            except _FAULTS as error:
                problems.append(error)
        raise failure([parse_named(url) for url in urls], problems)

    def download(
        self,
        urls: Sequence[str],
        file: BinaryIO,
        *,
        size: int | None = None,
        sha256: str,
        limit: int,
        advance: Advance = lambda _: None,
    ) -> None:
        """Fetch the bytes with this SHA-256 (and size, if known) to `file`, at most `limit` bytes.

        `file` is open for reading and writing; its content is taken as the beginning, and an
        interrupted transfer continues where it stopped, from the next address if necessary. Raise
        InputsUnverified if all addresses that have the file have wrong bytes, Missing if no address
        has it, otherwise InfrastructureFailed.
        """
        part = Part(file, size, sha256, min(limit, size or limit), advance)
        problems: list[Exception] = []
        if part.complete():
            return
        for url in self._in_order(urls):
            try:
                self._patiently(url, partial(self._receive, url, part))
            except _FAULTS as error:
                problems.append(error)
            else:
                return
        raise failure([parse_named(url) for url in urls], problems)

    def offers(self, urls: Sequence[str], size: int) -> bool:
        """Tell whether any address claims to have a file of `size` bytes."""
        for url in self._in_order(urls):
            try:
                found = self._patiently(url, partial(self._length, url))
            except _FAULTS:
                continue
            if found == size:
                return True
        return False

    def in_parallel(self, jobs: Iterable[Job], work: Callable[[Job], None]) -> None:
        """Do `work` for all `jobs` in a few threads; the first error stops the others."""
        pool = ThreadPoolExecutor(WORKERS)
        try:
            for _ in pool.map(work, jobs):
                pass
        except BaseException:
            self._stopped.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _in_order(self, urls: Sequence[str]) -> list[WebAddress]:
        """Return `urls` in their order, but those of servers found to be down last."""
        parsed = [parse_named(url) for url in urls]
        if self._names_all:
            self._named.update(place for url in parsed for place in url.places)
        return sorted(parsed, key=lambda url: url.place in self._down)

    def _patiently(self, url: WebAddress, attempt: Callable[[], Job]) -> Job:
        """Repeat an attempt after network errors, up to the limit; remember a server as down."""
        for turn in range(self._patience.attempts):
            try:
                return attempt()
            except _NETWORK:
                if turn + 1 == self._patience.attempts:
                    self._down.add(url.place)
                    raise
                self._stopped.wait(self._patience.pause_s * 2**turn)
        raise AssertionError("an attempt either returns or raises")

    @contextmanager
    def _answer(
        self, url: WebAddress, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Iterator[HTTPResponse]:
        """Yield the response to a request, with its body unread; redirects are followed."""
        there = url
        for _ in range(REDIRECTS + 1):
            known = there.place in self._named and there.place == url.place
            identity = _authorization(url) if known and there.scheme == url.scheme else {}
            response = self._ask(there, {**(headers or {}), **identity}, method)
            try:
                if response.status not in MOVED:
                    _refuse_status(there, response.status)
                    yield response
                    return
                there = follow(there, response.headers.getlist("Location"))
            finally:
                response.close()  # this closes the connection unless the body was read
        raise Misled(f"{url.url} redirects more than {REDIRECTS} times")

    def _ask(self, url: WebAddress, headers: Mapping[str, str], method: str) -> HTTPResponse:
        proxy = self._proxy(url.url)
        if proxy and url.place not in self._named:
            refuse_private_name(url.host)
        response: HTTPResponse = self._manager(proxy).urlopen(  # type: ignore[assignment]
            method,
            url.url,
            headers={**HEADERS, **headers},
            timeout=urllib3.Timeout(self._patience.connect_s, self._patience.silence_s),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        return response

    def _manager(self, proxy: str | None) -> urllib3.PoolManager:
        """Return the manager of connections through a proxy, or of direct ones."""
        with self._opening:
            if proxy not in self._managers:
                self._managers[proxy] = manager = _new_manager(proxy)
                dial = partial(self._dial, proxied=bool(proxy))
                kinds: Any = {}
                for scheme, kind, connection in KINDS:
                    ours = partial(connection, dial=dial, patience=self._patience)
                    kinds[scheme] = partial(_pool, kind, ours)
                manager.pool_classes_by_scheme = kinds
            return self._managers[proxy]

    def _dial(self, host: str, port: int, *, proxied: bool) -> PatientSocket:
        """Connect to a host or proxy; raise NotPublic for a private host that was not named."""
        public = not proxied and (host.strip("[]").removesuffix("."), port) not in self._named
        opened = open_socket(
            host, port, public=public, timeout_s=self._patience.connect_s, kind=PatientSocket
        )
        opened.deadline = self._patience.answer_deadline()
        return opened

    def _proxy(self, url: str) -> str | None:
        """Return the proxy for an address: from the environment, or else from the client."""
        if should_bypass_proxies(url, no_proxy=None):
            return None
        return select_proxy(url, {**self._proxies, **getproxies()}) or None

    def _pieces(self, url: WebAddress, response: HTTPResponse) -> Iterator[bytes]:
        """Yield the body as it arrives; raise a network error if it is too slow or ends early."""
        window = 2 * self._patience.silence_s
        began, received = time.monotonic(), 0
        deadline: Deadline = response.deadline  # type: ignore[attr-defined]
        while True:
            # Chunk sizes and trailers that trickle in count as silence, too.
            deadline.set(self._patience.silence_s)
            # `read1` returns what has arrived; other methods wait for a whole piece, however long.
            piece = response.read1(PIECE, decode_content=False)
            if not piece:
                return
            if self._stopped.is_set():
                raise InfrastructureFailed("a transfer was stopped")
            received += len(piece)
            yield piece
            lasted = time.monotonic() - began
            if lasted > window:
                if received < self._patience.slowest_bytes_per_s * lasted:
                    raise TimeoutError(f"{url.url}: {received} bytes in {lasted:.0f} s")
                began, received = time.monotonic(), 0

    def _whole(self, url: WebAddress, limit: int) -> bytes:
        content = bytearray()
        end = time.monotonic() + self._patience.document_s
        with self._answer(url) as response:
            for piece in self._pieces(url, response):
                content += piece
                if len(content) > limit:
                    raise WrongBytes(f"{url.url}: more than {limit} bytes")
                if time.monotonic() > end:
                    raise TimeoutError(
                        f"{url.url}: {self._patience.document_s:.0f} s are not enough"
                    )
        return bytes(content)

    def _length(self, url: WebAddress) -> int | None:
        with self._answer(url, method="HEAD") as response:
            response.read(decode_content=False)  # it is empty: this keeps the connection
            stated = response.headers.get("Content-Length", "")
        return int(stated) if LENGTH.fullmatch(stated) else None

    def _receive(self, url: WebAddress, part: Part) -> None:
        """Append the rest of the file; start again once if the part does not match."""
        resumed = part.length > 0
        try:
            self._append(url, part)
            part.check(url.url)
        except WrongBytes:
            part.restart()
            if not resumed:
                raise
            self._append(url, part)
            part.check(url.url)

    def _append(self, url: WebAddress, part: Part) -> None:
        headers = {"Range": f"bytes={part.length}-"} if part.length else None
        try:
            with self._answer(url, headers) as response:
                if not _continues(response, part.length):
                    part.restart()
                for piece in self._pieces(url, response):
                    part.append(url.url, piece)
                if part.is_short() and "Content-Length" not in response.headers:
                    raise ConnectionError(f"{url.url}: ended after {part.length} bytes")
        except NotServed:
            if not part.length:
                raise
            # A server may answer like this if the part is too long to be continued.
            raise WrongBytes(
                f"{url.url}: does not continue a part of {part.length} bytes"
            ) from None


class _Connection:
    """Changes connections of urllib3: how they are opened, and a deadline for each response."""

    sock: Any

    def __init__(self, *args: Any, dial: Dial, patience: Patience, **more: Any) -> None:
        super().__init__(*args, **more)
        self._dial, self._patience = dial, patience

    def _new_conn(self) -> Any:
        return self._dial(self._dns_host, self.port)  # type: ignore[attr-defined]

    def getresponse(self) -> Any:
        sock = self.sock
        sock.deadline = deadline = self._patience.answer_deadline()
        try:
            response: Any = super().getresponse()  # type: ignore[misc]
        except BaseException:
            if sock.fileno() >= 0:  # urllib3 leaves it open when it refuses a header
                socket.close(sock.detach())
            raise
        response.deadline = deadline
        return response


class _HTTPConnection(_Connection, urllib3.connection.HTTPConnection):
    """A connection without TLS."""


class _HTTPSConnection(_Connection, urllib3.connection.HTTPSConnection):
    """A connection with TLS: the certificate must be for the host name in the address."""


KINDS: tuple[tuple[str, Any, Any], ...] = (
    ("http", HTTPConnectionPool, _HTTPConnection),
    ("https", HTTPSConnectionPool, _HTTPSConnection),
)


def _pool(kind: Any, connection: Any, host: str, port: int, **more: Any) -> HTTPConnectionPool:
    """Return a pool of urllib3 that uses our connection class."""
    if kind is HTTPSConnectionPool:
        more["ssl_context"] = tls_context(DEFAULT_CA_BUNDLE_PATH)
    pool = kind(host, port, **more)
    pool.ConnectionCls = connection
    return pool  # type: ignore[no-any-return]


def _new_manager(proxy: str | None) -> urllib3.PoolManager:
    if not proxy:
        return urllib3.PoolManager(maxsize=WORKERS)
    user, password = get_auth_from_url(proxy)
    headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}") if user else {}
    address: str = prepend_scheme_if_needed(proxy, "http")  # type: ignore[no-untyped-call]
    tls = tls_context(DEFAULT_CA_BUNDLE_PATH) if address.startswith("https:") else None
    return urllib3.ProxyManager(
        address, proxy_headers=headers, proxy_ssl_context=tls, maxsize=WORKERS
    )


def _authorization(url: WebAddress) -> dict[str, str]:
    """Return the credentials of an address; only a server that the operator named gets them."""
    known = url.credentials or get_netrc_auth(url.url)
    return (
        {"Authorization": f"Basic {b64encode(':'.join(known).encode()).decode()}"} if known else {}
    )


def _refuse_status(url: WebAddress, status: int) -> None:
    """Raise an error for a response without the file; the server's message is not repeated."""
    if status in PASSING:
        raise urllib3.exceptions.HTTPError(f"{url.url}: status {status}")
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise NotServed(f"{url.url}: status {status}")


def _continues(response: HTTPResponse, offset: int) -> bool:
    """Tell whether a response begins at `offset`; one without a range begins at 0."""
    if response.status == HTTPStatus.OK:
        return offset == 0
    stated = response.headers.get("Content-Range", "")
    return stated.startswith(f"bytes {offset}-")
