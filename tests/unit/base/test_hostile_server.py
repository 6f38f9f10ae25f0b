# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that mean harm. In all of these the attacker holds the server that is asked."""

import io
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import InfrastructureFailed, InputsUnverified, TwinbuildError, UsageError
from pipeline.base.transfer import Client, Missing, Patience
from tests.hostile_server import (
    FOUND,
    HASTY,
    ONCE,
    Behaviour,
    answering,
    get,
    hostile_server,
    moved,
)

pytestmark = pytest.mark.usefixtures("no_proxy")


def test_a_redirect_is_followed_and_its_body_never_read() -> None:
    sent = 0
    bomb = zlib.compressobj(wbits=31).compress(bytes(10**6))

    def behave(connection: socket.socket, head: bytes) -> None:
        nonlocal sent
        if not head.startswith(b"GET / "):
            return connection.sendall(FOUND)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.sendall(moved(b"/file", b"Content-Encoding: gzip\r\n"))
        while True:
            sent += connection.send(bomb)

    with hostile_server(behave) as server:
        assert get(f"{server.url}/") == b"hi"
        assert all(b"\r\naccept-encoding: identity\r\n" in head.lower() for head in server.asked)
    assert sent < 10**7


def test_a_body_is_never_inflated() -> None:
    packed = zlib.compress(bytes(10**6))
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: %d\r\n\r\n"
    with hostile_server(answering(answer % len(packed) + packed)) as server:
        assert get(f"{server.url}/", limit=10**4) == packed


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (b"/a", b"/a"),
        (b"a/../b", b"/b"),
        (b"//127.0.0.1:%d/c", b"/c"),
        (b"http://127.0.0.1:%d?x=1", b"/?x=1"),
        ("/ä?ö".encode(), b"/%C3%A4?%C3%B6"),
        (b"/\xff b\x01", b"/%FF%20b%01"),
        (b"/%zz#there", b"/%25zz"),
    ],
)
def test_where_a_redirect_leads(location: bytes, path: bytes) -> None:
    def behave(connection: socket.socket, head: bytes) -> None:
        place = location.replace(b"%d", b"%d" % server.port)
        connection.sendall(moved(place) if head.startswith(b"GET /start ") else FOUND)

    with hostile_server(behave) as server:
        assert get(f"{server.url}/start") == b"hi"
        assert server.asked[1].startswith(b"GET " + path + b" ")


@pytest.mark.parametrize(
    "answer",
    [
        moved(b"file:///etc/passwd"),
        moved(b"ftp://example.org/"),
        moved(b"javascript:alert(1)"),
        moved(b"http://[::1"),
        moved(b"http://[::1]]/"),
        moved(b"http://[fe80::1%25lo]/"),
        moved(b"http://[x]/"),
        moved(b"http://"),
        moved(b"http:///x"),
        moved(b"http://a:99999/"),
        moved(b"http://a:0/"),
        moved(b"http://a:-1/"),
        moved(b"http://a:\xb2/"),
        moved(b"http://a:" + b"9" * 5000),
        moved(b"http://" + b"a." * 5000 + b"org/"),
        moved(b"http://a b/"),
        moved("http://ä\u2100.org/".encode()),
        moved(b"http://a\\@127.0.0.1/"),
        moved(b"http://\xff\xfe/"),
        moved(b""),
        moved(b"/", b"Location: /x\r\n"),
        b"HTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1 308 Found\r\nLocation: /\r\n\r\n",  # for ever
    ],
)
def test_a_redirect_that_leads_nowhere_is_one_line(answer: bytes) -> None:
    with hostile_server(answering(answer)) as server, pytest.raises(InfrastructureFailed) as caught:
        get(f"{server.url}/")
    assert len(server.asked) <= 6
    assert (
        type(caught.value) is InfrastructureFailed
    )  # not Missing: no server answered that there is none
    assert "\n" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


LENGTHS = ["²", "٣", "9" * 5000, "-1", "1_0", "0x10", "", "1, 2", "+5", "1" * 60000]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_that_is_none(length: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhi".encode()
    with hostile_server(answering(answer)) as server, Client(patience=ONCE) as client:
        assert not client.offers([f"{server.url}/"], 1000)
        with suppress(InfrastructureFailed):
            assert client.get([f"{server.url}/"], limit=1000) == b"hi"


def trickle(begin: bytes, piece: bytes, pause_s: float) -> Behaviour:
    """Answer so, and then a piece again and again for as long as anybody listens."""

    def behave(connection: socket.socket, _: bytes) -> None:
        connection.sendall(begin)
        while True:
            connection.sendall(piece)
            time.sleep(pause_s)

    return behave


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "behave",
    [
        trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0),
        trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
        trickle(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05),
        trickle(b"HTTP/1.1 100 Continue\r\nX: ", b"x", 0.05),
        trickle(b"", b"H", 0.05),
        trickle(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.05),
        trickle(CHUNKED, b"0", 0.05),
        trickle(CHUNKED + b"2\r\nhi\r\n1;", b"x", 0.05),
        trickle(CHUNKED + b"2\r\nhi\r\n0\r\n", b"x", 0.05),
        trickle(CHUNKED + b"2\r\nhi\r\n0\r\n", b"X: y\r\n", 0),
        trickle(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.05),
        trickle(moved(b"/")[:-2], b"X: y\r\n", 0.05),
    ],
)
def test_whatever_trickles_in_has_an_end(behave: Behaviour) -> None:
    began = time.monotonic()
    with hostile_server(behave) as server, pytest.raises(InfrastructureFailed):
        get(f"{server.url}/", limit=10**6, patience=HASTY)
    assert time.monotonic() - began < 3


def test_a_quick_beginning_buys_no_slow_rest() -> None:
    """The rate counts in each window: a megabyte at once would pay for a quarter of an hour."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + bytes(10**6)
    file = io.BytesIO()
    with (
        hostile_server(trickle(head, b"x", 0.05)) as server,
        Client(patience=HASTY) as client,
        pytest.raises(InfrastructureFailed),
    ):
        client.download([server.url], file, sha256="0" * 64, limit=2 * 10**6)


def test_what_keeps_coming_may_take_its_time() -> None:
    content = bytes(range(256)) * 5
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)

    def behave(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head)
        for offset in range(0, len(content), 128):
            time.sleep(0.05)
            connection.sendall(content[offset : offset + 128])

    file = io.BytesIO()
    patience = Patience(answer_s=0.3, document_s=0.3)
    with hostile_server(behave) as server, Client(patience=patience) as client:
        client.download([server.url], file, sha256=sha256(content).hexdigest(), limit=10**4)
    assert file.getvalue() == content


@pytest.mark.parametrize("body", [b"-1\r\n" + bytes(10**6), b"f" * 60000 + b"\r\n" + bytes(10**6)])
def test_a_chunk_without_end_is_counted(body: bytes) -> None:
    with hostile_server(answering(CHUNKED + body)) as server, pytest.raises(TwinbuildError):
        get(f"{server.url}/", limit=10**4)


STATUS = st.sampled_from(
    ["200 OK", "206 Partial", "302 Found", "404 No", "500 Oh", "100 C", "²", ""]
)
FIELDS = st.sampled_from(
    ["Location", "Content-Length", "Transfer-Encoding", "Content-Encoding", "Content-Range"]
    + ["Connection", "Set-Cookie", "Content-Type", "Keep-Alive", "Trailer", "\x00", " folded", ""]
)
VALUES = st.one_of(
    st.sampled_from(["/", "http://[", "chunked", "gzip", "2", "-1", "bytes 0-", "9" * 5000]),
    st.text(st.characters(codec="latin-1"), max_size=20),
)
HEADERS = st.lists(st.tuples(FIELDS, VALUES), max_size=5)
BODIES = [b"2\r\nhi\r\n0\r\n\r\n", b"\x1f\x8b", b"-1\r\nx"]
BODY = st.one_of(st.binary(max_size=50), st.sampled_from(BODIES))


@dataclass
class Answer:
    """What a server that runs for all examples answers next."""

    url: str = ""
    raw: bytes = b""


@pytest.fixture(scope="module")
def answer() -> Iterator[Answer]:
    made = Answer()
    with hostile_server(lambda connection, _: connection.sendall(made.raw)) as server:
        made.url = server.url
        yield made


@given(STATUS, HEADERS, BODY, st.sampled_from(["\r\n", "\n"]), st.binary(max_size=30))
def test_any_answer_ends_in_bytes_or_in_one_line(
    answer: Answer, status: str, headers: list[tuple[str, str]], body: bytes, end: str, noise: bytes
) -> None:
    head = "".join(f"{name}: {value}{end}" for name, value in headers)
    whole = f"HTTP/1.1 {status}{end}{head}{end}".encode("latin-1") + body
    for answer.raw in (whole, noise + whole):
        with Client(patience=HASTY) as client, suppress(TwinbuildError):
            client.offers([f"{answer.url}/"], 5)
            client.get([f"{answer.url}/"], limit=1000)


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://[::1]]/x", "http://a:x/", "file:///etc/passwd", "http://", "x", ""]
    + [
        "http://a\n/",
        "http://a:99999/",
        "http://" + "a" * 300,
        "http://\u2100.org/",
        "http://a%/x",
    ],
)
def test_an_address_that_is_none_is_wrong_usage(url: str) -> None:
    with pytest.raises(UsageError, match="is no address to fetch from") as caught:
        get(url)
    assert "\n" not in str(caught.value)


def test_an_address_that_is_not_ascii_is_quoted() -> None:
    with hostile_server(answering(FOUND)) as server:
        assert get(f"{server.url}/grüße/\x1b[31m".replace("\x1b", "%1b")) == b"hi"
        assert server.asked[0].startswith(b"GET /gr%C3%BC%C3%9Fe/%1B%5B31m ")


def test_the_servers_own_words_are_not_repeated() -> None:
    """A reason phrase may hold escape sequences of a terminal."""
    with (
        hostile_server(answering(b"HTTP/1.1 404 \x1b]0;x\x07\r\n\r\n")) as server,
        pytest.raises(Missing) as caught,
    ):
        get(f"{server.url}/")
    assert "\x1b" not in str(caught.value) + caught.value.detail
    assert "404" in caught.value.detail


def test_a_proxy_that_refuses_is_reported() -> None:
    with (
        hostile_server(answering(b"HTTP/1.1 407 \x1b[31m\r\n\r\n")) as server,
        pytest.raises(InfrastructureFailed) as caught,
    ):
        get("https://mirror.example.org/", proxies={"https": server.url})
    assert "\x1b" not in str(caught.value) + caught.value.detail


def test_wrong_bytes_are_still_wrong() -> None:
    with (
        hostile_server(answering(FOUND)) as server,
        Client() as client,
        pytest.raises(InputsUnverified),
    ):
        client.download([server.url], io.BytesIO(), sha256="0" * 64, limit=100)
