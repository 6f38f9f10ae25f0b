# SPDX-License-Identifier: GPL-3.0-or-later
"""Publication: `public/<tag>/` appears by one rename, and only if an outsider can verify it.

Before the rename, and also for a release that is published already, `verify.py` checks the folder
as anyone would: with a keyring that has only the release key, and with the environments' keys.
"""

import filecmp
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.base import command, places
from pipeline.base.errors import (
    Differs,
    InfrastructureFailed,
    SignatureInvalid,
    TwinbuildError,
    UsageError,
)
from pipeline.base.files import alone, new_file, open_plain, write_pieces
from pipeline.documents.json_form import parse_json
from pipeline.documents.malformed import Malformed
from pipeline.documents.manifest import Manifest
from pipeline.kits.make import client
from pipeline.published.immutable import refuse_changed
from pipeline.published.published import Location
from pipeline.release.assemble import MANIFEST, SIGNATURE
from pipeline.release.index import read_entries, write_changed, write_index
from pipeline.release.upgrades import FOLDER

VERIFIER = places.PROGRAM / "verify.py"
VERIFIER_TIMEOUT_S = 3600.0
PIECE = 1024 * 1024
TEMPORARY = ".publishing-"
BESIDE = ("index.json", "index.html", VERIFIER.name, client.NAME)
FAILURES: Mapping[int, type[TwinbuildError]] = {1: Differs, 6: SignatureInvalid}


@dataclass(frozen=True)
class ReleaseTrust:
    """The keys that a release is verified with: the release key and those of the environments."""

    fingerprint: str
    keyring: bytes
    environments: Mapping[str, str]


def publish(
    release: Path, tag: str, public: Path, trust: ReleaseTrust, notify: Callable[[str], None]
) -> bool:
    """Publish a release folder as `public/<tag>`; return whether it is new.

    Only one publisher works at a time: `notify` reports if this waits for another. Raise Differs if
    another release has that name. Whatever happens, the tree is in the old state or in the complete
    new one.
    """
    public.mkdir(parents=True, exist_ok=True)
    with alone(public, lambda: notify(f"another process publishes into {public}: waiting")):
        _clean(public)
        read_entries(public)  # it must be possible to write the index later
        target = public / tag
        _refuse_twin(target)
        new = not os.path.lexists(target)
        if new:
            _publish(release, target, trust)
        else:
            _check_identical(release, target)
            verify(public, tag, trust)
        write_changed(public / VERIFIER.name, VERIFIER.read_bytes())
        write_changed(public / client.NAME, client.upgrade_client())
        write_index(public)
    return new


def verify(url_root: Path, tag: str, trust: ReleaseTrust) -> None:
    """Run `verify.py` on all files of `<url_root>/<tag>`; raise the error that it reports."""
    with tempfile.NamedTemporaryFile(suffix=".gpg") as keyring:
        keyring.write(trust.keyring)
        keyring.flush()
        argv = [sys.executable, "-I", os.fspath(VERIFIER), "--json", "--all", "--tag", tag]
        argv += ["--url", url_root.absolute().as_uri(), "--directory", os.fspath(url_root / tag)]
        argv += ["--keyring", keyring.name, "--fingerprint", trust.fingerprint]
        for name, key in trust.environments.items():
            argv += ["--environment-key", f"{name}={key}"]
        done = command.run(argv, timeout_s=VERIFIER_TIMEOUT_S, accept=range(256))
    if done.status != 0:
        try:
            why = "; ".join(parse_json(done.text)["errors"])
        except (ValueError, KeyError, TypeError):
            why = "verify.py broke down"
        failure = FAILURES.get(done.status, InfrastructureFailed)
        raise failure(f"the release {tag} does not verify: {why}", detail=done.tail)


def _clean(public: Path) -> None:
    """Remove the temporary files of a killed publisher."""
    for folder in public.glob(f"{TEMPORARY}*"):
        shutil.rmtree(folder)
    for name in BESIDE:
        for file in public.glob(f".{name}.*"):
            file.unlink()
    for file in public.glob(f"{FOLDER}/.*"):
        file.unlink()


def _publish(release: Path, target: Path, trust: ReleaseTrust) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target.parent))
    try:
        copy = temporary / target.name
        for name, digest in _files(release).items():
            _copy(release / name, copy / name, digest)
        for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
            sync_folder(folder)
        verify(temporary, target.name, trust)
        _read_as_others_will(temporary, target, trust)
        copy.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_twin(target: Path) -> None:
    """Raise UsageError for a name that differs from another one only in case."""
    for other in target.parent.iterdir():
        if other.name != target.name and other.name.casefold() == target.name.casefold():
            raise UsageError(
                f"{other} is there: {target.name} differs from it in upper and lower case alone",
                remedy="choose another tag",
            )


def _read_as_others_will(temporary: Path, target: Path, trust: ReleaseTrust) -> None:
    """Read the release as later releases, kits and the index will; raise what they would raise."""
    release = Location(os.fspath(temporary), trust.keyring, trust.fingerprint).open(target.name)
    if not read_entries(temporary):
        raise InfrastructureFailed(f"the release {target.name} cannot be listed in the index")
    if local := release.job.local:  # others may have been published since the check
        public = Location(os.fspath(target.parent), trust.keyring, trust.fingerprint)
        refuse_changed(public, release.version, local, release.files)


def _files(release: Path) -> dict[str, str | None]:
    """Return the files to publish: the manifest, its signature, and what the manifest names.

    The last have their digests in it, the first two None.
    """
    try:
        manifest = Manifest.of((release / MANIFEST).read_bytes())
    except OSError as error:
        raise InfrastructureFailed(f"cannot read {release}: {error.strerror}") from error
    except Malformed as error:
        raise SignatureInvalid(f"{release} cannot be published: {error}") from error
    return {MANIFEST: None, SIGNATURE: None, **manifest.digests}


def _copy(source: Path, target: Path, digest: str | None) -> None:
    """Copy a regular file of any size, in pieces; it is synced to disk when this returns.

    Raise Differs if a SHA-256 is given and the copied content has another one.
    """
    found = hashlib.sha256()

    def pieces(content: BinaryIO) -> Iterator[bytes]:
        while piece := content.read(PIECE):
            found.update(piece)
            yield piece

    with _plain(source) as content, new_file(target) as file:
        write_pieces(file, pieces(content))
        if digest not in (None, found.hexdigest()):
            raise Differs(
                f"{source} was changed after it was checked: it is not what {MANIFEST} says",
                remedy="build again",
            )


@contextmanager
def _plain(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file; raise Differs if it is missing, a link or of another type."""
    try:
        content = open_plain(path)
    except OSError as error:
        raise Differs(f"{path} is not a file any more: {error.strerror}") from error
    with content:
        yield content


def _check_identical(release: Path, target: Path) -> None:
    """Raise Differs unless `target` has the same files; the signature may have been made again."""
    expected = _files(release).keys()
    present = {str(p.relative_to(target)) for p in target.rglob("*") if not p.is_dir()}
    differing = sorted(expected ^ present) or [
        name for name in sorted(expected - {SIGNATURE}) if not _same(release / name, target / name)
    ]
    if differing:
        raise Differs(
            f"{target} is published already and differs in {differing[0]}",
            remedy="a published release is never replaced: release it under a new tag",
        )


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
