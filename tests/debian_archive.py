# SPDX-License-Identifier: GPL-3.0-or-later
"""Small real Debian archives: packages by dpkg-deb, indices by hand, a throw-away signing key."""

import hashlib
import lzma
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

DAY = timedelta(days=1)


@dataclass(frozen=True)
class SigningKey:
    """An OpenPGP key in a home of its own, and the keyring that holds its public half."""

    home: Path
    fingerprint: str

    @property
    def keyring(self) -> Path:
        return self.home / "keyring.gpg"

    def gpg(self, *arguments: str, stdin: bytes = b"") -> bytes:
        argv = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        return subprocess.run(
            [*argv, *arguments],
            env={**os.environ, "GNUPGHOME": str(self.home)},
            input=stdin,
            capture_output=True,
            check=True,
        ).stdout

    def clearsign(self, text: bytes, *options: str) -> bytes:
        return self.gpg(*options, "--local-user", self.fingerprint, "--clearsign", stdin=text)

    def stop(self) -> None:
        subprocess.run(
            ["gpgconf", "--kill", "all"],
            env={**os.environ, "GNUPGHOME": str(self.home)},
            check=True,
        )


def make_key(home: Path, *options: str, expires: str = "never") -> SigningKey:
    """Make a key in the new folder `home`, whose path must be short."""
    home.mkdir(mode=0o700)
    maker = SigningKey(home, "")
    maker.gpg(
        *options, "--quick-gen-key", "Test archive <test@example.org>", "ed25519", "sign", expires
    )
    listed = maker.gpg("--with-colons", "--list-keys").decode()
    fingerprint = next(row.split(":")[9] for row in listed.splitlines() if row.startswith("fpr"))
    key = SigningKey(home, fingerprint)
    key.keyring.write_bytes(key.gpg("--export"))
    return key


@dataclass
class DebianArchive:
    """An archive below `root`, with one suite; `publish` writes what `add` gathered."""

    root: Path
    key: SigningKey
    suite: str = "trixie"
    paragraphs: dict[str, str] = field(default_factory=dict)

    @property
    def dists(self) -> Path:
        return self.root / "dists" / self.suite

    def add(self, name: str, version: str = "1.0", *, content: str = "", **fields: str) -> Path:
        """Build a package and have the index name it; `fields` are more of its control fields."""
        control = {
            "Package": name,
            "Version": version,
            "Architecture": "all",
            "Maintainer": "Test archive <test@example.org>",
            "Description": f"test package {name}{content}",
            **{key.replace("_", "-"): value for key, value in fields.items()},
        }
        text = "".join(f"{key}: {value}\n" for key, value in control.items())
        tree = self.root / ".build" / f"{name}-{version}"
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        (tree / "DEBIAN" / "control").write_text(text)
        shown = version.partition(":")[2] or version
        filename = f"pool/main/{name[0]}/{name}/{name}_{shown}_{control['Architecture']}.deb"
        path = self.root / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, path],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        shutil.rmtree(self.root / ".build")
        deb = path.read_bytes()
        added = f"Filename: {filename}\nSize: {len(deb)}\nSHA256: {sha256(deb)}\n"
        self.paragraphs[f"{name} {version}"] = text + added
        return path

    def publish(
        self,
        *,
        date: datetime | None = None,
        valid_for: timedelta | None = 7 * DAY,
        key: SigningKey | None = None,
        sign_options: tuple[str, ...] = (),
        **fields: str,
    ) -> None:
        """Write indices and a signed InRelease."""
        date = date or datetime.now(UTC)
        indices = {
            "main/binary-amd64/Packages": "\n".join(self.paragraphs.values()).encode(),
            "main/i18n/Translation-en": b"",
        }
        rows = []
        for path, content in indices.items():
            packed = lzma.compress(content, preset=0)
            _write(self.dists / f"{path}.xz", packed)
            _write((self.dists / path).parent / "by-hash" / "SHA256" / sha256(packed), packed)
            rows.append(f" {sha256(packed)} {len(packed)} {path}.xz\n")
            rows.append(f" {sha256(content)} {len(content)} {path}\n")
        head = {
            "Origin": "Test",
            "Suite": "stable",
            "Codename": self.suite,
            "Date": format_datetime(date, usegmt=True),
            "Valid-Until": format_datetime(date + valid_for, usegmt=True) if valid_for else "",
            "Acquire-By-Hash": "yes",
            "No-Support-for-Architecture-all": "Packages",
            "Architectures": "all amd64",
            "Components": "main",
            **{key.replace("_", "-"): value for key, value in fields.items()},
        }
        text = "".join(f"{name}: {value}\n" for name, value in head.items() if value)
        signed = (key or self.key).clearsign(
            f"{text}SHA256:\n{''.join(rows)}".encode(), *sign_options
        )
        _write(self.dists / "InRelease", signed)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
