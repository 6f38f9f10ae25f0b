# SPDX-License-Identifier: GPL-3.0-or-later
"""The client of upgrades, over real HTTP: what it believes, resumes and refuses."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.kits.install.check import Upgrade, check_upgrade
from pipeline.kits.install.failure import InputsUnverified, SignatureInvalid, UsageError
from pipeline.kits.install.fetch import fetch_kit
from pipeline.kits.install.http import NotFound
from tests.archive_server import ArchiveServer, archive_server
from tests.installed import KitParts
from tests.unit.kits.conftest import FIRST, NOW, SECOND, THIRD, Signer, Stick

NAME = "mini-amd64-3.1-to-3.2.iuk"
KIT = KitParts(FIRST, SECOND)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Path:
    folder = tmp_path_factory.mktemp("public")
    packed = KIT.pack()
    (folder / "upgrades").mkdir()
    (folder / "3.2").mkdir()
    (folder / "upgrades" / "3.1.json").write_bytes(signer.describe(KIT, packed))
    (folder / "upgrades" / "3.2.json").write_bytes(signer.state("3.2", "3.2"))
    (folder / "3.2" / NAME).write_bytes(packed)
    return folder


@pytest.fixture
def server(public: Path) -> Iterator[ArchiveServer]:
    with archive_server(public) as served:
        yield served


def test_check(server: ArchiveServer, signer: Signer) -> None:
    found = check_upgrade(server.url + "/", "3.1", "mini", signer.trust, NOW)
    assert found.description.offer is not None
    assert found.description.offer.to == "3.2"
    text = str(found.description)
    assert text.startswith("3.1 can be upgraded to 3.2: 3.2/mini-amd64-3.1-to-3.2.iuk, 0.0 MiB")


@pytest.mark.parametrize("url", ["file:///srv", "ftp://example.org", "example.org", "http://a b"])
def test_no_address(signer: Signer, url: str) -> None:
    with pytest.raises(UsageError):
        check_upgrade(url, "3.1", "mini", signer.trust, NOW)


def test_no_release(server: ArchiveServer, signer: Signer) -> None:
    with pytest.raises(UsageError):
        check_upgrade(server.url, "../3.1", "mini", signer.trust, NOW)


def test_another_product(server: ArchiveServer, signer: Signer) -> None:
    with pytest.raises(InputsUnverified, match="not for maxi"):
        check_upgrade(server.url, "3.1", "maxi", signer.trust, NOW)


def test_the_description_of_another_release(tmp_path: Path, public: Path, signer: Signer) -> None:
    """A server that answers 3.0 with what is signed for 3.1."""
    (tmp_path / "upgrades").mkdir()
    content = (public / "upgrades" / "3.1.json").read_bytes()
    (tmp_path / "upgrades" / "3.0.json").write_bytes(content)
    with archive_server(tmp_path) as served, pytest.raises(InputsUnverified, match="not for"):
        check_upgrade(served.url, "3.0", "mini", signer.trust, NOW)


def test_unsigned_and_expired(server: ArchiveServer, signer: Signer, stranger: Signer) -> None:
    with pytest.raises(SignatureInvalid, match="not signed by a trusted key"):
        check_upgrade(server.url, "3.1", "mini", stranger.trust, NOW)
    with pytest.raises(SignatureInvalid, match="has expired"):
        check_upgrade(server.url, "3.1", "mini", signer.trust, NOW + timedelta(days=180))


@pytest.mark.parametrize("fault", ["wrong", "endless", "short"])
def test_a_server_that_lies(server: ArchiveServer, signer: Signer, fault: str) -> None:
    server.faults["3.1.json"] = fault
    with pytest.raises((InputsUnverified, SignatureInvalid)) as caught:
        check_upgrade(server.url, "3.1", "mini", signer.trust, NOW)
    assert "\n" not in str(caught.value)


def upgrade(server: ArchiveServer, signer: Signer) -> Upgrade:
    return check_upgrade(server.url, "3.1", "mini", signer.trust, NOW)


def fetch(
    server: ArchiveServer, signer: Signer, folder: Path
) -> tuple[Path | None, list[tuple[int, int]]]:
    progress: list[tuple[int, int]] = []
    kit = fetch_kit(server.url, upgrade(server, signer), folder, lambda *now: progress.append(now))
    return kit, progress


def test_fetch(server: ArchiveServer, signer: Signer, tmp_path: Path, public: Path) -> None:
    kit, progress = fetch(server, signer, tmp_path / "new")
    assert kit == tmp_path / "new" / NAME
    assert kit.read_bytes() == KIT.pack()
    assert progress[-1] == (len(KIT.pack()),) * 2
    described = kit.with_name(f"{NAME}.json").read_bytes()
    assert described == (public / "upgrades" / "3.1.json").read_bytes()
    assert len(list(kit.parent.iterdir())) == 2


def test_what_is_there_is_not_fetched_again(
    server: ArchiveServer, signer: Signer, tmp_path: Path
) -> None:
    fetch(server, signer, tmp_path)
    fetch(server, signer, tmp_path)
    assert server.asked[f"/3.2/{NAME}"] == 1


def test_it_goes_on_where_it_broke_off(
    server: ArchiveServer, signer: Signer, tmp_path: Path
) -> None:
    packed = KIT.pack()
    (tmp_path / f"{NAME}.part").write_bytes(packed[:5000])
    kit, _ = fetch(server, signer, tmp_path)
    assert kit is not None
    assert kit.read_bytes() == packed
    assert server.began_at[-1] == 5000


def test_a_connection_that_breaks_once(
    server: ArchiveServer, signer: Signer, tmp_path: Path
) -> None:
    found = upgrade(server, signer)
    server.faults[NAME] = "once-truncate"
    kit = fetch_kit(server.url, found, tmp_path, lambda *_: None)
    assert kit is not None
    assert kit.read_bytes() == KIT.pack()
    assert server.began_at[-1] > 0


@pytest.mark.parametrize("fault", ["wrong", "endless"])
def test_wrong_bytes_are_not_kept(
    server: ArchiveServer, signer: Signer, tmp_path: Path, fault: str
) -> None:
    found = upgrade(server, signer)
    server.faults[NAME] = fault
    with pytest.raises(InputsUnverified):
        fetch_kit(server.url, found, tmp_path, lambda *_: None)
    assert list(tmp_path.iterdir()) == []


def test_another_file_in_its_place(server: ArchiveServer, signer: Signer, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"mine")
    with pytest.raises(UsageError, match="is there and is another file"):
        fetch(server, signer, tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"mine"


def test_a_kit_that_is_gone(server: ArchiveServer, signer: Signer, tmp_path: Path) -> None:
    found = upgrade(server, signer)
    server.faults[NAME] = "404"
    with pytest.raises(NotFound, match=r"127\.0\.0\.1"):
        fetch_kit(server.url, found, tmp_path, lambda *_: None)
    assert list(tmp_path.iterdir()) == []


def test_it_is_applied_as_it_was_fetched(
    server: ArchiveServer, signer: Signer, tmp_path: Path, stick: Stick
) -> None:
    kit, _ = fetch(server, signer, tmp_path / "kits")
    assert kit is not None
    assert stick.apply(kit).version == "3.2"


def test_there_is_nothing_to_fetch(server: ArchiveServer, signer: Signer, tmp_path: Path) -> None:
    found = check_upgrade(server.url, "3.2", "mini", signer.trust, NOW)
    assert fetch_kit(server.url, found, tmp_path / "new", lambda *_: None) is None
    assert not (tmp_path / "new").exists()


def test_descriptions_are_small(signer: Signer) -> None:
    content = signer.describe(KitParts(FIRST, THIRD), b"x")
    assert len(content) < 2000
    assert set(json.loads(content)) == {"payload", "payloadType", "signatures"}
