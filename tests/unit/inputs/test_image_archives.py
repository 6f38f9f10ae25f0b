# SPDX-License-Identifier: GPL-3.0-or-later
"""An image's own archives: what is locked from them, by whose key, and what is refused."""

import shutil
import socket
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.util import parse_url

from pipeline.base.errors import InfrastructureFailed, InputsUnverified, UsageError
from pipeline.documents.lock import Lock
from pipeline.farm.config import Archive
from pipeline.farm.workspace import Workspace
from pipeline.inputs.image_archives import OwnArchive, read_archives
from pipeline.inputs.image_lock import prove_tagged_lock, write_tagged_snapshot
from pipeline.inputs.locking import check_lock, write_lock
from pipeline.inputs.proof import prove
from pipeline.inputs.request import with_own_archives
from pipeline.inputs.snapshot import write_snapshot
from tests.debian_archive import DebianArchive, SigningKey
from tests.hostile_server import FOUND, answering, hostile_server
from tests.unit.inputs.conftest import Workshop

pytestmark = pytest.mark.tools

ADDRESS = "https://own.example.org/debian"
LINE = f"deb {ADDRESS} trixie main\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "images/live/mini"
    (made / "archives").mkdir(parents=True)
    return made


def read_list(folder: Path, text: str, farm: dict[str, Archive] | None = None) -> OwnArchive | None:
    """Return what a list with a key says, None if it is an archive of the farm."""
    (folder / "archives/own.list.chroot").write_text(text)
    (folder / "archives/own.key.chroot").write_text("a key\n")
    return read_archives(folder, "amd64", farm or {}).get("own")


def farm_with(*urls: str) -> dict[str, Archive]:
    archive = Archive(
        suites=["trixie"], components=["main"], keyring=Path("/none"), urls=list(urls)
    )
    return {"debian": archive}


# --- what a list may say


def test_a_list_is_an_archive_with_its_key(folder: Path) -> None:
    text = f"# ours\n\n{LINE}deb [arch=amd64] {ADDRESS}/ trixie-updates main # later\n"
    own = read_list(folder, text)
    assert own
    assert own.archive.suites == ["trixie", "trixie-updates"]
    assert own.archive.components == ["main"]
    assert own.archive.urls == [ADDRESS]
    assert own.archive.keyring == folder / "archives/own.key.chroot"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("deb", "no source of packages"),
        (f"deb {ADDRESS}", "no source of packages"),
        (f"debs {ADDRESS} trixie main", "no source of packages"),
        (f"deb [arch=amd64 {ADDRESS} trixie main", "no source of packages"),
        ("Types: deb", "no source of packages"),
        (f"deb {ADDRESS} trixie", "no component"),
        (f"deb {ADDRESS} trixie Main", "'Main' is not a component"),
        (f"deb {ADDRESS} trixie main --", "'--' is not a component"),
        (f"deb {ADDRESS} ../trixie main", "not a suite's name"),
        (f"deb {ADDRESS} trixie/updates main", "not a suite's name"),
        (f"deb {ADDRESS} ./", "flat archive"),
        (f"deb {ADDRESS} stable/", "flat archive"),
        (f"deb-src {ADDRESS} trixie main", "deb-src is not supported"),
        (f"deb {ADDRESS} @DISTRIBUTION@ main", "@DISTRIBUTION@ is not supported"),
        (f"deb [signed-by=/usr/share/keyrings/x.gpg] {ADDRESS} trixie main", "option 'signed-by="),
        (f"deb [trusted=yes] {ADDRESS} trixie main", "option 'trusted=yes'"),
        (f"deb [arch=amd64 trusted=yes] {ADDRESS} trixie main", "option 'trusted=yes'"),
        (f"deb [allow-insecure=yes] {ADDRESS} trixie main", "option 'allow-insecure=yes'"),
        (f"deb [arch=i386] {ADDRESS} trixie main", "option 'arch=i386'"),
        (f"deb [arch=amd64,i386] {ADDRESS} trixie main", "option 'arch=amd64,i386'"),
        ("deb https://other.example.org/debian trixie main", "another address"),
        (f"deb {ADDRESS} trixie-updates contrib", "other components"),
    ],
)
def test_a_line_that_will_not_do_is_named_by_file_and_line(
    folder: Path, line: str, says: str
) -> None:
    where = r"images/live/mini/archives/own\.list\.chroot:2: "
    with pytest.raises(UsageError, match=f"^{where}.*({says})"):
        read_list(folder, f"{LINE}{line}\n")


@pytest.mark.parametrize(
    "address",
    [
        "file:///srv/debian",
        "copy:/srv/debian",
        "ftp://own.example.org/debian",
        "cdrom:[x]/",
        "/srv/debian",
        "https://own.example.org/debian?x=1",
        "http://127.0.0.1/debian",
        "http://127.1/debian",
        "http://2130706433/debian",
        "http://0x7f000001/debian",
        "http://0x7f.0.0.0x1/debian",
        "http://169.254.169.254/latest",
        "http://10.0.0.1:8080/debian",
        "http://[::1]/debian",
        "http://[::ffff:127.0.0.1]/debian",
        "http://[x/debian",
        "http://localhost/debian",
        "http://localhost.:80/debian",
        "http://x.localhost/debian",
        "http://X.LOCALHOST/debian",
        "http://mirror/debian",
        "http://metadata.example.internal/",
        "http://printer.local/debian",
        "http://own.example.org:99999999/debian",
        "http://own.example.org\\.127.0.0.1/debian",
        "http:///debian",
        "http://",
    ],
)
def test_only_public_hosts_are_asked_on_the_word_of_a_commit(folder: Path, address: str) -> None:
    with pytest.raises(UsageError, match=r"own\.list\.chroot:1: .*address of a public host"):
        read_list(folder, f"deb {address} trixie main\n")


@pytest.mark.parametrize("user", ["user:secret@", "user@", ":@", "x\\@"])
def test_a_password_is_refused_and_not_printed(folder: Path, user: str) -> None:
    farm = farm_with("https://own.example.org/debian")  # not even for an archive of the farm
    with pytest.raises(UsageError, match=r"own\.list\.chroot:1: .* user name") as met:
        read_list(folder, f"deb https://{user}own.example.org/debian trixie main\n", farm)
    assert "secret" not in str(met.value)


HOSTS = st.text(alphabet="0189abfx.:[]@%\\/-", max_size=20).map("http://{}/ trixie main".format)


@settings(max_examples=100)
@given(st.text(max_size=60) | HOSTS)
def test_no_line_does_more_than_be_refused_or_name_a_host(
    tmp_path_factory: pytest.TempPathFactory, line: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "images/live/mini"
    (folder / "archives").mkdir(parents=True, exist_ok=True)
    (folder / "archives/own.key").write_text("a key\n")
    (folder / "archives/own.list").write_text(f"deb {line}\n", encoding="utf-8", errors="replace")
    with suppress(UsageError):
        urls = read_archives(folder, "amd64", {})["own"].archive.urls
        assert urls is not None
        (url,) = urls
        host = parse_url(url).host  # as requests understands it
        assert host
        with pytest.raises(OSError, match="illegal IP address"):
            socket.inet_aton(host)


# --- files and names


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"own.list": LINE}, r"own\.list has no key; put its public key into .*own\.key\.chroot"),
        ({"own.list": LINE, "all.key": "k"}, r"own\.list has no key"),
        ({"own.key": "k"}, r"own\.key is the key of no list"),
        ({"own.list": "# nothing\n", "own.key": "k"}, r"own\.list names no archive"),
        ({"own.list": LINE, "own.list.chroot": LINE}, r"own\.list is there, too"),
        ({"own.list": LINE, "own.key": "k", "own.key.chroot": "k"}, r"own\.key is there, too"),
        ({"Own.list": LINE, "Own.key": "k"}, r"'Own' names no archive"),
        ({".list": LINE}, ""),
        ({"debian.list": LINE, "debian.key": "k"}, r"debian\.list: farm\.yaml has another archive"),
    ],
)
def test_a_list_goes_with_one_key_and_a_name_of_its_own(
    folder: Path, files: dict[str, str], says: str
) -> None:
    for name, text in files.items():
        (folder / "archives" / name).write_text(text)
    farm = farm_with("http://deb.example.org/debian")
    if not says:  # begins with a dot
        assert read_archives(folder, "amd64", farm) == {}
        return
    with pytest.raises(UsageError, match=says):
        read_archives(folder, "amd64", farm)


@pytest.mark.parametrize("name", ["own.list", "own.key"])
def test_a_link_is_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").write_text(LINE)
    (folder / "archives/own.list").write_text(LINE)
    (folder / "archives/own.key").write_text("k")
    (folder / "archives" / name).unlink()
    (folder / "archives" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=f"{name} is not a plain file"):
        read_archives(folder, "amd64", {})


def test_there_is_a_limit(folder: Path) -> None:
    with pytest.raises(UsageError, match="more than 20 suites"):
        read_list(folder, "".join(f"deb {ADDRESS} s{n} main\n" for n in range(21)))


# --- archives of the farm


@pytest.mark.parametrize(
    "address",
    [
        "http://deb.example.org/debian",
        "http://deb.example.org/debian/",
        "http://DEB.example.org:80/debian",
        "https://deb.example.org/debian",
        "http://127.0.0.1:81/debian",  # local, and the farm says so
    ],
)
def test_an_address_of_the_farm_is_that_archive(folder: Path, address: str) -> None:
    farm = farm_with("http://deb.example.org/debian", "http://127.0.0.1:81/debian")
    (folder / "archives/mirror.list").write_text(f"deb {address} trixie main\n")
    assert read_archives(folder, "amd64", farm) == {}
    (folder / "archives/mirror.list").write_text(f"deb {address} trixie-backports main\n")
    with pytest.raises(UsageError, match=r"mirror\.list:1: farm\.yaml has this archive as debian"):
        read_archives(folder, "amd64", farm)


def test_a_key_for_an_archive_of_the_farm_is_not_ignored(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"own\.key\.chroot would be ignored"):
        read_list(folder, LINE, farm_with(ADDRESS))


# --- a lock from a real archive


@pytest.fixture
def own(
    workshop: Workshop, keys: dict[str, SigningKey], monkeypatch: pytest.MonkeyPatch
) -> DebianArchive:
    """An archive that the image names itself, signed by a key of its own."""
    archive = DebianArchive(workshop.archive.root.parent / "own", keys["stranger"])
    archive.add("kiosk", Depends="live-boot")
    archive.add("mmdebstrap", "9.0")  # the builder has one from the farm's archive
    archive.add("odd-tool", Essential="yes")
    archive.publish()
    monkeypatch.setenv("TWINBUILD_MIRROR_OWN", f"{workshop.server.url}/own")
    name_it(workshop, keys["stranger"])
    workshop.ask_for("live-boot", "kiosk")
    return archive


def name_it(workshop: Workshop, key: SigningKey, name: str = "own") -> Path:
    """Write a list and its key."""
    archives = workshop.tree / "images/live/mini/archives"
    archives.mkdir(exist_ok=True)
    (archives / f"{name}.list.chroot").write_text(LINE)
    path = archives / f"{name}.key.chroot"
    path.write_bytes(key.gpg("--export", "--armor"))
    return path


def used_by(lock: Lock, user: str) -> dict[str, tuple[str, str]]:
    return {
        p.package.name: (p.package.version, p.place.archive)
        for p in lock.locked
        if user in p.package.used_by
    }


@pytest.mark.usefixtures("own")
def test_the_image_takes_packages_from_its_own_archive_and_the_builder_does_not(
    workshop: Workshop,
) -> None:
    lock = workshop.lock()
    image, builder = used_by(lock, "image"), used_by(lock, "builder")
    assert image["kiosk"] == ("1.0", "own")
    assert image["odd-tool"] == ("1.0", "own")
    assert image["live-boot"] == ("1.0", "debian")
    assert builder["mmdebstrap"] == ("1.0", "debian")
    assert {archive for _, archive in builder.values()} == {"debian"}
    assert [(suite.archive, suite.suite) for suite in lock.suites] == [
        ("debian", "trixie"),
        ("own", "trixie"),
    ]
    assert "example.org" not in workshop.lock_file.read_text()


@pytest.mark.usefixtures("own")
def test_the_name_of_its_host_may_not_lead_into_the_farms_network(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attacker holds the commit and the name: the list is right, the address is loopback."""
    lock = workshop.lock()
    ask = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **more: ask(
            host.replace("own.example.org", "127.0.0.1"), *args, **more
        ),
    )
    monkeypatch.delenv("TWINBUILD_MIRROR_OWN")
    with hostile_server(answering(FOUND)) as victim:
        path = workshop.tree / "images/live/mini/archives/own.list.chroot"
        path.write_text(f"deb http://own.example.org:{victim.port}/debian trixie main\n")
        with pytest.raises(InfrastructureFailed) as caught:
            workshop.make()
        assert "own.example.org is 127.0.0.1, which is no public address" in caught.value.detail
        shutil.rmtree(workshop.store.root)
        farm = with_own_archives(workshop.tree, lock, workshop.farm)
        with pytest.raises(InfrastructureFailed):
            write_snapshot(workshop.tree.parent / "snapshots", "3.3", lock, farm, workshop.store)
        assert not victim.asked


@pytest.mark.usefixtures("own")
def test_such_a_lock_is_checked_built_from_kept_and_proven(
    workshop: Workshop, keys: dict[str, SigningKey]
) -> None:
    lock = workshop.lock()
    check_lock(workshop.tree, "mini", workshop.farm, workshop.store, workshop.builder_lists, print)
    farm = with_own_archives(workshop.tree, lock, workshop.farm)
    snapshots = workshop.tree.parent / "snapshots"
    path = write_snapshot(snapshots, "3.3", lock, farm, workshop.store)
    assert (path / "own/pool/main/k/kiosk/kiosk_1.0_all.deb").is_file()
    shutil.rmtree(workshop.store.root)
    workshop.stage(workshop.run())  # from the archives
    shutil.rmtree(workshop.store.root)
    shutil.rmtree(workshop.archive.root.parent)
    workshop.stage(workshop.run(tag="3.3"))  # from the snapshot
    proven = prove(lock, path, farm.archives, keys["archive"].keyring)
    assert [(suite.archive, suite.is_debian) for suite in proven.suites] == [
        ("debian", True),
        ("own", False),
    ]
    assert sorted(locked.package.name for locked in proven.foreign) == ["kiosk", "odd-tool"]
    with pytest.raises(UsageError, match=r"neither farm\.yaml nor the image has the archive own"):
        prove(lock, path, workshop.farm.archives)


@pytest.mark.usefixtures("own")
def test_a_snapshot_is_proven_by_the_key_of_the_commit_alone(
    workshop: Workshop, keys: dict[str, SigningKey]
) -> None:
    lock = workshop.lock()
    farm = with_own_archives(workshop.tree, lock, workshop.farm)
    path = write_snapshot(workshop.tree.parent / "snapshots", "3.3", lock, farm, workshop.store)
    name_it(workshop, keys["archive"])
    other = with_own_archives(workshop.tree, lock, workshop.farm)
    with pytest.raises(InputsUnverified, match="not signed by a known key"):
        prove(lock, path, other.archives, keys["stranger"].keyring)


def test_the_key_of_the_farms_archive_does_not_vouch_for_another(
    workshop: Workshop, own: DebianArchive, keys: dict[str, SigningKey]
) -> None:
    own.publish(key=keys["archive"])
    with pytest.raises(InputsUnverified, match=r"known key; .*live/mini/archives/own\.key\.chroot"):
        workshop.lock()
    assert not workshop.lock_file.exists()


def test_a_wrong_key_is_refused_by_its_name(
    workshop: Workshop, own: DebianArchive, keys: dict[str, SigningKey]
) -> None:
    name_it(workshop, keys["archive"])
    with pytest.raises(InputsUnverified, match=r"known key; .*live/mini/archives/own\.key\.chroot"):
        workshop.lock()
    own.publish(key=keys["archive"])
    workshop.lock()


def test_the_key_of_one_own_archive_does_not_vouch_for_another(
    workshop: Workshop,
    own: DebianArchive,
    keys: dict[str, SigningKey],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = DebianArchive(own.root.parent / "other", keys["archive"])
    other.add("kiosk", "2.0")
    other.publish()
    monkeypatch.setenv("TWINBUILD_MIRROR_OTHER", f"{workshop.server.url}/other")
    name_it(workshop, keys["stranger"], "other")
    with pytest.raises(InputsUnverified, match=r"archives/other\.key\.chroot"):
        workshop.lock()
    name_it(workshop, keys["archive"], "other")
    assert used_by(workshop.lock(), "image")["kiosk"] == ("2.0", "other")


@pytest.mark.usefixtures("own")
def test_the_key_of_an_own_archive_does_not_vouch_for_the_farms(
    workshop: Workshop, keys: dict[str, SigningKey]
) -> None:
    workshop.archive.publish(key=keys["stranger"])
    with pytest.raises(InputsUnverified, match="not signed by a known key"):
        workshop.lock()


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("content", [b"", b"no key\n", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"])
def test_what_is_no_key_vouches_for_nothing(workshop: Workshop, content: bytes) -> None:
    (workshop.tree / "images/live/mini/archives/own.key.chroot").write_bytes(content)
    with pytest.raises((InputsUnverified, UsageError), match=r"own\.key\.chroot"):
        workshop.lock()


@pytest.mark.usefixtures("own")
def test_another_key_makes_the_lock_stale(workshop: Workshop, keys: dict[str, SigningKey]) -> None:
    workshop.lock()
    name_it(workshop, keys["archive"])
    with pytest.raises(UsageError, match="stale"):
        workshop.stage(workshop.run())


@pytest.mark.usefixtures("own")
def test_a_lock_that_gives_such_packages_to_the_builder_is_refused(workshop: Workshop) -> None:
    lock = workshop.lock()
    of_both = ("builder", "image")
    locked = [
        replace(p, package=replace(p.package, used_by=of_both)) if p.place.archive == "own" else p
        for p in lock.locked
    ]
    write_lock(workshop.tree, replace(lock, locked=tuple(locked)))
    with pytest.raises(InputsUnverified, match=r"builder has (kiosk|odd-tool) of the image's"):
        workshop.stage(workshop.run())


@pytest.mark.usefixtures("own")
def test_a_tag_brings_its_own_key(
    workshop: Workshop, keys: dict[str, SigningKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINBUILD_CACHE", str(workshop.tree.parent / "cache"))
    lock = workshop.lock()
    commit_and_tag(workshop.tree, "3.3")
    name_it(workshop, keys["archive"])  # later, in the working tree
    workspace = Workspace(workshop.tree, workshop.farm)
    assert write_tagged_snapshot(workspace, "3.3", "mini").is_dir()
    proven = prove_tagged_lock(workspace, "3.3", "mini")
    assert {locked.place.archive for locked in lock.locked} == {s.archive for s in proven.suites}
    commit_and_tag(workshop.tree, "3.4")
    shutil.copytree(workspace.snapshots / "3.3", workspace.snapshots / "3.4")
    with pytest.raises(InputsUnverified, match=r"known key; .*archives/own\.key\.chroot"):
        prove_tagged_lock(workspace, "3.4", "mini")


def commit_and_tag(tree: Path, tag: str) -> None:
    git = ["git", "-C", str(tree), "-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for arguments in (["init", "-q"], ["add", "images"], ["commit", "-q", "-m", tag], ["tag", tag]):
        subprocess.run([*git, *arguments], check=True)


def test_of_one_version_the_farms_package_is_taken(workshop: Workshop, own: DebianArchive) -> None:
    own.add("live-tools", content="another")
    own.publish()
    assert used_by(workshop.lock(), "image")["live-tools"] == ("1.0", "debian")
