# SPDX-License-Identifier: GPL-3.0-or-later
"""`upgrade.pyz`: the client as one file, on a system with nothing but Python and gpgv."""

import io
import shutil
import subprocess
import sys
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.kits.install import program
from pipeline.kits.make.client import START, upgrade_client
from tests.archive_server import archive_server
from tests.installed import KitParts
from tests.unit.kits.conftest import FIRST, SECOND, Signer, Stick

NAME = "mini-amd64-3.1-to-3.2.iuk"
SIZE_LIMIT = 200 * 1024


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Path:
    parts, folder = KitParts(FIRST, SECOND), tmp_path_factory.mktemp("public")
    for name, content in {
        f"3.2/{NAME}": parts.pack(),
        "upgrades/3.1.json": signer.describe(parts, parts.pack(), datetime.now(UTC)),
        "upgrades/3.2.json": signer.state("3.2", "3.2", now=datetime.now(UTC)),
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


class Client:
    """The file in a folder of its own, and a PATH with gpgv alone."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        gpgv = shutil.which("gpgv")
        assert gpgv
        (self.bin / "gpgv").symlink_to(gpgv)
        (folder / "upgrade.pyz").write_bytes(upgrade_client())
        (folder / "release.asc").write_bytes(signer.home.export(signer.fingerprint, "--armor"))

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", "upgrade.pyz", *arguments],
            cwd=self.folder,
            env={"PATH": str(self.bin), "HOME": str(self.folder), "NETRC": "/dev/null"},
            text=True,
            capture_output=True,
            check=False,
        )


@pytest.fixture
def client(tmp_path: Path, signer: Signer) -> Client:
    (tmp_path / "client").mkdir()
    return Client(tmp_path / "client", signer)


def test_from_check_to_rollback(client: Client, public: Path, stick: Stick) -> None:
    trust = ("--keyring", "release.asc")
    with archive_server(public) as server:
        asked = ("--image", "mini", "--from", "3.1", "--url", server.url, *trust)
        check, fetch = client("check", *asked), client("fetch", *asked, "--directory", "kits")
    applying = ("apply", "--kit", f"kits/{NAME}", "--target", str(stick.path), *trust)
    apply, again = client(*applying), client(*applying)
    back = client("rollback", "--target", str(stick.path))
    done = [check, fetch, apply, again, back]
    assert [one.returncode for one in done] == [0] * 5, [one.stderr for one in done]
    assert check.stdout.startswith("3.1 can be upgraded to 3.2: 3.2/mini-amd64-3.1-to-3.2.iuk")
    assert [one.stdout.partition("; it was read back")[0].strip() for one in done[1:]] == [
        f"fetched: kits/{NAME}",
        "3.2 is installed and boots from now on; 3.1 is still there",
        "3.2 is installed already: nothing to do",
        f"{stick.path} boots 3.1 now; 3.2 is still there",
    ]
    steps = [f"verifying {NAME} …", "verifying the target …", "writing and reading back …"]
    assert apply.stderr.splitlines() == steps
    stick.check()


def test_exit_statuses(client: Client, public: Path, stick: Stick, stranger: Signer) -> None:
    (client.folder / "other.asc").write_bytes(stranger.trust.keyring)
    shutil.copytree(public / "3.2", client.folder / "kits")
    (client.folder / "kits" / f"{NAME}.json").write_bytes(
        (public / "upgrades/3.1.json").read_bytes()
    )
    (client.folder / "kits" / NAME).write_bytes(b"no kit")
    with archive_server(public) as server:
        asked = ("--image", "mini", "--url", server.url)
        target = ("--kit", f"kits/{NAME}", "--target", str(stick.path))
        for status, words, arguments in (
            (0, "nothing to fetch", ("fetch", *asked, "--from", "3.2", "--keyring", "release.asc")),
            (2, "usage: upgrade.pyz", ("update",)),
            (2, "required: --keyring", ("check", *asked, "--from", "3.1")),
            (2, "no release before 3.1", ("rollback", "--target", str(stick.path))),
            (4, "cannot tell", ("check", *asked, "--from", "9", "--keyring", "release.asc")),
            (5, "not a sound kit", ("apply", *target, "--keyring", "release.asc")),
            (6, "not signed by a", ("check", *asked, "--from", "3.1", "--keyring", "other.asc")),
        ):
            done = client(*arguments)
            assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
            assert words in done.stdout + done.stderr


def test_without_gpgv(client: Client, public: Path) -> None:
    (client.bin / "gpgv").unlink()
    with archive_server(public) as server:
        done = client(
            *("check", "--image", "mini", "--from", "3.1", "--url", server.url),
            *("--keyring", "release.asc"),
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the program gpgv is not installed; apt-get install gpgv\n"


def test_remedies_name_commands_of_this_file(client: Client, stick: Stick) -> None:
    done = client("apply", "--kit", "x", "--target", str(stick.path), "--keyring", "release.asc")
    assert done.returncode == 6
    assert "python3 upgrade.pyz fetch gets kit and description" in done.stderr


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["--help"])
    shown = capsys.readouterr().out
    for command in ("check", "fetch", "apply", "rollback"):
        assert f"python3 upgrade.pyz {command} --" in shown
    assert "exit status:\n  0  " in shown


def test_an_older_python_ends_with_one_line() -> None:
    code = "import sys; sys.version_info = (3, 10); exec(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, START.decode()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: upgrade.pyz needs Python 3.11 or later\n"


def test_it_is_made_alike_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    made = upgrade_client()
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert upgrade_client() == made
    assert len(made) < SIZE_LIMIT
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        names = archive.namelist()
    assert names == sorted(names)
    assert "pipeline/documents/lock.py" not in names
