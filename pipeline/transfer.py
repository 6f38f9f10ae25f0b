"""The one place that speaks HTTP: addresses in order, patience and limits, resuming, hashing.

A server is hostile input. Whatever it sends is counted against a limit, and what has a known
SHA-256 is nothing before it matches. Proxies come from the environment (`http_proxy`,
`https_proxy`, `no_proxy`) or, where that is silent, from whoever makes the client.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import BinaryIO, Self, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import should_bypass_proxies

from pipeline.errors import InfrastructureFailed, InputsUnverified

WORKERS = 4
PIECE = 128 * 1024
REDIRECTS = 5
# Statuses that may be different a moment later.
PASSING = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    *(status for status in HTTPStatus if status >= HTTPStatus.INTERNAL_SERVER_ERROR),
}

Job = TypeVar("Job")
Advance = Callable[[int], None]  # called with bytes gained; negative when some are thrown away


class Missing(InfrastructureFailed):
    """Every address answered, and none has the file."""


@dataclass(frozen=True)
class Patience:
    """How long a server may take before it counts as down; each address gets `attempts`."""

    connect_s: float = 10.0
    silence_s: float = 30.0  # without a single byte
    slowest_bytes_per_s: float = 1024.0  # on average, once `silence_s` have passed
    attempts: int = 3
    pause_s: float = 0.5  # before the second attempt; doubled before each further one


class _Refused(Exception):
    """The server's answer will not change: 404 and its like."""


class _Wrong(Exception):
    """The bytes are not those that were asked for."""


_NETWORK = (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)


class Client:
    """Fetches over HTTP for several threads at once; a context that ends its connections."""

    def __init__(
        self, *, proxies: Mapping[str, str] | None = None, patience: Patience | None = None
    ) -> None:
        self._patience = patience or Patience()
        self._stopped = threading.Event()
        self._down: set[str] = set()
        self._session = requests.Session()
        self._session.proxies.update(proxies or {})
        self._session.max_redirects = REDIRECTS
        self._session.headers.update({"Accept-Encoding": "identity", "User-Agent": "twinbuild"})
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=WORKERS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._session.close()

    def get(self, urls: Sequence[str], *, limit: int) -> bytes:
        """Return a small document of at most `limit` bytes from the first address that has it.

        Raise Missing if all addresses answer that they have none, else InfrastructureFailed.
        """
        problems: list[Exception] = []
        for url in self._in_order(urls):
            try:
                return self._patiently(url, partial(self._whole, url, limit))
            except (_Refused, _Wrong, *_NETWORK) as error:
                problems.append(error)
        raise _failure(urls, problems)

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
        """Fetch the bytes with this SHA-256 (and size, where known) into `file`, at most `limit`.

        `file` is open for reading and writing; what it holds is taken as the beginning, and an
        interrupted transfer goes on where it stopped, from the next address if need be.
        Raise InputsUnverified if only wrong bytes were to be had, Missing if no address has the
        file, else InfrastructureFailed.
        """
        part = _Part(file, size, sha256, min(limit, size or limit), advance)
        problems: list[Exception] = []
        if part.complete():
            return
        for url in self._in_order(urls):
            try:
                self._patiently(url, partial(self._receive, url, part))
            except (_Refused, _Wrong, *_NETWORK) as error:
                problems.append(error)
            else:
                return
        raise _failure(urls, problems)

    def offers(self, urls: Sequence[str], size: int) -> bool:
        """Tell whether some address says that it has a file of `size` bytes there."""
        for url in self._in_order(urls):
            try:
                found = self._patiently(url, partial(self._length, url))
            except (_Refused, *_NETWORK):
                continue
            if found == size:
                return True
        return False

    def in_parallel(self, jobs: Iterable[Job], work: Callable[[Job], None]) -> None:
        """Do `work` for all `jobs` in a few threads; the first error ends the rest."""
        pool = ThreadPoolExecutor(WORKERS)
        try:
            for _ in pool.map(work, jobs):
                pass
        except BaseException:
            self._stopped.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _in_order(self, urls: Sequence[str]) -> list[str]:
        """Return `urls` in their order, those of servers found to be down last."""
        return sorted(urls, key=lambda url: urlsplit(url).netloc in self._down)

    def _patiently(self, url: str, attempt: Callable[[], Job]) -> Job:
        """Try until the attempts are used up; remember a server that is down."""
        for turn in range(self._patience.attempts):
            try:
                return attempt()
            except _NETWORK:
                if turn + 1 == self._patience.attempts:
                    self._down.add(urlsplit(url).netloc)
                    raise
                self._stopped.wait(self._patience.pause_s * 2**turn)
        raise AssertionError("an attempt either returns or raises")

    @contextmanager
    def _answer(
        self, url: str, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Iterator[requests.Response]:
        with self._session.request(
            method,
            url,
            headers=headers,
            timeout=(self._patience.connect_s, self._patience.silence_s),
            stream=True,
            allow_redirects=True,
            proxies=_no_proxy(url),
        ) as response:
            if response.status_code in PASSING:
                raise requests.HTTPError(f"{_shown(url)}: {response.status_code} {response.reason}")
            if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                raise _Refused(f"{_shown(url)}: {response.status_code} {response.reason}")
            yield response

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        """Give the body as it comes; raise a network error when it is too slow or stops short."""
        began, received = time.monotonic(), 0
        # `read1` gives what is there; the usual ways wait, however long, for a whole piece.
        while piece := response.raw.read1(PIECE, decode_content=False):
            if self._stopped.is_set():
                raise InfrastructureFailed("a transfer was stopped")
            received += len(piece)
            yield piece
            lasted = time.monotonic() - began
            slowest = self._patience.slowest_bytes_per_s * lasted
            if lasted > self._patience.silence_s and received < slowest:
                raise TimeoutError(f"{_shown(response.url)}: {received} bytes in {lasted:.0f} s")

    def _whole(self, url: str, limit: int) -> bytes:
        content = bytearray()
        with self._answer(url) as response:
            for piece in self._pieces(response):
                content += piece
                if len(content) > limit:
                    raise _Wrong(f"{_shown(url)}: more than {limit} bytes")
        return bytes(content)

    def _length(self, url: str) -> int | None:
        with self._answer(url, method="HEAD") as response:
            _ = response.content  # there is none; having read it keeps the connection
            stated = response.headers.get("Content-Length", "")
        return int(stated) if stated.isdecimal() else None

    def _receive(self, url: str, part: "_Part") -> None:
        """Append the rest of the file, and start once more if what was there did not fit."""
        resumed = part.length > 0
        try:
            self._append(url, part)
            part.check(url)
        except _Wrong:
            part.restart()
            if not resumed:
                raise
            self._append(url, part)
            part.check(url)

    def _append(self, url: str, part: "_Part") -> None:
        headers = {"Range": f"bytes={part.length}-"} if part.length else None
        try:
            with self._answer(url, headers) as response:
                if not _continues(response, part.length):
                    part.restart()
                for piece in self._pieces(response):
                    part.append(url, piece)
                if part.is_short() and "Content-Length" not in response.headers:
                    raise ConnectionError(f"{_shown(url)}: ended after {part.length} bytes")
        except _Refused:
            if not part.length:
                raise
            # No bytes after the last one is how a server may answer to a part that is too long.
            raise _Wrong(
                f"{_shown(url)}: does not continue a part of {part.length} bytes"
            ) from None


class _Part:
    """A file on its way: what has come so far, hashed as it comes."""

    def __init__(
        self, file: BinaryIO, size: int | None, sha256: str, limit: int, advance: Advance
    ) -> None:
        self._file, self._size, self._sha256 = file, size, sha256
        self._limit, self._advance = limit, advance
        self._digest, self.length = hashlib.sha256(), 0
        file.seek(0)
        while piece := file.read(PIECE):
            self._digest.update(piece)
            self.length += len(piece)
        advance(self.length)
        if self.length > limit:
            self.restart()

    def append(self, url: str, piece: bytes) -> None:
        if self.length + len(piece) > self._limit:
            raise _Wrong(f"{_shown(url)}: more than {self._limit} bytes")
        try:
            self._file.write(piece)
        except OSError as error:
            raise InfrastructureFailed(
                f"cannot write {self._file.name}: {error.strerror}", remedy="make room on that disk"
            ) from error
        self._digest.update(piece)
        self.length += len(piece)
        self._advance(len(piece))

    def restart(self) -> None:
        self._advance(-self.length)
        self._file.seek(0)
        self._file.truncate()
        self._digest, self.length = hashlib.sha256(), 0

    def is_short(self) -> bool:
        return self._size is not None and self.length < self._size

    def complete(self) -> bool:
        return self._digest.hexdigest() == self._sha256

    def check(self, url: str) -> None:
        if not self.complete():
            got = f"{self._digest.hexdigest()} with {self.length} bytes"
            raise _Wrong(f"{_shown(url)}: is {got}, not {self._sha256}")


def _shown(url: str) -> str:
    """Return `url` as it may be printed: without user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _no_proxy(url: str) -> dict[str, str] | None:
    """Return what keeps `url` from any proxy if the environment's `no_proxy` names its host."""
    if not should_bypass_proxies(url, no_proxy=None):
        return None
    parts = urlsplit(url)
    return {f"{parts.scheme}://{parts.hostname}": ""}


def _continues(response: requests.Response, offset: int) -> bool:
    """Tell whether an answer begins at `offset`; one without a range begins at 0."""
    if response.status_code == HTTPStatus.OK:
        return offset == 0
    stated = response.headers.get("Content-Range", "")
    return stated.startswith(f"bytes {offset}-")


def _failure(urls: Sequence[str], problems: Sequence[Exception]) -> Exception:
    """Return the error for a file that no address gave: wrong bytes weigh most, absence least."""
    name = urlsplit(urls[0]).path if urls else "a file without any address"
    detail = "\n".join(str(problem) for problem in problems)
    if any(isinstance(problem, _Wrong) for problem in problems):
        return InputsUnverified(
            f"{name} has wrong bytes at every address that has it", detail=detail
        )
    if all(isinstance(problem, _Refused) for problem in problems):
        return Missing(f"no address has {name}", detail=detail)
    return InfrastructureFailed(
        f"{name} could not be fetched", remedy="try again later", detail=detail
    )
