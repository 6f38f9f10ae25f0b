# SPDX-License-Identifier: GPL-3.0-or-later
"""verify.py against servers and arguments that mean harm: it ends, with a status and one object."""

import contextlib
import io
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import verify
from pipeline.release.publish import VERIFIER
from tests.gpg_home import GpgHome

OK = b"HTTP/1.1 200 OK\r\n"
MIB = 1024 * 1024


Send = Callable[[bytes], object]
Answer = Callable[["Raw", Send, str], object]
Start = Callable[[bytes | Answer], "Raw"]


class Raw:
    """A server that reads a request and then does to the connection what `answer` does."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.sent = answer, 0
        self.paths: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.handle, args=(connection,), daemon=True).start()

    def handle(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            request = b""
            while b"\r\n\r\n" not in request:
                piece = connection.recv(65536)
                if not piece:
                    return
                request += piece
            self.paths.append(request.split(b" ")[1].decode())
            self.answer(self, connection.sendall, self.paths[-1])

    def endless(self, send: Send, piece: bytes = b"x" * MIB, limit: int = 512 * MIB) -> None:
        """Send until nobody takes it any more."""
        while self.sent < limit:
            send(piece)
            self.sent += len(piece)


@pytest.fixture
def raw() -> Iterator[Start]:
    servers: list[Raw] = []

    def start(answer: bytes | Answer) -> Raw:
        if isinstance(answer, bytes):
            content = answer
            answer = lambda _, send, __: send(content)  # noqa: E731
        servers.append(Raw(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.listener.close()


class Ask(Protocol):
    """Runs verify.py; gives its status and errors."""

    def __call__(self, url: str, *more: str) -> tuple[int, str]: ...


@pytest.fixture
def run(keyring_file: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run `verify.main --json` against an address; return its status and its object."""

    def ask(url: str, *more: str) -> tuple[int, str]:
        capsys.readouterr()
        argv = ["--url", url, "--tag", "3.3", "--keyring", os.fspath(keyring_file), "--json", *more]
        begin = time.monotonic()
        status = verify.main(argv)
        answer = json.loads(capsys.readouterr().out)
        assert answer["status"] == status
        assert time.monotonic() - begin < 20
        return status, " ".join(answer["errors"])

    return ask


def head(text: str) -> bytes:
    return OK + text.encode("latin-1") + b"\r\n\r\n"


# --- bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["302 Found", "301 Moved", "308 Permanent", "404 No", "500 No"])
def test_the_body_of_a_redirect_or_an_error_is_not_read(raw: Start, run: Ask, status: str) -> None:
    """The attacker serves an endless body with the redirect."""

    def answer(server: Raw, send: Send, path: str) -> None:
        moved = "Location: /elsewhere" if "elsewhere" not in path else "X: y"
        send(f"HTTP/1.1 {status}\r\n{moved}\r\n\r\n".encode())
        server.endless(send)

    server = raw(answer)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert run(server.url)[0] == 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024
    assert server.sent < 64 * MIB


@pytest.mark.parametrize("size", [b"-1", b"+5", b"0x5", b"5_0", b" 5", b"", b"5" * 400, b"\xb2"])
def test_a_chunk_of_another_size_than_hexadecimal_digits(raw: Start, run: Ask, size: bytes) -> None:
    """The attacker says -1, which http.client takes for everything."""

    def answer(server: Raw, send: Send, _: object) -> None:
        send(head("Transfer-Encoding: chunked") + size + b"\r\n")
        server.endless(send)

    server = raw(answer)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, errors = run(server.url)
    assert status == 4
    assert "malformed chunk" in errors
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


def test_a_chunked_release_is_read(raw: Start, run: Ask, published: Path) -> None:
    def answer(_: object, send: Send, path: str) -> None:
        content = (published / path.lstrip("/")).read_bytes()
        send(head("Transfer-Encoding: chunked"))
        for at in range(0, len(content), 700):
            piece = content[at : at + 700]
            send(b"%x;odd=1\r\n%b\r\n" % (len(piece), piece))
        send(b"0\r\nTrailer: x\r\n\r\n")

    assert run(raw(answer).url) == (0, "")


@pytest.mark.parametrize("cut", [b"5\r\nab", b"5\r\n", b"5", b"5\r\nabcdeXX"])
def test_chunks_that_are_cut_off(raw: Start, run: Ask, cut: bytes) -> None:
    status, errors = run(raw(head("Transfer-Encoding: chunked") + cut).url)
    assert status == 4
    assert "cut off" in errors or "malformed chunk" in errors


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000, "-1", "1,1", "1e3", "", "0x10", "+3"])
def test_a_content_length_that_is_no_number(raw: Start, run: Ask, length: str) -> None:
    status, errors = run(raw(head(f"Content-Length: {length}") + b"abc").url)
    assert status == 4
    assert "bytes follow" in errors


def test_a_body_that_is_compressed_though_nobody_asked(raw: Start, run: Ask) -> None:
    status, errors = run(raw(head("Content-Encoding: gzip") + b"\x1f\x8b").url)
    assert status == 4
    assert "gzip" in errors


def test_nothing_else_than_the_file_itself_is_taken_for_it(raw: Start, run: Ask) -> None:
    assert "206" in run(raw(b"HTTP/1.1 206 Part\r\nContent-Length: 3\r\n\r\nabc").url)[1]
    assert "204" in run(raw(b"HTTP/1.1 204 None\r\n\r\n").url)[1]


# --- redirects ------------------------------------------------------------------------------------


def redirects(location: str) -> bytes:
    return b"HTTP/1.1 302 Found\r\nLocation: " + location.encode("utf-8") + b"\r\n\r\n"


@pytest.mark.parametrize(
    "location",
    [
        "http://[::1",
        "http://[zz]/",
        "http://x:99999999/",
        "http://x:y/",
        "http://user:password@127.0.0.1/",
        "http://\x01/",
        "http:///",
        "//",
        "file:///etc/passwd",
        "ftp://example.org/",
        "data:,x",
        "gopher://x",
        "javascript:x",
        "http://" + "a" * 5000 + "/",
        "http://ü" + "." * 300,
        "",
    ],
)
def test_a_redirect_to_where_nothing_is_followed(raw: Start, run: Ask, location: str) -> None:
    status, errors = run(raw(redirects(location)).url)
    assert status == 4
    assert errors


def test_redirects_are_followed_a_few_times_with_their_query(
    raw: Start, run: Ask, published: Path
) -> None:
    def answer(_: object, send: Send, path: str) -> None:
        where, _, count = path.partition("?hop=")
        if int(count or 0) < verify.REDIRECTS_LIMIT:
            send(redirects(f"{where}?hop={int(count or 0) + 1}"))
        else:
            content = (published / where.lstrip("/")).read_bytes()
            send(head(f"Content-Length: {len(content)}") + content)

    assert run(raw(answer).url) == (0, "")


def test_a_circle_of_redirects_ends(raw: Start, run: Ask) -> None:
    server = raw(redirects("/again"))
    status, errors = run(server.url)
    assert status == 4
    assert "redirects" in errors
    assert len(server.paths) == verify.REDIRECTS_LIMIT + 1


def test_there_is_no_step_down_from_https() -> None:
    with pytest.raises(verify.Trouble, match="not followed"):
        verify._redirected("https://example.org/a", "http://example.org/a")
    assert verify._redirected("http://example.org/a", "https://example.org/b").startswith("https:")
    assert verify._redirected("https://example.org/a", "b?x=1") == "https://example.org/b?x=1"
    assert verify._redirected("http://example.org/a", "/ü b") == "http://example.org/%C3%BC%20b"


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"H", b"HTTP/1.1 100 Continue\r\nX: "]
)
def test_an_answer_that_never_begins_ends(raw: Start, run: Ask, piece: bytes) -> None:
    """The attacker sends a byte, or "100 Continue", before the server would be silent."""

    def answer(_: object, send: Send, __: object) -> None:
        while True:
            send(piece)
            time.sleep(0.02)

    begin = time.monotonic()
    status, errors = run(raw(answer).url, "--timeout", "0.5")
    assert status == 4
    assert "slow" in errors or "timed out" in errors or "line" in errors or "headers" in errors
    assert time.monotonic() - begin < 5


def test_a_body_that_drips_ends(raw: Start, run: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "TOTAL_TIMES", 2)

    def answer(_: object, send: Send, __: object) -> None:
        send(head("Content-Length: 1000000"))
        while True:
            send(b"x")
            time.sleep(0.05)

    begin = time.monotonic()
    status, errors = run(raw(answer).url, "--timeout", "0.5")
    assert status == 4
    assert "too slow" in errors
    assert time.monotonic() - begin < 5


def test_a_server_that_is_silent(raw: Start, run: Ask) -> None:
    status, errors = run(raw(lambda *_: time.sleep(5)).url, "--timeout", "0.2")
    assert status == 4
    assert errors


# --- anything -------------------------------------------------------------------------------------

HEADERS = st.sampled_from(
    [b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX: ", b"Location: ", b"Content-Range: "]
)
STATUSES = st.sampled_from([b"200 OK", b"206 x", b"302 x", b"404 x", b"416 x", b"100 x", b"999 x"])
ANSWERS = st.binary(max_size=100) | st.builds(
    lambda status, header, value, body: (
        b"HTTP/1.1 " + status + b"\r\n" + header + value + b"\r\n\r\n" + body
    ),
    STATUSES,
    HEADERS,
    st.binary(max_size=20) | st.integers(-1, 10**6).map(lambda n: str(n).encode()),
    st.binary(max_size=100),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(answer=ANSWERS)
def test_whatever_a_server_sends_there_is_a_status_and_an_object(
    raw: Start, run: Ask, answer: Answer, tmp_path: Path
) -> None:
    server = raw(answer)
    more = ("--all", "--directory", os.fspath(tmp_path / "d"), "--timeout", "2")
    status, errors = run(server.url, *more)
    server.listener.close()
    assert status in (4, 6)
    assert errors


ARGUMENTS = st.lists(
    st.sampled_from(
        ["--url", "--tag", "3.3", "--keyring", "--json", "--timeout", "-1", "--file", "--download"]
        + ["--environment-key", "--fingerprint", "--all", "http://127.0.0.1:1", "--image", "--"]
        + ["http://ü.example.org:1", "file:///nonexistent", "https://[::1", "alpha=00", "nan"]
    )
    | st.text(max_size=20),
    max_size=8,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(arguments=ARGUMENTS)
def test_whatever_the_arguments_are_there_is_a_status_and_an_object(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_open", _no_network)
    with contextlib.redirect_stdout(_Text()) as out, contextlib.redirect_stderr(_Text()):
        status = verify.main(["--json", *arguments])
    if {"-h", "--help"} & set(arguments) and status == 0:
        return
    assert status in (1, 2, 4, 6)
    assert json.loads(out.getvalue())["status"] == status


class _Text(io.StringIO):
    """A stream that takes ASCII alone, as on a machine with LC_ALL=C."""

    encoding = "ascii"

    def write(self, text: str) -> int:
        text.encode("ascii")
        return super().write(text)


def _no_network(*_: object) -> NoReturn:
    raise verify.Trouble("there is no network here")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--timeout", "-1"], "timeout"),
        (["--timeout", "0"], "timeout"),
        (["--timeout", "nan"], "timeout"),
        (["--timeout", "inf"], "timeout"),
        (["--timeout", "1e300"], "timeout"),
        (["--timeout", "x"], "timeout"),
        (["--url", "http://[::1"], "url"),
        (["--url", "http://x:y"], "url"),
        (["--url", "http://a b/"], "url"),
        (["--url", "http://user@x/"], "url"),
        (["--url", "http://x/?a"], "url"),
        (["--url", "http://x/#a"], "url"),
        (["--url", "http://"], "url"),
        (["--url", "http://ü" + "." * 300], "url"),
        (["--file", "a\0b"], "null"),
        (["--bogus"], "bogus"),
        (["--fingerprint", "DEADBEEF"], "fingerprint"),
    ],
)
def test_wrong_usage_is_an_object_with_json(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--url", "http://127.0.0.1:1", "--tag", "3.3", "--json", *arguments]
    assert verify.main(given) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert answer["status"] == 2
    assert says in " ".join(answer["errors"])


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://bücher.example/é/x y", "http://xn--bcher-kva.example/%C3%A9/x%20y"),
        ("https://example.org:8443/a%20b", "https://example.org:8443/a%20b"),
        ("http://[::1]:80/", "http://[::1]:80/"),
        ("file:///tmp/ü", "file:///tmp/%C3%BC"),
        ("file:///tmp/\udcff", "file:///tmp/%FF"),
    ],
)
def test_an_address_that_is_not_ascii_is_quoted(url: str, sent: str) -> None:
    assert verify.normal_url(url) == sent


# --- as a program ---------------------------------------------------------------------------------


def program(
    *arguments: str | Path, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[Any]:
    return subprocess.run(
        [sys.executable, "-I", VERIFIER, *arguments],
        env={**os.environ, **(env or {})},
        capture_output="stdout" not in options,
        check=False,
        **options,
    )


def arguments_for(published: Path, keyring_file: Path, *more: str | Path) -> list[str | Path]:
    return ["--url", published.as_uri(), "--tag", "3.3", "--keyring", keyring_file, *more]


def test_a_standard_output_that_is_not_utf_8(
    published: Path, keyring_file: Path, tmp_path: Path
) -> None:
    name = tmp_path / "bücher\n\x1b[2J.iso"
    name.write_bytes((published / "3.3/mini-amd64-3.3.iso").read_bytes())
    argv = arguments_for(published, keyring_file, "--file", name)
    done = program(*argv, env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    # -I ignores PYTHONIOENCODING: what the locale says counts
    assert done.returncode == 0, done.stderr
    assert b"has the content of mini-amd64-3.3.iso" in done.stdout
    assert b"\x1b" not in done.stdout
    assert done.stderr == b""
    missing = program(*argv[:-1], tmp_path / "ü", "--json", env={"LC_ALL": "C"})
    assert missing.returncode == 2
    assert json.loads(missing.stdout)["status"] == 2


def test_a_standard_output_that_nobody_reads(published: Path, keyring_file: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for more in ([], ["--json"]):
        argv = arguments_for(published, keyring_file, *more)
        done = program(*argv, stdout=writer, stderr=subprocess.PIPE)
        assert done.returncode == 141
        assert done.stderr == b""
    os.close(writer)


def test_a_standard_output_that_is_full(published: Path, keyring_file: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = program(*arguments_for(published, keyring_file), stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 4
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_keyring_with_a_byte_order_mark(
    run: Ask, published: Path, gpg_home: GpgHome, release_key: str, tmp_path: Path, encoding: str
) -> None:
    armoured = gpg_home.export(release_key, "--armor").decode()
    (tmp_path / "bom.asc").write_bytes(armoured.encode(encoding))
    more = ("--keyring", os.fspath(tmp_path / "bom.asc"))
    assert run(published.as_uri(), *more) == (0, "")
    (tmp_path / "bom.asc").write_bytes("no key".encode(encoding))
    assert run(published.as_uri(), *more)[0] == 2


def test_a_broken_proxy(
    published: Path, keyring_file: Path, monkeypatch: pytest.MonkeyPatch, run: Ask
) -> None:
    monkeypatch.setenv("http_proxy", "http://[::1")
    monkeypatch.delenv("no_proxy", raising=False)
    status, errors = run("http://example.invalid")
    assert status == 4
    assert errors


def test_a_temporary_folder_that_is_not_there(
    run: Ask, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    status, errors = run(published.as_uri())
    assert status == 4
    assert re.search("temporary folder", errors)
