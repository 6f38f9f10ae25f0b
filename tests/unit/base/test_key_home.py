# SPDX-License-Identifier: GPL-3.0-or-later
"""A release key that is brought as a file lies in memory, and is gone when its process is."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.base import key_home, openpgp
from pipeline.base.errors import InfrastructureFailed
from tests.gpg_home import made_home

ROOT = Path(__file__).parents[3]
# Opens the release key, says where it lies and which agent has it, and waits to be killed.
HOLDER = """
import sys, time
from pathlib import Path
from pipeline.base import command, key_home, openpgp
key_home.places = lambda: [Path(sys.argv[1])]
with openpgp.open_gpg(print) as gpg:
    argv = ["gpg-connect-agent", "--no-autostart", "getinfo pid", "/bye"]
    pid = command.run(argv, env=gpg.env, timeout_s=30).text.split()[1]
    print(gpg.env["GNUPGHOME"], pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this test's alone, in memory if there is any, where homes lie."""
    parent = next(path for path in sorted(key_home.places(), key=lambda p: "shm" not in str(p)))
    with tempfile.TemporaryDirectory(prefix="tw-", dir=parent) as folder:
        monkeypatch.setattr(key_home, "places", lambda: [Path(folder)])
        yield Path(folder)


@pytest.fixture(scope="module")
def secret_key() -> Iterator[tuple[str, bytes]]:
    with made_home() as home:
        fingerprint = home.make("Release <release@example.org>")
        yield fingerprint, home.gpg("--armor", "--export-secret-keys")


@pytest.fixture
def key_file(
    secret_key: tuple[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    path = tmp_path / "release.key"
    path.touch(mode=0o600)
    path.write_bytes(secret_key[1])
    monkeypatch.setenv("TWINBUILD_RELEASE_KEY", str(path))
    return path


@pytest.fixture
def holder(place: Path, key_file: Path) -> Iterator[tuple[subprocess.Popen[str], Path, int]]:
    """A process that has the key open: itself, the key's home and its agent."""
    argv = [sys.executable, "-c", HOLDER, str(place)]
    env = {"PATH": os.environ["PATH"], "TWINBUILD_RELEASE_KEY": str(key_file)}
    with subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        home, agent = process.stdout.readline().split()
        assert Path(home).parent == place
        yield process, Path(home), int(agent)
        process.kill()
        with suppress(ProcessLookupError):
            os.kill(int(agent), signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not condition():
        time.sleep(0.02)
    return condition()


def kill_keeper(agent: int) -> None:
    """Kill the shell that waits for the end of the process, and what it runs."""
    parent = int(Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[1])
    os.killpg(parent, signal.SIGKILL)


def test_the_key_lies_in_memory_and_is_gone_afterwards(
    place: Path, key_file: Path, secret_key: tuple[str, bytes]
) -> None:
    with openpgp.open_gpg() as gpg:
        home = Path(gpg.env["GNUPGHOME"])
        assert home.parent == place
        assert home.stat().st_mode & 0o777 == 0o700
        openpgp.try_to_sign(gpg, secret_key[0])
        assert list((home / "private-keys-v1.d").iterdir())
    assert list(place.iterdir()) == []


def test_memory_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = [path for path in key_home.places() if key_home.lies_in_memory(path)]
    on_disk = [path for path in key_home.places() if path not in in_memory]
    monkeypatch.setattr(key_home, "places", lambda: on_disk + in_memory)
    messages: list[str] = []
    with key_home.made(messages.append) as home:
        assert key_home.lies_in_memory(home) is bool(in_memory)
    assert bool(messages) is not bool(in_memory)


def test_a_key_outside_memory_is_reported(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_home, "lies_in_memory", lambda _: False)
    messages: list[str] = []
    with key_home.made(messages.append) as home:
        assert messages == [
            f"no memory file system here: while it signs, the secret key lies in {home}"
        ]
    monkeypatch.setattr(key_home, "places", lambda: [place / "none"])
    with pytest.raises(InfrastructureFailed, match="no place for a gpg home"), key_home.made(print):
        pass


def test_sigkill_leaves_neither_key_nor_agent(
    holder: tuple[subprocess.Popen[str], Path, int],
) -> None:
    """The attacker reads the disk, or asks a living agent, after a release was killed."""
    process, home, agent = holder
    assert list((home / "private-keys-v1.d").iterdir())
    process.kill()
    assert wait_until(lambda: not home.exists() and not is_alive(agent))


def test_ctrl_c_leaves_neither_key_nor_agent(
    holder: tuple[subprocess.Popen[str], Path, int],
) -> None:
    process, home, agent = holder
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert not home.exists()
    assert wait_until(lambda: not is_alive(agent))


def test_what_is_left_all_the_same_is_removed_and_reported_at_the_next_start(
    holder: tuple[subprocess.Popen[str], Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything was killed at once, as by the end of a container or for want of memory."""
    process, home, agent = holder
    process.send_signal(signal.SIGSTOP)
    kill_keeper(agent)
    process.kill()
    process.wait()
    assert (home / "private-keys-v1.d").is_dir()
    monkeypatch.delenv("TWINBUILD_RELEASE_KEY")
    messages: list[str] = []
    with openpgp.open_gpg(messages.append):  # whichever key it uses
        assert messages == [
            f"removed {home}: a release that was killed had left its secret key there"
        ]
        assert not home.exists()
        assert wait_until(lambda: not is_alive(agent))


def test_a_key_in_use_is_left_alone(holder: tuple[subprocess.Popen[str], Path, int]) -> None:
    _, home, agent = holder
    messages: list[str] = []
    key_home.remove_leftovers(messages.append)
    assert messages == []
    assert is_alive(agent)
    assert (home / "private-keys-v1.d").is_dir()


def test_only_ones_own_folders_are_removed(place: Path, tmp_path: Path) -> None:
    """The attacker has another account and puts names in the shared folder that look like ours."""
    valuable = tmp_path / "valuable"
    valuable.mkdir()
    (place / f"{key_home.PREFIX}link").symlink_to(valuable)
    (place / f"{key_home.PREFIX}file").touch()
    if os.geteuid() == 0:
        (place / f"{key_home.PREFIX}theirs").mkdir()
        shutil.chown(place / f"{key_home.PREFIX}theirs", 65534)
    before = sorted(place.iterdir())
    key_home.remove_leftovers(pytest.fail)
    assert sorted(place.iterdir()) == before
    assert valuable.is_dir()


def test_a_folder_that_is_just_being_made_is_not_lost(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another start takes it for a leftover between its making and its locking."""
    make = tempfile.mkdtemp
    taken: list[str] = []

    def make_and_lose(**options: str) -> str:
        made = make(**options)
        if not taken:
            taken.append(made)
            key_home.remove_leftovers(lambda _: None)
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose)
    monkeypatch.setattr(key_home, "places", lambda: [place, place])
    with key_home.made(lambda _: None) as home:
        assert home.is_dir()
        assert str(home) != taken[0]
        lock = os.open(home, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)
