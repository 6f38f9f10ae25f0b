# SPDX-License-Identifier: GPL-3.0-or-later
"""What the client of upgrades refuses of a server: as much as the farm does."""

import socket
import ssl
import time
from pathlib import Path

import pytest

from pipeline.kits.install import http
from pipeline.kits.install.failure import InfrastructureFailed, InputsUnverified, UsageError
from tests.hostile_server import FOUND, Behaviour, answering, first, hostile_server, moved
from tests.unit.base.test_private_addresses import tls_files


@pytest.fixture(autouse=True)
def _alone_and_hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", *http.ROOTS):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")
    monkeypatch.setattr(http, "ATTEMPTS", 1)
    monkeypatch.setattr(http, "ANSWER_S", 0.4)
    monkeypatch.setattr(http, "SILENCE_S", 0.2)


def refused(behave: Behaviour, words: str, limit: int = 1000) -> None:
    began = time.monotonic()
    with hostile_server(behave) as server, pytest.raises(InfrastructureFailed, match=words):
        http.get(f"{server.url}/", limit=limit)
    assert time.monotonic() - began < 10


def test_a_redirect_on_the_same_server_is_followed() -> None:
    with hostile_server(first(moved(b"/there"))) as server:
        assert http.get(f"{server.url}/", limit=2) == b"hi"
    assert server.asked[1].startswith(b"GET /there HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize(
    "location",
    [b"http://localhost:1/x", b"http://10.0.0.1/", b"http://[::1]/", b"http://2130706433:1/"],
)
def test_a_redirect_to_a_private_network_is_not_followed(location: bytes) -> None:
    refused(answering(moved(location)), "no public address")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (moved(b"/"), "leads on more than 5 times"),
        (moved(b"file:///etc/passwd"), "neither http nor https"),
        (moved(b"/x", b"Location: /y\r\n"), "without saying where"),
        (b"HTTP/1.1 404 No\r\n\r\n", "has no /"),
        (b"HTTP/1.1 503 No\r\n\r\n", "status 503"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", "1 bytes too early"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhi", "'-1' bytes follow"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "could not be fetched"),
        (b"no HTTP", "could not be fetched"),
        (b"", "could not be fetched"),
    ],
)
def test_an_answer_without_the_file(answer: bytes, words: str) -> None:
    refused(answering(answer), words)


def test_a_document_that_is_too_large() -> None:
    with hostile_server(answering(FOUND)) as server, pytest.raises(InputsUnverified):
        http.get(f"{server.url}/", limit=1)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
    ],
)
def test_bytes_that_trickle_in(head: bytes) -> None:
    """Each comes in time, and the answer never ends: neither head, nor trailer."""

    def trickle(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head)
        for _turn in range(60):
            time.sleep(0.05)
            connection.sendall(head if b"100" in head else b"x")

    refused(trickle, "takes too long|timed out")


def test_credentials_go_to_the_named_server_alone() -> None:
    with hostile_server(first(moved(b"/x"))) as server:
        http.get(server.url.replace("//", "//user:secret@") + "/", limit=9)
    assert all(b"Authorization: Basic dXNlcjpzZWNyZXQ=\r\n" in head for head in server.asked)


def test_a_proxy_is_asked_and_not_for_a_private_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile_server(first(FOUND)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:pw@"))
        assert http.get("http://example.org/x", limit=9) == b"hi"
        assert proxy.asked[0].startswith(b"GET http://example.org/x HTTP/1.1\r\nHost: example.org")
        assert b"Proxy-Authorization: Basic bWU6cHc=\r\n" in proxy.asked[0]
    with hostile_server(answering(moved(b"http://169.254.169.254/"))) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with pytest.raises(InfrastructureFailed, match="no name of a public host"):
            http.get("http://example.org/x", limit=9)
    assert len(proxy.asked) == 1


def test_a_proxy_is_asked_for_a_tunnel_to_what_has_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile_server(answering(b"HTTP/1.1 403 No\r\n\r\n")) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(InfrastructureFailed, match="403"):
            http.get("https://example.org/x", limit=9)
    assert proxy.asked[0].startswith(b"CONNECT example.org:443 HTTP/1.")


def test_what_is_no_address() -> None:
    with pytest.raises(UsageError, match="is no address"):
        http.get("ftp://user:secret@example.org/", limit=9)


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    certificate, key = tls_files(tmp_path, "localhost")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, key)
    return made


def test_certificates_are_checked(
    context: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrap(plain: socket.socket) -> socket.socket:
        return context.wrap_socket(plain, server_side=True)

    with hostile_server(answering(FOUND), wrap) as server:
        with pytest.raises(InfrastructureFailed, match="certificate verify failed"):
            http.get(f"https://localhost:{server.port}/", limit=9)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "cert"))
        assert http.get(f"https://localhost:{server.port}/", limit=9) == b"hi"
        with pytest.raises(InfrastructureFailed, match="certificate verify failed"):
            http.get(f"https://127.0.0.1:{server.port}/", limit=9)
    step_down = pytest.raises(InfrastructureFailed, match="leads from https to http")
    with hostile_server(answering(moved(b"http://localhost/")), wrap) as server, step_down:
        http.get(f"https://localhost:{server.port}/", limit=9)
