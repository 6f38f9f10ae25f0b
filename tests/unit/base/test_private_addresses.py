# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a server or a commit leads: private networks, other hosts, away from TLS."""

import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.base.errors import InfrastructureFailed
from pipeline.base.patient_socket import PatientSocket
from pipeline.documents.public_address import NotPublic, open_socket
from tests.hostile_server import FOUND, HASTY, answering, first, get, hostile_server, moved

pytestmark = pytest.mark.usefixtures("no_proxy")


def test_credentials_go_to_the_named_server_alone() -> None:
    with hostile_server(answering(FOUND)) as other:
        away = moved(b"http://localhost:%d/x" % other.port)
        with hostile_server(first(away)) as server:
            named = [server.url, f"http://localhost:{other.port}"]
            url = server.url.replace("//", "//user:s%40crét@")
            assert get(f"{url}/", named=named) == b"hi"
    assert b"Authorization: Basic dXNlcjpzQGNyw6l0\r\n" in server.asked[0]
    assert b"uthorization" not in other.asked[0]


def tls_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate for a host, signed by itself; return it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    form, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert").write_bytes(made.public_bytes(form))
    (folder / "key").write_bytes(key.private_bytes(form, serialization.PrivateFormat.PKCS8, plain))
    return folder / "cert", folder / "key"


@pytest.fixture
def with_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[socket.socket], socket.socket]:
    certificate, key = tls_files(tmp_path, "mirror.example.org")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    return lambda plain: context.wrap_socket(plain, server_side=True)


def names(monkeypatch: pytest.MonkeyPatch, **known: list[str]) -> list[str]:
    """Let names have these addresses, one after the other; return the names that are asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        addresses = known[host.replace(".", "_")]
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        rest: tuple[Any, ...] = (0, 0) if ":" in address else ()
        return [(family, socket.SOCK_STREAM, 6, "", (address, port, *rest))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_the_certificate_is_that_of_the_name(
    monkeypatch: pytest.MonkeyPatch, with_tls: Callable[[socket.socket], socket.socket]
) -> None:
    names(monkeypatch, mirror_example_org=["127.0.0.1"], other_example_org=["127.0.0.1"])
    with hostile_server(answering(FOUND), with_tls) as server:
        assert get(f"https://mirror.example.org:{server.port}/") == b"hi"
        assert b"Host: mirror.example.org:%d\r\n" % server.port in server.asked[0]
        with pytest.raises(InfrastructureFailed) as caught:
            get(f"https://other.example.org:{server.port}/")
    assert "certificate" in caught.value.detail


def test_there_is_no_step_down_from_tls(
    monkeypatch: pytest.MonkeyPatch, with_tls: Callable[[socket.socket], socket.socket]
) -> None:
    names(monkeypatch, mirror_example_org=["127.0.0.1"])
    with hostile_server(answering(FOUND)) as plain:
        down = moved(f"http://mirror.example.org:{plain.port}/".encode())
        with hostile_server(answering(down), with_tls) as server:
            addresses = [
                f"{kind}://mirror.example.org:{s.port}/"
                for kind, s in (("https", server), ("http", plain))
            ]
            with pytest.raises(InfrastructureFailed) as caught:
                get(addresses[0], named=addresses)
    assert not plain.asked
    assert "leads from https to http" in caught.value.detail


def test_a_slow_handshake_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, mirror_example_org=["127.0.0.1"])

    def dawdle(connection: socket.socket) -> socket.socket:
        for byte in b"\x16\x03\x03\x40\x00" + bytes(100):
            connection.sendall(bytes([byte]))
            time.sleep(0.05)
        return connection

    began = time.monotonic()
    with hostile_server(answering(FOUND), dawdle) as server, pytest.raises(InfrastructureFailed):
        get(f"https://mirror.example.org:{server.port}/", patience=HASTY)
    assert time.monotonic() - began < 3


PRIVATE = [
    *(
        "127.0.0.1",
        "10.0.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
    ),
    *("0.0.0.0", "255.255.255.255", "224.0.0.1", "198.18.0.1", "192.0.0.192", "168.63.129.16"),
    *("240.0.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254"),
    *("::ffff:127.0.0.1", "::ffff:a00:1", "64:ff9b::7f00:1", "64:ff9b::169.254.169.254"),
    *("64:ff9b:1::1", "2002:7f00:1::", "2001:0:1::", "::127.0.0.1", "fec0::1", "ff02::1"),
    *("2001:db8::1", "4000::1"),
]
PUBLIC = ["1.1.1.1", "151.101.2.132", "2a04:4e42::644", "64:ff9b::101:101", "::ffff:1.1.1.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_redirect_to_a_private_network_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """The attacker holds the name, too: it leads to whatever the attacker likes."""
    names(monkeypatch, **{"127_0_0_1": ["127.0.0.1"], "evil_example_org": [address]})
    with (
        hostile_server(answering(moved(b"http://evil.example.org/"))) as server,
        pytest.raises(InfrastructureFailed) as caught,
    ):
        get(f"{server.url}/")
    assert "no public address" in caught.value.detail


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_connected_to(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    names(monkeypatch, **{"127_0_0_1": ["127.0.0.1"], "mirror_example_org": [address]})
    reached: list[Any] = []

    def connect(_: socket.socket, place: Any) -> None:
        if place[0] == "127.0.0.1":
            return original(_, place)
        reached.append(place[0])
        raise ConnectionRefusedError

    original = socket.socket.connect
    monkeypatch.setattr(PatientSocket, "connect", connect)
    with (
        hostile_server(answering(moved(b"http://mirror.example.org/"))) as server,
        pytest.raises(InfrastructureFailed),
    ):
        get(f"{server.url}/")
    assert reached == [address]


def test_a_neighbour_on_another_port_is_not_reached() -> None:
    with hostile_server(answering(FOUND)) as victim:
        for host in (
            "127.0.0.1",
            "localhost",
            "localhost.",
            "127.1",
            "2130706433",
            "0x7f.1",
            "[::1]",
        ):
            away = moved(f"http://{host}:{victim.port}/".encode())
            with hostile_server(answering(away)) as server, pytest.raises(InfrastructureFailed):
                get(f"{server.url}/")
        assert not victim.asked


def test_a_name_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attacker's name server says first a public address, then this machine's own."""
    asked = names(
        monkeypatch,
        **{"127_0_0_1": ["127.0.0.1"], "evil_example_org": ["192.88.98.1", "127.0.0.1"]},
    )
    reached: list[str] = []
    original = socket.socket.connect

    def connect(opened: socket.socket, place: Any) -> None:
        if place[1] == victim.port:
            reached.append(place[0])
            raise ConnectionRefusedError
        original(opened, place)

    monkeypatch.setattr(PatientSocket, "connect", connect)
    with hostile_server(answering(FOUND)) as victim:
        away = moved(b"http://evil.example.org:%d/" % victim.port)
        with hostile_server(answering(away)) as server, pytest.raises(InfrastructureFailed):
            get(f"{server.url}/")
    assert reached == ["192.88.98.1"]
    assert asked.count("evil.example.org") == 1


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, 1, 6, "", (a, 80)) for a in ("1.1.1.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(NotPublic):
        open_socket("evil.example.org", 80, public=True, timeout_s=1, kind=PatientSocket)


def test_what_the_operator_named_may_be_private() -> None:
    with (
        hostile_server(answering(FOUND)) as other,
        hostile_server(answering(moved(other.url.encode()))) as server,
    ):
        assert get(f"{server.url}/", named=[server.url, f"{other.url}/debian"]) == b"hi"


def test_what_nobody_named_is_judged_at_once() -> None:
    """The attacker holds the commit: its .urls name a service of this machine."""
    with hostile_server(answering(FOUND)) as server, pytest.raises(InfrastructureFailed) as caught:
        get(f"{server.url}/", named=["https://deb.example.org/debian"])
    assert not server.asked
    assert "no public address" in caught.value.detail


PROXIED = [
    *(
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "[::1]",
        "[::ffff:10.0.0.1]",
    ),
    *("localhost", "localhost.", "LOCALHOST", "a.localhost", "router", "db.internal", "nas.local"),
    *("metadata.google.internal.", "x.lan", "x.home.arpa", "10.0.0.1.", "1.2.3.256", "0"),
]


@pytest.mark.parametrize("host", PROXIED)
def test_behind_a_proxy_names_are_judged(host: str) -> None:
    """The proxy would reach it for whoever asks."""

    def proxy(connection: socket.socket, head: bytes) -> None:
        asked_for_mirror = b"//mirror.example.org/" in head
        connection.sendall(moved(f"http://{host}/".encode()) if asked_for_mirror else FOUND)

    with hostile_server(proxy) as server, pytest.raises(InfrastructureFailed):
        get("http://mirror.example.org/", proxies={"http": server.url})
    assert len(server.asked) == 1


def test_behind_a_proxy_what_is_named_or_public_is_asked_for() -> None:
    def proxy(connection: socket.socket, head: bytes) -> None:
        away = b"//nas.local/" in head
        connection.sendall(moved(b"http://www.example.org/x") if away else FOUND)

    with hostile_server(proxy) as server:
        assert get("http://nas.local/", proxies={"http": server.url}) == b"hi"
        assert [head.split()[1] for head in server.asked] == [
            b"http://nas.local/",
            b"http://www.example.org/x",
        ]
