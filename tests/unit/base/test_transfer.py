# SPDX-License-Identifier: GPL-3.0-or-later
import io
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.base.errors import InfrastructureFailed, InputsUnverified
from pipeline.base.transfer import Client, Missing, Patience
from tests.archive_server import ArchiveServer, archive_server

HASTY = Patience(connect_s=1, silence_s=0.2, slowest_bytes_per_s=1000, attempts=2, pause_s=0.001)
CONTENT = bytes(range(256)) * 400
DIGEST = sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ArchiveServer]:
    (tmp_path / "file").write_bytes(CONTENT)
    with archive_server(tmp_path) as running:
        yield running


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(patience=HASTY) as made:
        yield made


def fetch(client: Client, *urls: str, part: bytes = b"", size: int | None = len(CONTENT)) -> bytes:
    file = io.BytesIO(part)
    client.download(urls, file, size=size, sha256=DIGEST, limit=10**6)
    return file.getvalue()


def test_a_file_arrives_and_progress_adds_up(server: ArchiveServer, client: Client) -> None:
    gained: list[int] = []
    file = io.BytesIO()
    client.download([f"{server.url}/file"], file, sha256=DIGEST, limit=10**6, advance=gained.append)
    assert file.getvalue() == CONTENT
    assert sum(gained) == len(CONTENT)


def test_an_interrupted_transfer_goes_on_where_it_stopped(
    server: ArchiveServer, client: Client
) -> None:
    server.faults["/file"] = "once-truncate"
    assert fetch(client, f"{server.url}/file") == CONTENT
    assert server.asked["/file"] == 2
    assert server.began_at == [0, len(CONTENT) // 2]


def test_what_was_there_before_is_not_fetched_again(server: ArchiveServer, client: Client) -> None:
    assert fetch(client, f"{server.url}/file", part=CONTENT[:100_000]) == CONTENT
    assert server.began_at == [100_000]


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)])
def test_a_wrong_beginning_is_thrown_away(
    server: ArchiveServer, client: Client, part: bytes
) -> None:
    gained: list[int] = []
    file = io.BytesIO(part)
    client.download(
        [f"{server.url}/file"],
        file,
        size=len(CONTENT),
        sha256=DIGEST,
        limit=10**6,
        advance=gained.append,
    )
    assert file.getvalue() == CONTENT
    assert sum(gained) == len(CONTENT)


def test_resuming_works_without_range_support(tmp_path: Path, client: Client) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    with archive_server(tmp_path, ranges=False) as server:
        assert fetch(client, f"{server.url}/file", part=CONTENT[:50]) == CONTENT


def test_a_complete_part_asks_nobody(server: ArchiveServer, client: Client) -> None:
    assert fetch(client, f"{server.url}/file", part=CONTENT) == CONTENT
    assert not server.asked


def test_a_passing_error_is_tried_again(server: ArchiveServer, client: Client) -> None:
    server.faults["/file"] = "once-500"
    assert fetch(client, f"{server.url}/file") == CONTENT


@pytest.mark.parametrize(
    "fault", ["404", "500", "truncate", "short", "cut", "wrong", "silent", "slow"]
)
def test_the_next_address_helps(
    server: ArchiveServer, client: Client, tmp_path: Path, fault: str
) -> None:
    server.faults["/file"] = fault
    with archive_server(tmp_path) as other:
        assert fetch(client, f"{server.url}/file", f"{other.url}/file") == CONTENT


def test_a_server_that_is_down_is_asked_last_from_then_on(
    server: ArchiveServer, client: Client, tmp_path: Path
) -> None:
    server.faults["/file"] = "500"
    with archive_server(tmp_path) as other:
        for _ in range(3):
            assert fetch(client, f"{server.url}/file", f"{other.url}/file") == CONTENT
    assert server.asked["/file"] == HASTY.attempts


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("404", Missing),
        ("500", InfrastructureFailed),
        ("truncate", InfrastructureFailed),
        ("silent", InfrastructureFailed),
        ("slow", InfrastructureFailed),
        ("short", InputsUnverified),
        ("cut", InfrastructureFailed),
        ("wrong", InputsUnverified),
        ("endless", InputsUnverified),
    ],
)
def test_a_broken_server_gets_its_status(
    server: ArchiveServer, client: Client, fault: str, error: type[Exception]
) -> None:
    server.faults["/file"] = fault
    with pytest.raises(error) as raised:
        fetch(client, f"{server.url}/file")
    assert type(raised.value) is error
    assert "\n" not in str(raised.value)


def test_nobody_listening_is_an_infrastructure_failure(client: Client, tmp_path: Path) -> None:
    with archive_server(tmp_path) as gone:
        url = gone.url
    with pytest.raises(InfrastructureFailed, match="could not be fetched"):
        fetch(client, f"{url}/file")


def test_endless_documents_are_refused(server: ArchiveServer, client: Client) -> None:
    server.faults["/file"] = "endless"
    with pytest.raises(InputsUnverified):
        client.get([f"{server.url}/file"], limit=1000)


def test_a_document_over_the_limit_is_refused(server: ArchiveServer, client: Client) -> None:
    assert client.get([f"{server.url}/file"], limit=len(CONTENT)) == CONTENT
    with pytest.raises(InputsUnverified):
        client.get([f"{server.url}/file"], limit=len(CONTENT) - 1)


def test_passwords_are_not_shown(server: ArchiveServer, client: Client) -> None:
    url = server.url.replace("//", "//user:secret@")
    with pytest.raises(Missing) as raised:
        fetch(client, f"{url}/nothing")
    assert "secret" not in str(raised.value) + raised.value.detail


def test_offers_asks_for_the_length_alone(server: ArchiveServer, client: Client) -> None:
    urls = [f"{server.url}/nothing", f"{server.url}/file"]
    assert client.offers(urls, len(CONTENT))
    assert not client.offers(urls, len(CONTENT) + 1)
    assert not server.began_at


class _FullDisk(io.BytesIO):
    """Writes to /dev/full, where there is never room, and holds nothing."""

    name = "/dev/full"

    def write(self, content: object) -> int:
        with Path("/dev/full").open("wb", buffering=0) as full:
            return full.write(content)  # type: ignore[arg-type]


def test_a_full_disk_is_reported(server: ArchiveServer, client: Client) -> None:
    with pytest.raises(InfrastructureFailed, match="No space left"):
        client.download([f"{server.url}/file"], _FullDisk(), sha256=DIGEST, limit=10**6)


def test_the_first_error_ends_the_rest(server: ArchiveServer, client: Client) -> None:
    done: list[int] = []
    started = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            raise InputsUnverified("the first")
        started.wait(0.01)
        done.append(number)

    with pytest.raises(InputsUnverified, match="the first"):
        client.in_parallel(range(1000), work)
    assert len(done) < 1000
