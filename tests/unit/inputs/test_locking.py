# SPDX-License-Identifier: GPL-3.0-or-later
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.base.errors import InfrastructureFailed, InputsUnverified, TwinbuildError, UsageError
from pipeline.documents.lock import Lock, dump
from pipeline.inputs.lock_file import read
from pipeline.inputs.locking import check_lock
from pipeline.inputs.validity import days_left
from tests.archive_server import archive_server
from tests.debian_archive import DAY, SigningKey, sha256
from tests.unit.inputs.conftest import Workshop, farm_of

pytestmark = pytest.mark.tools


def names(lock: Lock, user: str) -> set[str]:
    return {package.name for package in lock.used_by(user)}


def check(workshop: Workshop) -> Lock:
    lists = workshop.builder_lists
    return check_lock(workshop.tree, "mini", workshop.farm, workshop.store, lists, lambda _: None)


def test_a_lock_names_what_is_needed_and_nothing_else(workshop: Workshop) -> None:
    lock = workshop.lock()
    essential = {"base-files", "dash", "libc6"}
    assert names(lock, "image") == essential | {"live-boot", "live-tools"}
    assert names(lock, "builder") == essential | {"apt", "mmdebstrap"}
    assert read(workshop.lock_file)[0] == lock
    libc6, place = next((p.package, p.place) for p in lock.locked if p.package.name == "libc6")
    deb = (workshop.archive.root / place.filename).read_bytes()
    assert (libc6.version, libc6.size, libc6.sha256) == ("1:2.41+b1", len(deb), sha256(deb))
    assert libc6.used_by == ("builder", "image")


def test_the_signed_indices_stay_in_the_store(workshop: Workshop) -> None:
    (suite,) = workshop.lock().suites
    assert [index.path for index in suite.indices] == [
        "main/binary-amd64/Packages.xz",
        "main/i18n/Translation-en.xz",
    ]
    kept = {suite.inrelease_sha256, *(index.sha256 for index in suite.indices)}
    assert workshop.stored() == kept


def test_two_mirrors_give_the_same_lock(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = dump(workshop.lock())
    with archive_server(workshop.server.root) as other:
        monkeypatch.setenv("TWINBUILD_MIRROR_DEBIAN", f"{other.url}/debian/")
        workshop.server.asked.clear()
        second = dump(workshop.lock())
        assert other.asked
    assert not workshop.server.asked
    assert first == second
    assert b"127.0.0.1" not in first


def test_the_image_can_pin(workshop: Workshop) -> None:
    workshop.archive.add("live-boot", "2.0", Depends="live-tools")
    workshop.archive.publish()
    preferences = workshop.tree / "images/live/mini/preferences"
    preferences.mkdir()
    before = workshop.make().request_sha256
    pin = "Package: live-boot\nPin: version 1.0\nPin-Priority: 990\n"
    (preferences / "old.pref.chroot").write_text(pin)
    lock = workshop.make()
    assert [p.version for p in lock.packages if p.name == "live-boot"] == ["1.0"]
    assert lock.request_sha256 != before


def test_nothing_of_this_machines_packages_counts(workshop: Workshop) -> None:
    # dpkg is installed wherever this runs, and is in no archive of this test.
    workshop.archive.add("needs-dpkg", Depends="dpkg")
    workshop.archive.publish()
    workshop.ask_for("needs-dpkg")
    with pytest.raises(UsageError) as raised:
        workshop.make()
    assert "dpkg" in raised.value.detail
    assert "\n" not in str(raised.value)


def test_an_unknown_name_is_reported_with_its_line_and_neighbours(workshop: Workshop) -> None:
    workshop.ask_for("live-boot", "live-tool")
    with pytest.raises(UsageError, match=r"mini\.list\.chroot:2: .*live-tool; did.*live-tools"):
        workshop.make()


def test_apts_marks_for_removal_are_names_like_any_other(workshop: Workshop) -> None:
    workshop.ask_for("live-boot", "dash-")
    with pytest.raises(UsageError, match="there is no package dash-"):
        workshop.make()


def test_a_provided_name_will_do(workshop: Workshop) -> None:
    workshop.ask_for("tools")
    assert "live-tools" in names(workshop.make(), "image")


def test_a_virtual_package_of_several_providers_is_named_with_them(workshop: Workshop) -> None:
    workshop.archive.add("other-tools", Provides="tools")
    workshop.archive.publish()
    workshop.ask_for("live-boot", "tools")
    with pytest.raises(UsageError) as caught:
        workshop.make()
    where = "mini/package-lists/mini.list.chroot:2"
    assert str(caught.value).startswith(f"{where}: tools is a virtual package")
    assert "live-tools, other-tools" in str(caught.value)


def test_all_wrong_names_are_named_at_once(workshop: Workshop) -> None:
    workshop.ask_for("live-tool", "live-boot", "xyzzy")
    with pytest.raises(UsageError, match="2 names in package lists") as caught:
        workshop.make()
    assert [line.partition(";")[0] for line in caught.value.detail.splitlines()] == [
        "mini/package-lists/mini.list.chroot:1: there is no package live-tool",
        "mini/package-lists/mini.list.chroot:3: there is no package xyzzy",
    ]


# --- archives that cannot be trusted


def _unknown_key(w: Workshop, keys: dict[str, SigningKey]) -> None:
    w.archive.publish(key=keys["stranger"])


def _expired_key(w: Workshop, keys: dict[str, SigningKey]) -> None:
    then = ("--faked-system-time", "20200101T010000!")
    w.archive.publish(key=keys["expired"], sign_options=then)


def _unsigned(w: Workshop, _: dict[str, SigningKey]) -> None:
    lines = (w.archive.dists / "InRelease").read_text().splitlines(keepends=True)
    start, end = lines.index("\n"), lines.index("-----BEGIN PGP SIGNATURE-----\n")
    (w.archive.dists / "InRelease").write_text("".join(lines[start + 1 : end]))


def _changed(w: Workshop, _: dict[str, SigningKey]) -> None:
    _replace(w, "Suite: stable", "Suite: sTable")


def _text_before(w: Workshop, _: dict[str, SigningKey]) -> None:
    path = w.archive.dists / "InRelease"
    path.write_text("Codename: trixie\n\n" + path.read_text())


def _two_documents(w: Workshop, _: dict[str, SigningKey]) -> None:
    path = w.archive.dists / "InRelease"
    path.write_text(path.read_text() * 2)


def _other_suite(w: Workshop, _: dict[str, SigningKey]) -> None:
    w.archive.publish(Codename="forky", Suite="testing")


def _no_longer_valid(w: Workshop, _: dict[str, SigningKey]) -> None:
    w.archive.publish(date=datetime.now(UTC) - 8 * DAY)


def _from_the_future(w: Workshop, _: dict[str, SigningKey]) -> None:
    w.archive.publish(date=datetime.now(UTC) + DAY)


def _without_the_component(w: Workshop, _: dict[str, SigningKey]) -> None:
    w.farm = farm_of(w.server, w.archive, components=["main", "contrib"])


def _wrong_index(w: Workshop, _: dict[str, SigningKey]) -> None:
    for path in w.archive.dists.glob("main/binary-amd64/**/*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def _longer_index(w: Workshop, _: dict[str, SigningKey]) -> None:
    for path in w.archive.dists.glob("main/binary-amd64/**/*"):
        if path.is_file():
            path.write_bytes(path.read_bytes() + b"x")


def _climbing_file_name(w: Workshop, _: dict[str, SigningKey]) -> None:
    text = w.archive.paragraphs["live-boot 1.0"]
    w.archive.paragraphs["live-boot 1.0"] = text.replace("pool/", "pool/../../")
    w.archive.publish()


def _no_hash(w: Workshop, _: dict[str, SigningKey]) -> None:
    text = w.archive.paragraphs["live-boot 1.0"]
    w.archive.paragraphs["live-boot 1.0"] = text.replace("SHA256: ", "SHA1: ")
    w.archive.publish()


def _replace(w: Workshop, old: str, new: str) -> None:
    path = w.archive.dists / "InRelease"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


Break = Callable[[Workshop, dict[str, SigningKey]], None]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_unknown_key, "not signed by a known key"),
        (_expired_key, "not signed by a known key"),
        (_unsigned, "not one clear-signed document"),
        (_changed, "bad signature"),
        (_text_before, "not one clear-signed document"),
        (_two_documents, "not one clear-signed document"),
        (_other_suite, "asked for suite trixie, got one of 'forky'"),
        (_no_longer_valid, "expired on"),
        (_from_the_future, "from the future"),
        (_without_the_component, "has no contrib"),
        (_wrong_index, "wrong bytes"),
        (_longer_index, "wrong bytes"),
        (_climbing_file_name, "cannot be read"),
        (_no_hash, "cannot be read"),
    ],
)
def test_no_lock_rests_on_an_archive_that_cannot_be_trusted(
    workshop: Workshop, keys: dict[str, SigningKey], spoil: Break, says: str
) -> None:
    spoil(workshop, keys)
    with pytest.raises(InputsUnverified, match=says) as raised:
        workshop.lock()
    assert "\n" not in str(raised.value)
    assert not workshop.lock_file.exists()


@pytest.mark.parametrize("spoil", [_wrong_index, _longer_index])
def test_a_wrong_index_never_enters_the_store(
    workshop: Workshop, keys: dict[str, SigningKey], spoil: Break
) -> None:
    spoil(workshop, keys)
    with pytest.raises(InputsUnverified):
        workshop.lock()
    assert workshop.stored() == set()


def test_an_expired_key_is_no_key_even_in_the_keyring(
    workshop: Workshop, keys: dict[str, SigningKey]
) -> None:
    _expired_key(workshop, keys)
    workshop.farm = farm_of(workshop.server, workshop.archive, keyring=keys["expired"].keyring)
    with pytest.raises(InputsUnverified, match="expired"):
        workshop.lock()


def test_an_armored_keyring_will_do(workshop: Workshop, tmp_path: Path) -> None:
    armored = tmp_path / "archive.asc"
    armored.write_bytes(workshop.archive.key.gpg("--armor", "--export"))
    workshop.farm = farm_of(workshop.server, workshop.archive, keyring=armored)
    assert workshop.lock()


def test_a_second_signature_by_an_unknown_key_does_no_harm(
    workshop: Workshop, keys: dict[str, SigningKey]
) -> None:
    archive, stranger = keys["archive"], keys["stranger"]
    archive.gpg("--import", stdin=stranger.gpg("--export-secret-keys"))
    try:
        workshop.archive.publish(sign_options=("--local-user", stranger.fingerprint))
    finally:  # the keys are those of all tests
        archive.gpg("--yes", "--delete-secret-and-public-key", stranger.fingerprint)
    assert workshop.lock()


def test_no_keyring_is_wrong_configuration(workshop: Workshop, tmp_path: Path) -> None:
    workshop.farm = farm_of(workshop.server, workshop.archive, keyring=tmp_path / "nothing")
    with pytest.raises(UsageError, match="keyring"):
        workshop.lock()


# --- mirrors that break


@pytest.mark.parametrize("fault", ["404", "wrong", "endless"])
@pytest.mark.parametrize("where", ["InRelease", "Packages.xz"])
def test_the_next_mirror_helps(workshop: Workshop, fault: str, where: str) -> None:
    shutil.rmtree(workshop.archive.dists / "main/binary-amd64/by-hash")
    workshop.server.faults[where] = fault
    with archive_server(workshop.server.root) as other:
        urls = [f"{workshop.server.url}/debian", f"{other.url}/debian"]
        workshop.farm = farm_of(workshop.server, workshop.archive, urls=urls)
        assert workshop.lock()


def test_a_mirror_without_the_suite_is_an_infrastructure_failure(workshop: Workshop) -> None:
    workshop.server.faults["InRelease"] = "404"
    with pytest.raises(InfrastructureFailed, match="no address has"):
        workshop.lock()


def test_a_mirror_cannot_roll_back(workshop: Workshop) -> None:
    now = datetime.now(UTC)
    workshop.locked()
    workshop.archive.publish(date=now - DAY)
    before = workshop.lock_file.read_bytes()
    with pytest.raises(InputsUnverified, match="older than the last lock's"):
        workshop.lock()
    assert workshop.lock_file.read_bytes() == before


def test_the_same_indices_may_be_locked_again(workshop: Workshop) -> None:
    assert dump(workshop.lock()) == dump(workshop.lock())


# --- pinned archives


def test_a_pinned_archive_is_read_from_the_snapshots(workshop: Workshop) -> None:
    at = datetime.now(UTC) - 300 * DAY
    workshop.archive.publish(date=at - DAY)
    time = f"{at:%Y%m%dT%H%M%SZ}"
    served = workshop.server.root
    (served / "snap/archive/debian").mkdir(parents=True)
    (served / "debian").rename(served / "snap/archive/debian" / time)
    urls = [f"{workshop.server.url}/snap/"]
    workshop.farm = farm_of(workshop.server, workshop.archive, at=time, snapshot_urls=urls)
    lock = workshop.lock()
    assert lock.suites[0].date == (at - DAY).replace(microsecond=0)


# --- packages that change under the same version


def _republish(workshop: Workshop) -> None:
    workshop.archive.add("live-boot", Depends="live-tools", content=" changed")
    workshop.archive.publish()


def test_a_changed_package_of_the_last_lock_is_refused(workshop: Workshop) -> None:
    workshop.locked()
    _republish(workshop)
    with pytest.raises(InputsUnverified, match=r"live-boot 1\.0 .*was locked before"):
        workshop.lock()


def test_a_changed_package_of_any_lock_in_history_is_refused(workshop: Workshop) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
        env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        argv = ["git", "-C", str(workshop.tree), *identity, *arguments]
        subprocess.run(argv, check=True, capture_output=True, env=env)

    git("init", "-q")
    workshop.lock()
    git("add", ".")
    git("commit", "-q", "-m", "first")
    workshop.lock_file.write_text("Format: something else\n")
    git("commit", "-q", "-a", "-m", "second")
    workshop.lock_file.unlink()
    git("commit", "-q", "-a", "-m", "third")
    _republish(workshop)
    with pytest.raises(InputsUnverified, match=r"live-boot 1\.0 .*was locked before"):
        workshop.lock()


def test_a_repository_without_commits_has_no_history(workshop: Workshop) -> None:
    subprocess.run(["git", "init", "-q", workshop.tree], check=True)
    assert workshop.lock()


# --- check


def test_a_fresh_lock_passes_the_check(workshop: Workshop) -> None:
    lock = workshop.locked()
    assert check(workshop) == lock


def checked_archive(workshop: Workshop) -> str:
    messages: list[str] = []
    lists = workshop.builder_lists
    check_lock(workshop.tree, "mini", workshop.farm, workshop.store, lists, messages.append)
    (line,) = [line for line in messages if line.startswith("debian trixie: ")]
    return line


def test_the_check_tells_how_long_the_signed_index_is_valid(workshop: Workshop) -> None:
    now = datetime.now(UTC)
    workshop.archive.publish(date=now - DAY, valid_for=7 * DAY)
    workshop.lock()
    until = f"{now + 6 * DAY:%Y-%m-%d %H:%M} UTC"
    assert checked_archive(workshop).endswith(f", valid until {until}: 5 days left")
    workshop.archive.publish(date=now, valid_for=None)
    workshop.lock()
    assert checked_archive(workshop).endswith(", valid without end")


def test_the_check_tells_that_a_signed_index_is_gone(workshop: Workshop) -> None:
    workshop.locked()
    shutil.rmtree(workshop.store.root)
    workshop.archive.publish(date=datetime.now(UTC) + timedelta(seconds=5))
    assert "is gone, and no snapshot can be made; lock anew" in checked_archive(workshop)


def test_an_index_that_has_expired_is_reported() -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert "expired, so lock anew" in days_left(now - timedelta(seconds=1), now)
    assert days_left(now + timedelta(seconds=1), now).endswith(": 0 days left")


def _another_package(workshop: Workshop) -> None:
    workshop.ask_for("live-boot", "unwanted")


def _another_tool(workshop: Workshop) -> None:
    (workshop.builder_lists / "more.list").write_text("unwanted\n")


def _another_archive(workshop: Workshop) -> None:
    workshop.farm = farm_of(workshop.server, workshop.archive, suites=["trixie", "sid"])


def _another_pin(workshop: Workshop) -> None:
    folder = workshop.tree / "images/live/mini/preferences"
    folder.mkdir()
    (folder / "a.pref").write_text("Package: *\nPin: release n=trixie\nPin-Priority: 900\n")


@pytest.mark.parametrize(
    "change", [_another_package, _another_tool, _another_archive, _another_pin]
)
def test_a_stale_lock_is_wrong_usage(
    workshop: Workshop, change: Callable[[Workshop], None]
) -> None:
    workshop.locked()
    change(workshop)
    with pytest.raises(UsageError, match=r"stale.*\./farm lock --image mini"):
        check(workshop)


def test_other_words_for_the_same_are_not_stale(workshop: Workshop, tmp_path: Path) -> None:
    workshop.locked()
    workshop.ask_for("# a comment", "", "  live-boot   # and another")
    keyring = tmp_path / "copied.gpg"
    keyring.write_bytes(workshop.archive.key.keyring.read_bytes())
    workshop.farm = farm_of(workshop.server, workshop.archive, keyring=keyring)
    assert check(workshop)


def test_the_check_names_what_cannot_be_had(workshop: Workshop) -> None:
    workshop.locked()
    workshop.server.faults["live-boot_1.0_all.deb"] = "404"
    workshop.server.faults["base-files_1.0_all.deb"] = "short"
    with pytest.raises(InfrastructureFailed, match="2 locked packages") as raised:
        check(workshop)
    assert raised.value.detail == "base-files_1.0_all.deb\nlive-boot_1.0_all.deb"


def test_no_lock_no_check(workshop: Workshop) -> None:
    with pytest.raises(TwinbuildError, match="there is no lock"):
        check(workshop)


@pytest.mark.parametrize("name", ["lock", "image.yaml", "package-lists/mini.list.chroot"])
def test_what_never_ends_is_not_waited_for(workshop: Workshop, name: str) -> None:
    """Somebody's working tree holds a FIFO, or endless bytes, where a small file belongs."""
    path = workshop.tree / "images/live/mini" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(UsageError, match="not a plain file"):
        workshop.make()
    path.unlink()
    with path.open("wb") as file:
        file.truncate(10**11)
    with pytest.raises(UsageError, match="larger than"):
        workshop.make()
