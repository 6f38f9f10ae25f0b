# SPDX-License-Identifier: GPL-3.0-or-later
"""A real HTTP server over a folder, on this machine alone, that a test can make fail."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class ArchiveServer:
    """What the server does wrong, and what it was asked; change `faults` at any time.

    `faults` maps the end of a path to one of `404`, `500`, `once-500`, `truncate` (half the body,
    then a closed connection), `once-truncate`, `cut` (the same, without any length), `short` (the
    same, with a length that agrees), `wrong` (one bit flipped), `endless` (far too much), `slow`
    (a byte at a time) and `silent` (headers, then nothing).
    """

    root: Path
    ranges: bool = True
    faults: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    began_at: list[int] = field(default_factory=list)  # the offset of each body that was sent
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def fault(self, path: str) -> str:
        """Return what is to go wrong with `path` now."""
        for end, fault in list(self.faults.items()):
            if path.endswith(end):
                if fault.startswith("once-"):
                    del self.faults[end]
                return fault.removeprefix("once-")
        return ""


@contextmanager
def archive_server(root: Path, *, ranges: bool = True) -> Iterator[ArchiveServer]:
    """Serve `root` until the block ends."""
    served = ArchiveServer(root, ranges)

    class Handler(_Handler):
        state = served

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    served.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        served.closing.set()
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: ArchiveServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.asked[path] += 1
        fault = self.state.fault(path)
        file = self.state.root / path.lstrip("/")
        if fault in ("404", "500") or not file.is_file():
            self.send_error(int(fault) if fault in ("404", "500") else 404)
            return
        content = file.read_bytes()
        if fault == "wrong":
            content = bytes([content[0] ^ 1]) + content[1:]
        if fault == "short":
            content = content[: len(content) // 2]
        begin = self._begin(len(content)) if self.state.ranges else 0
        rest = content[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        if fault in ("endless", "cut"):
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if body:
            self.state.began_at.append(begin)
            try:
                self._send(rest, fault)
            except OSError:
                self.close_connection = True

    def _begin(self, length: int) -> int:
        asked = self.headers.get("Range", "")
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        return begin if begin < length else 0

    def _send(self, rest: bytes, fault: str) -> None:
        if fault in ("truncate", "cut"):
            rest = rest[: len(rest) // 2]
            self.close_connection = True
        if fault == "silent":
            self.state.closing.wait(30)
            self.close_connection = True
            return
        while fault == "endless" and not self.state.closing.is_set():
            self.wfile.write(bytes(65536))
        if fault == "slow":
            for byte in rest:
                if self.state.closing.is_set():
                    break
                self.wfile.write(bytes([byte]))
                time.sleep(0.01)
            return
        self.wfile.write(rest)
