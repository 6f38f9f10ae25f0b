# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are read only where nobody else can read or replace them."""

import os
from pathlib import Path

import pytest

from pipeline.base import dsse, private_file
from pipeline.base.errors import SignatureInvalid

MODES = [0o666, 0o644, 0o640, 0o620, 0o602, 0o604, 0o601, 0o677]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "own" / "secret"
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(b"secret")
    return path


def test_a_private_file_is_read(secret: Path) -> None:
    assert private_file.read(secret, "the key") == b"secret"
    link = secret.with_name("link")
    link.symlink_to(secret)
    assert private_file.read(link, "the key") == b"secret"


@pytest.mark.parametrize("mode", MODES)
def test_a_file_that_others_can_use_is_refused(secret: Path, mode: int) -> None:
    """The attacker has another account on this machine and reads, or changes, the key file."""
    secret.chmod(mode)
    with pytest.raises(SignatureInvalid, match=rf"mode {mode:04o}.*; chmod 600"):
        private_file.read(secret, "the key")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o720])
def test_a_folder_that_others_can_write_into_is_refused(secret: Path, mode: int) -> None:
    """The attacker has another account on this machine and puts a key of theirs in its place."""
    secret.parent.chmod(mode)
    with pytest.raises(SignatureInvalid, match=r"others can write into .*; chmod go-w"):
        private_file.read(secret, "the key")
    link = secret.parent.with_name("link")
    link.symlink_to(secret)  # its own folder is private
    with pytest.raises(SignatureInvalid, match="others can write into"):
        private_file.read(link, "the key")
    with pytest.raises(SignatureInvalid, match="others can write into"):
        dsse.make_key(secret.parent / "new.pem")
    assert not (secret.parent / "new.pem").exists()


def test_a_shared_folder_with_the_sticky_bit_is_as_good_as_ones_own(secret: Path) -> None:
    secret.parent.chmod(0o1777)
    assert private_file.read(secret, "the key") == b"secret"


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a path belong to another user than the one who runs."""
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 65534)


@pytest.mark.parametrize("which", ["file", "link", "folder"])
def test_what_belongs_to_another_user_is_refused(
    which: str, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attacker has another account and chose the file, the link to it or its folder."""
    link = tmp_path / "link"
    link.symlink_to(secret)
    give_away({"file": secret, "link": link, "folder": secret.parent}[which], monkeypatch)
    with pytest.raises(SignatureInvalid, match="belongs to another user"):
        private_file.read(link, "the key")


def test_what_is_no_plain_file_is_refused_without_waiting(secret: Path) -> None:
    pipe, loop = secret.with_name("pipe"), secret.with_name("loop")
    os.mkfifo(pipe, 0o600)
    loop.symlink_to(loop)
    with pytest.raises(SignatureInvalid, match="not a plain file"):
        private_file.read(pipe, "the key")
    with pytest.raises(SignatureInvalid, match="Is a directory"):
        private_file.read(secret.parent, "the key")
    with pytest.raises(SignatureInvalid, match="cannot read the key"):
        private_file.read(loop, "the key")
    with pytest.raises(SignatureInvalid, match=r"cannot read .*No such file.*; mend it"):
        private_file.read(secret.with_name("none"), "the key", remedy="mend it")
    with pytest.raises(SignatureInvalid, match="larger than 3 bytes"):
        private_file.read(secret, "the key", limit=3)


def test_an_environments_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The attacker has another account on the build machine and signs as the environment."""
    path = tmp_path / "keys" / "alpha.pem"
    dsse.make_key(path)
    dsse.load_key(path)
    path.chmod(0o666)
    with pytest.raises(SignatureInvalid, match="mode 0666"):
        dsse.load_key(path)
