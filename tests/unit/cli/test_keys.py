# SPDX-License-Identifier: GPL-3.0-or-later
"""`./farm keys` from nothing, from a key that is there, again, and against what is in the way."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.base import dsse
from pipeline.base.errors import SignatureInvalid, UsageError
from pipeline.cli import keys
from pipeline.farm import ready, signers
from pipeline.farm.workspace import open_workspace
from tests.gpg_home import GpgHome, made_home, newcomers_home

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[3]
NAME = "Kiosk releases <releases@example.org>"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpgHome]:
    """The gpg home of somebody who has never released anything."""
    with newcomers_home(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "farm"
    folder.mkdir()
    shutil.copy(ROOT / "farm.yaml", folder)
    git(folder, "init", "--quiet")
    return folder


def git(folder: Path, *arguments: str) -> str:
    argv = ["git", "-C", str(folder), *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def set_up(
    checkout: Path, name: str | None = None, release: str | None = None
) -> tuple[keys.ToBackUp, list[str]]:
    messages: list[str] = []
    return keys.set_up(open_workspace(checkout), name, release, messages.append), messages


def snapshot(*folders: Path) -> dict[Path, bytes]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if "sockets" not in str(path)}


def test_from_nothing_to_a_release_key_and_again(
    home: GpgHome, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, messages = set_up(checkout, NAME)
    workspace = open_workspace(checkout)
    pinned = workspace.farm.keys
    assert pinned.release == kept.release == home.fingerprint(NAME)
    assert pinned.tags.signers == [kept.release]
    assert {n: dsse.public_hex(dsse.load_key(p)) for n, p in kept.environments.items()} == (
        pinned.environments
    )
    assert git(checkout, "config", "--local", "user.signingKey") == kept.release
    assert any("a trial signature is good" in line for line in messages)
    assert "git signs tags as" in messages[-1]

    # what it claims is what doctor and a release find
    monkeypatch.setattr(ready, "FREE_DISK_GIB", 0)
    ready.check_release(workspace, tag="3.3", notify=lambda _: None)
    signers.usable(pinned.tags, checkout / "keys")
    advice = "\n".join(keys.what_to_back_up(kept))
    for part in (f"--export-secret-keys {kept.release}", f"{kept.release}.rev", "alpha.pem"):
        assert part in advice

    before = snapshot(checkout, tmp_path / "home")
    again, _ = set_up(checkout, NAME)
    assert again == kept
    assert set_up(checkout)[0] == kept
    assert set_up(checkout, release=kept.release.lower())[0] == kept
    assert snapshot(checkout, tmp_path / "home") == before
    assert len(home.text("--with-colons", "-K").split("sec:")) == 2


def test_a_key_that_gpg_has_is_taken_as_gpg_prints_it(home: GpgHome, checkout: Path) -> None:
    fingerprint = home.make("Mine")
    grouped = " ".join(fingerprint[i : i + 4] for i in range(0, 40, 4))
    kept, _ = set_up(checkout, release=grouped.lower())
    assert kept.release == open_workspace(checkout).farm.keys.release == fingerprint


def test_what_was_interrupted_goes_on_with_the_same_keys(home: GpgHome, checkout: Path) -> None:
    fingerprint = home.make(NAME)
    public = dsse.make_key(dsse.key_path("alpha"))
    kept, _ = set_up(checkout, NAME)
    assert kept.release == fingerprint
    assert open_workspace(checkout).farm.keys.environments["alpha"] == public


def test_a_passphrase_protects_the_new_key(
    home: GpgHome, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_text("correct horse\n")
    monkeypatch.setenv("TWINBUILD_RELEASE_PASSPHRASE_FILE", str(path))
    workspace = open_workspace(checkout)
    messages: list[str] = []
    with pytest.raises(SignatureInvalid, match="git cannot sign tags"):  # nobody to ask here
        keys.set_up(workspace, NAME, None, messages.append)
    assert any("release key" in line and "trial signature is good" in line for line in messages)
    monkeypatch.delenv("TWINBUILD_RELEASE_PASSPHRASE_FILE")
    with pytest.raises(SignatureInvalid, match="no terminal or screen"):
        set_up(checkout)


@pytest.mark.parametrize(
    ("name", "release", "what"),
    [
        (None, None, "names no release key; --name"),
        (NAME, "A" * 40, "give one of them"),
        (None, "0123456789ABCDEF", "a key id is not enough"),
        ("two\nlines", None, "cannot be the user id"),
    ],
)
@pytest.mark.usefixtures("home")
def test_wrong_usage(name: str | None, release: str | None, what: str, checkout: Path) -> None:
    before = snapshot(checkout)
    with pytest.raises(UsageError, match=what):
        set_up(checkout, name, release)
    assert snapshot(checkout) == before


def test_a_key_that_cannot_sign_changes_nothing(home: GpgHome, checkout: Path) -> None:
    before = snapshot(checkout)
    for fingerprint in ("A" * 40, home.make("Old", now="20200101T000000")):
        with pytest.raises(SignatureInvalid, match=r"no secret key|has expired"):
            set_up(checkout, release=fingerprint)
    assert snapshot(checkout) == before
    assert not dsse.key_path("alpha").exists()


def test_nothing_is_replaced(home: GpgHome, checkout: Path) -> None:
    first, second = home.make("First"), home.make("Second")
    public = checkout / "keys/release.asc"
    public.parent.mkdir()
    public.write_text(home.text("--armor", "--export", second))
    before = snapshot(checkout)
    with pytest.raises(UsageError, match=r"release\.asc has another key, which stays"):
        set_up(checkout, release=first)
    assert snapshot(checkout) == before
    public.unlink()
    set_up(checkout, release=first)
    before = snapshot(checkout)
    with pytest.raises(UsageError, match=f"names another release key, {first}, which stays"):
        set_up(checkout, release=second)
    dsse.key_path("beta").unlink()
    dsse.make_key(dsse.key_path("beta"))
    with pytest.raises(UsageError, match="not the key that farm"):
        set_up(checkout)
    assert snapshot(checkout) == before


def test_a_renewed_key_is_published_again(home: GpgHome, checkout: Path) -> None:
    kept, _ = set_up(checkout, release=home.make("Mine"))
    home.gpg("--quick-set-expire", kept.release, "3y")
    _, messages = set_up(checkout)
    assert f"{checkout}/keys/release.asc: brought up to date" in messages


def test_signers_and_settings_of_others_stay(home: GpgHome, checkout: Path) -> None:
    release, other = home.make("Release"), home.make("Other")
    (checkout / "keys").mkdir()
    (checkout / "keys/other.asc").write_text(home.text("--armor", "--export", other))
    farm = (checkout / "farm.yaml").read_text()
    (checkout / "farm.yaml").write_text(farm.replace("signers: []", f"signers: [{other}]"))
    _, messages = set_up(checkout, release=release)
    assert open_workspace(checkout).farm.keys.tags.signers == [other]
    assert "tags are signed elsewhere" in messages[-1]
    assert "signingkey" not in (checkout / ".git/config").read_text().lower()
    git(checkout, "config", "user.signingKey", other)
    _, messages = set_up(checkout)
    assert messages[-1] == f"git signs tags as {other}; a trial signature is good"


def test_a_signer_without_a_key_does_not_stand_in_the_way(home: GpgHome, checkout: Path) -> None:
    farm = (checkout / "farm.yaml").read_text()
    placeholder = "0123456789ABCDEF0123456789ABCDEF01234567"
    (checkout / "farm.yaml").write_text(farm.replace("signers: []", f"signers: [{placeholder}]"))
    kept, _ = set_up(checkout, release=home.make("Mine"))
    assert open_workspace(checkout).farm.keys.tags.signers == [placeholder, kept.release]


def test_who_signs_by_ssh_goes_on_to(home: GpgHome, checkout: Path, tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", str(path)]
    subprocess.run(make, check=True)
    public = path.with_suffix(".pub").read_text().strip()
    farm = (checkout / "farm.yaml").read_text()
    listed = f"signers: []\n    ssh: [{public}]"
    (checkout / "farm.yaml").write_text(farm.replace("signers: []", listed))
    git(checkout, "config", "gpg.format", "ssh")
    git(checkout, "config", "user.signingKey", f"{path}.pub")
    _, messages = set_up(checkout, release=home.make("Mine"))
    assert open_workspace(checkout).farm.keys.tags.signers == []
    assert "git signs tags as SHA256:" in messages[-1]


def test_a_key_in_a_file_is_taken_and_git_left_alone(
    home: GpgHome, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = home.make("Elsewhere")
    path = tmp_path / "secret.asc"
    path.touch(mode=0o600)
    path.write_text(home.text("--armor", "--export-secret-keys", fingerprint))
    with made_home() as empty:
        monkeypatch.setenv("GNUPGHOME", str(empty.path))
        monkeypatch.setenv("TWINBUILD_RELEASE_KEY", str(path))
        with pytest.raises(UsageError, match="so none is made"):
            set_up(checkout, NAME)
        kept, messages = set_up(checkout, release=fingerprint)
        assert kept.release == fingerprint
        assert "the release key is not there" in messages[-1]
        assert "signingkey" not in (checkout / ".git/config").read_text().lower()


def test_keygen_knows_the_farms_environments(home: GpgHome, checkout: Path) -> None:
    farm = open_workspace(checkout).farm
    for name in ("gamma", "--help", "../alpha"):
        with pytest.raises(UsageError, match=r"has no environment .*; it has alpha, beta"):
            keys.make_environment_key(farm, name)
    path, public = keys.make_environment_key(farm, "alpha")
    assert dsse.public_hex(dsse.load_key(path)) == public
    assert [file.name for file in path.parent.iterdir()] == ["alpha.pem"]


def test_a_renewal_key_lies_apart_from_the_environments(home: GpgHome, checkout: Path) -> None:
    path, public = keys.make_renewal_key()
    assert path == dsse.renewal_key_path()
    assert path.parent != dsse.key_path("renewal").parent
    assert dsse.public_hex(dsse.load_key(path)) == public
    with pytest.raises(UsageError, match="there is a key"):
        keys.make_renewal_key()
