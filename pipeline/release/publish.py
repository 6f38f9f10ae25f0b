"""Publication: `public/<tag>/` appears by one rename, and only what an outsider can verify does.

Before the rename, and again for a release that is there already, `verify.py` checks the folder as
anyone would: with a keyring that holds just the release key, and with the environments' keys.
"""

import fcntl
import filecmp
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline import command
from pipeline.errors import Differs, InfrastructureFailed, SignatureInvalid, TwinbuildError
from pipeline.files import new_file, write_bytes, write_pieces
from pipeline.release.assemble import MANIFEST, SIGNATURE, manifest_names
from pipeline.release.index import write_index
from pipeline.release.upgrades import FOLDER

VERIFIER = Path(__file__).resolve().parents[2] / "verify.py"
VERIFIER_TIMEOUT_S = 3600.0
PIECE = 1024 * 1024
TEMPORARY = ".publishing-"
BESIDE = ("index.json", "index.html", VERIFIER.name)
FAILURES: Mapping[int, type[TwinbuildError]] = {1: Differs, 6: SignatureInvalid}


@dataclass(frozen=True)
class Trust:
    """What a release is verified against: the release key and those of the environments."""

    fingerprint: str
    keyring: bytes
    environments: Mapping[str, str]


def publish(release: Path, tag: str, public: Path, trust: Trust) -> bool:
    """Publish a release folder as `public/<tag>`; tell whether it was not there before.

    Raise Differs if another release stands there; whatever happens, the old state stays or the
    new one is complete.
    """
    public.mkdir(parents=True, exist_ok=True)
    with alone(public):
        _clean(public)
        target = public / tag
        new = not os.path.lexists(target)
        if new:
            _publish(release, target, trust)
        else:
            _check_identical(release, target)
            verify(public, tag, trust)
        if not _same(VERIFIER, public / VERIFIER.name):
            write_bytes(public / VERIFIER.name, VERIFIER.read_bytes())
        write_index(public)
    return new


def verify(url_root: Path, tag: str, trust: Trust) -> None:
    """Run `verify.py` over every file of `<url_root>/<tag>`; raise the error that it found."""
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
            why = "; ".join(json.loads(done.text)["errors"])
        except (ValueError, KeyError, TypeError):
            why = "verify.py broke down"
        failure = FAILURES.get(done.status, InfrastructureFailed)
        raise failure(f"the release {tag} does not verify: {why}", detail=done.tail)


def _clean(public: Path) -> None:
    """Remove what a publisher that died has left."""
    for folder in public.glob(f"{TEMPORARY}*"):
        shutil.rmtree(folder)
    for name in BESIDE:
        for file in public.glob(f".{name}.*"):
            file.unlink()
    for file in public.glob(f"{FOLDER}/.*"):
        file.unlink()


def _publish(release: Path, target: Path, trust: Trust) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target.parent))
    try:
        copy = temporary / target.name
        for name in _files(release):
            _copy(release / name, copy / name)
        for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
            sync_folder(folder)
        verify(temporary, target.name, trust)
        copy.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _files(release: Path) -> list[str]:
    """Return what a release folder publishes: the manifest, its signature, and what it names."""
    try:
        return [MANIFEST, SIGNATURE, *manifest_names((release / MANIFEST).read_bytes())]
    except OSError as error:
        raise InfrastructureFailed(f"cannot read {release}: {error.strerror}") from error


def _copy(source: Path, target: Path) -> None:
    """Copy a plain file of any size, in pieces; it is on the disk when this returns."""
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as content, new_file(target) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Differs(f"{source} is not a plain file")
        write_pieces(file, iter(lambda: content.read(PIECE), b""))


def _check_identical(release: Path, target: Path) -> None:
    """Raise Differs unless `target` has the same files; a signature may have been made anew."""
    expected = set(_files(release))
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


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other publishers out of the folder; the lock ends with the process at the latest."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
