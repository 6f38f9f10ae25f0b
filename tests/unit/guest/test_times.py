# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose time a file has, the build's or a package's: with real packages and all kinds of clocks."""

import gzip
import io
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.guest import times as module
from pipeline.guest.ledger import Ledger
from pipeline.guest.serial_port import StepFailed
from pipeline.guest.times import DAY, SECOND, Times, package_times
from pipeline.guest.tree import settle_times

NOW = time.time()
EPOCH = int(NOW) + 157 * DAY  # as a clock sees it that is so far behind
STARTED = int(NOW) - 3600
UNPACKED = STARTED + 1800  # a package's own time, in the middle of the build's hours


def make_package(pool: Path, name: str, *mtimes: int, built: int) -> Path:
    """Make a real .deb whose files have these times."""
    tree = pool.parent / name
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\n"
    (tree / "DEBIAN/control").write_text(f"{control}Description: test\n")
    for mtime in mtimes:
        (tree / str(mtime)).touch()
        os.utime(tree / str(mtime), (mtime, mtime))
    os.utime(tree, (1, 1))
    pool.mkdir(exist_ok=True)
    path = pool / f"{name}_1_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, path],
        check=True,
        capture_output=True,
        env={"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": str(built)},
    )
    return path


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    made = tmp_path / "pool"
    make_package(made, "old", 1_000_000_000, built=STARTED - DAY)
    make_package(made, "new", 1_000_000_001, UNPACKED, STARTED - 5, built=EPOCH - DAY)
    return made


@pytest.mark.parametrize(
    ("mtime", "settled"),
    [
        pytest.param(EPOCH + 1, EPOCH, id="after the epoch"),
        pytest.param(EPOCH, EPOCH, id="the epoch"),
        pytest.param(EPOCH - DAY, EPOCH - DAY, id="a package's, ahead of this clock"),
        pytest.param(STARTED - 0.5, STARTED - 1, id="before the build"),
        pytest.param(STARTED + 0.5, EPOCH, id="written by the build"),
        pytest.param(STARTED + 7, EPOCH, id="whole seconds that a program took from the clock"),
        pytest.param(UNPACKED, UNPACKED, id="whole seconds that a package brought"),
        pytest.param(UNPACKED + 0.25, EPOCH, id="a fraction after a package's second"),
        pytest.param(1_000_000_000, 1_000_000_000, id="long ago"),
        pytest.param(0, 0, id="1970"),
        pytest.param(-1, EPOCH, id="before 1970"),
        pytest.param(-0.5, EPOCH, id="a moment before 1970"),
        pytest.param(-(2**33), EPOCH, id="long before 1970"),
        pytest.param(2**33, EPOCH, id="after 2106"),
    ],
)
def test_a_clock_before_the_epoch(pool: Path, mtime: float, settled: int) -> None:
    times = Times(EPOCH, STARTED)
    times.take_package_times(package_times(pool, STARTED))
    assert times.settled(int(mtime * SECOND)) == settled


ODD_TIMES = {
    "before-1970": -SECOND,
    "half-a-second-before-1970": -SECOND // 2,
    "long-before-1970": -(2**31) * SECOND,
    "1970": 0,
    "after-2038": 2**31 * SECOND,
    "after-2106": 2**32 * SECOND,
    "end-of-a-second": 1_600_000_000 * SECOND + 999_999_999,
    "epoch-and-a-bit": 1_700_000_000 * SECOND + 50,
}


def test_the_ledger_and_the_squashfs_have_the_same_times(tmp_path: Path) -> None:
    """A hook may set any time that its file system holds: on files, links, folders and the root."""
    times = Times(1_700_000_000, int(time.time()))
    root = tmp_path / "tree"
    root.mkdir()
    for name, mtime in ODD_TIMES.items():
        (root / f"{name}.file").touch()
        (root / f"{name}.link").symlink_to("nowhere")
        (root / f"{name}.folder").mkdir()
        for kind in ("file", "link", "folder"):
            os.utime(root / f"{name}.{kind}", ns=(mtime, mtime), follow_symlinks=False)
    os.utime(root, ns=(-SECOND, -SECOND))
    before = recorded(Ledger(root, tmp_path / "before.gz", times.settled))
    settle_times(root, times.settled)
    after = recorded(Ledger(root, tmp_path / "after.gz", times.settled))
    assert before == after == times_in_squashfs(root, tmp_path) - {("", 1_700_000_000)}
    assert {mtime for _, mtime in after} == {0, 1_600_000_000, 1_700_000_000}
    assert root.stat().st_mtime_ns == 1_700_000_000 * SECOND


def recorded(ledger: Ledger) -> set[tuple[str, int]]:
    ledger.record("1")
    final = io.BytesIO()
    ledger.write_final(final)
    ledger.close()
    entries = map(json.loads, gzip.decompress(final.getvalue()).splitlines())
    return {(entry["path"], entry["mtime"]) for entry in entries}


def times_in_squashfs(tree: Path, tmp_path: Path) -> set[tuple[str, int]]:
    """Return the times in a SquashFS of a tree; the name of its root is empty."""
    squashfs = tmp_path / "tree.squashfs"
    env = {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": "1700000000"}
    argv = ["mksquashfs", str(tree), str(squashfs), "-quiet", "-no-progress", "-comp", "gzip"]
    subprocess.run(argv, check=True, capture_output=True, env=env)
    unpacked = tmp_path / "unpacked"
    argv = ["unsquashfs", "-quiet", "-no-progress", "-d", str(unpacked), str(squashfs)]
    subprocess.run(argv, check=True, capture_output=True)
    paths = [unpacked, *unpacked.rglob("*")]
    names = (path.relative_to(unpacked).as_posix() for path in paths)
    return {(n.strip("."), int(p.lstat().st_mtime)) for n, p in zip(names, paths, strict=True)}


def test_what_is_written_now_is_the_builds(tmp_path: Path) -> None:
    times = Times(EPOCH, int(time.time()))
    (tmp_path / "written").touch()
    assert times.settled((tmp_path / "written").stat().st_mtime_ns) == EPOCH


own = st.integers(0, EPOCH)  # times that packages and archives have
written = st.integers(0, 3600 * 10**6).map(lambda us: us / 10**6)  # seconds since the start


@given(own, written)
def test_two_clocks_come_to_the_same(mtime: int, after: float) -> None:
    """One is months ahead of the epoch, one behind; neither packages nor hooks make them differ."""
    ahead = Times(EPOCH, EPOCH + 213 * DAY)
    own_ns, after_ns = mtime * SECOND, int(after * SECOND)
    behind = Times(EPOCH, STARTED)
    behind.take_package_times(frozenset({mtime}))
    assert ahead.settled(own_ns) == behind.settled(own_ns) == mtime
    if STARTED * SECOND + after_ns != own_ns:
        written_ahead, written_behind = (t.started * SECOND + after_ns for t in (ahead, behind))
        assert ahead.settled(written_ahead) == behind.settled(written_behind) == EPOCH


def test_a_clock_after_the_epoch_needs_no_package() -> None:
    times = Times(STARTED - DAY, STARTED)
    assert times.settled((STARTED + 7) * SECOND) == STARTED - DAY
    assert times.settled((STARTED - 2 * DAY) * SECOND) == STARTED - 2 * DAY


def test_only_packages_that_are_new_enough_are_opened(
    pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    really = module._times_in

    def times_in(package: Path) -> set[int]:
        opened.append(package.name)
        return really(package)

    monkeypatch.setattr(module, "_times_in", times_in)
    assert package_times(pool, STARTED) == {UNPACKED}
    assert opened == ["new_1_all.deb"]


def test_passwords_are_as_old_as_the_epoch(tmp_path: Path) -> None:
    today = int(time.time()) // DAY
    lines = f"root:*:{today}:0:99999:7:::\nold:!:19000::::::\nlocked:!:0:\nempty:::\n\xff:\n"
    shadow = tmp_path / "etc/shadow"
    shadow.parent.mkdir()
    shadow.write_bytes(lines.encode("latin-1"))
    shadow.chmod(0o640)
    (tmp_path / "etc/shadow-").symlink_to("shadow")
    times = Times(EPOCH, STARTED)
    times.settle_passwords(tmp_path, EPOCH)
    wanted = lines.replace(f":{today}:", f":{EPOCH // DAY}:")
    assert shadow.read_bytes() == wanted.encode("latin-1")
    assert shadow.stat().st_mode & 0o777 == 0o640
    os.utime(shadow, (1, 1))
    times.settle_passwords(tmp_path, EPOCH)
    assert shadow.stat().st_mtime == 1  # what is settled is not written again
    times.settle_passwords(tmp_path / "nothing", EPOCH)


def test_only_what_was_set_since_is_settled(tmp_path: Path) -> None:
    """The bootstrap's day is the lock's: where that is this machine's today it must stay too."""
    now = int(time.time())
    shadow = tmp_path / "etc/shadow"
    shadow.parent.mkdir()
    shadow.write_text(f"root:*:{now // DAY}::::::\nada:*:{now // DAY}::::::\n")
    times = Times(EPOCH, now)
    times.settle_passwords(tmp_path, now)
    before = shadow.read_text()
    shadow.write_text(before.replace("ada:*", "ada:!"))
    times.settle_passwords(tmp_path, EPOCH)
    assert shadow.read_text() == f"root:*:{now // DAY}::::::\nada:!:{EPOCH // DAY}::::::\n"


def test_a_clock_after_the_epoch_hides_no_password(tmp_path: Path) -> None:
    shadow = tmp_path / "etc/shadow"
    shadow.parent.mkdir()
    shadow.write_text(line := f"user:*:{int(time.time()) // DAY}:0:99999:7:::\n")
    Times(STARTED - DAY, STARTED).settle_passwords(tmp_path, STARTED - DAY)
    assert shadow.read_text() == line


@pytest.mark.parametrize("content", [b"", b"!<arch>\n", b"x" * 5000])
def test_a_package_that_cannot_be_read_is_reported(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.deb").write_bytes(content)
    with pytest.raises(StepFailed, match=r"broken\.deb cannot be read"):
        package_times(tmp_path, 0)
