"""The folder `release/` of a run: everything that is published, and the signed manifest over it."""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pipeline import openpgp
from pipeline.errors import InputsUnverified
from pipeline.files import sha256_bytes, sha256_file, write_bytes
from pipeline.openpgp import Gpg
from pipeline.release.checks import Checked
from pipeline.run import Run

MANIFEST = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.asc"
STAGING = ".release-"
LOCK_LIMIT = 64 * 1024 * 1024


def assemble(run: Run, checked: Checked, gpg: Gpg, fingerprint: str) -> list[Path]:
    """Make `release/` anew and return its files; it appears when all of it is there and signed."""
    for left_over in run.folder.glob(f"{STAGING}*"):
        shutil.rmtree(left_over)
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=run.folder))
    try:
        digests = _collect(run, checked, staging)
        write_bytes(staging / MANIFEST, manifest_bytes(digests))
        openpgp.sign(gpg, fingerprint, staging / MANIFEST)
        staging.chmod(0o755)
        if run.release.exists():
            shutil.rmtree(run.release)
        staging.rename(run.release)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return [run.release / name for name in (*digests, MANIFEST, SIGNATURE)]


def manifest_bytes(digests: Mapping[str, str]) -> bytes:
    """Return a manifest in the form of sha256sum: digest, two spaces, relative path; sorted."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


def manifest_names(manifest: bytes) -> list[str]:
    """Return the paths in a manifest that `manifest_bytes` has made."""
    return [line.partition("  ")[2] for line in manifest.decode().splitlines()]


def _collect(run: Run, checked: Checked, staging: Path) -> dict[str, str]:
    """Fill the staging folder; return the digests by relative path, the statements' own first."""
    digests: dict[str, str] = dict(checked.artifacts)
    first = run.environment(checked.environments[0])
    for name in checked.artifacts:
        _link(first / "artifacts" / name, staging / name)
    for environment, stated in checked.statements.items():
        folder = run.environment(environment)
        for name, digest in stated.byproducts.items():
            _link(folder / name, staging / environment / name)
            digests[f"{environment}/{name}"] = digest
        name = f"statements/{environment}.json"
        _link(folder / "statement.json", staging / name)
        digests[name] = sha256_file(staging / name)
    write_bytes(staging / "lock", _lock(run, checked))
    _link(run.verdict_json, staging / "verdict.json")
    digests["lock"] = checked.lock_sha256
    digests["verdict.json"] = sha256_file(staging / "verdict.json")
    return digests


def _link(source: Path, target: Path) -> None:
    """Put a file under a second name, or copy it where the file system cannot."""
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _lock(run: Run, checked: Checked) -> bytes:
    """Return the lock from the exported source, if it is the one that the statements name."""
    member = f"images/live/{checked.image}/lock"
    content = b""
    try:
        with tarfile.open(run.source_tar, "r:") as tar:
            file = tar.extractfile(member)
            content = file.read(LOCK_LIMIT) if file else b""
    except (OSError, KeyError, tarfile.TarError) as error:
        raise InputsUnverified(f"cannot read {member} in {run.source_tar}: {error}") from error
    if sha256_bytes(content) != checked.lock_sha256:
        raise InputsUnverified(
            f"{member} in {run.source_tar} is not the lock that was built from",
            remedy="run the source stage and the builds again",
        )
    return content
