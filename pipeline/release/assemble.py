# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder `release/` of a run: everything that is published, with a signed manifest."""

import os
import shutil
import tempfile
from pathlib import Path

from pipeline.base import openpgp
from pipeline.base.errors import Differs
from pipeline.base.files import sha256_bytes, write_bytes
from pipeline.base.openpgp import Gpg
from pipeline.documents.manifest import Manifest
from pipeline.farm.run import Run
from pipeline.release.checks import CheckedRun
from pipeline.release.statements import is_plain_file

MANIFEST = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.asc"
STAGING = ".release-"


def assemble(run: Run, checked: CheckedRun, gpg: Gpg, fingerprint: str) -> list[Path]:
    """Make `release/` again and return its files; it appears only once complete and signed."""
    for left_over in run.folder.glob(f"{STAGING}*"):
        shutil.rmtree(left_over)
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=run.folder))
    try:
        digests = _collect(run, checked, staging)
        write_bytes(staging / MANIFEST, Manifest(digests).content())
        openpgp.sign(gpg, fingerprint, staging / MANIFEST)
        staging.chmod(0o755)
        if run.release.exists():
            shutil.rmtree(run.release)
        staging.rename(run.release)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return [run.release / name for name in (*digests, MANIFEST, SIGNATURE)]


def _collect(run: Run, checked: CheckedRun, staging: Path) -> dict[str, str]:
    """Fill the staging folder; return the digests by relative path.

    The digests are those that were checked: a file that is changed later fails verification.
    """
    digests: dict[str, str] = dict(checked.artifacts)
    first = run.environment(checked.environments[0])
    for name in checked.artifacts:
        _link(first / "artifacts" / name, staging / name)
    for environment, stated in checked.statements.items():
        folder = run.environment(environment)
        for name, digest in stated.byproducts.items():
            _link(folder / name, staging / environment / name)
            digests[f"{environment}/{name}"] = digest
    for name, content in checked.documents.items():
        write_bytes(staging / name, content)
        digests[name] = sha256_bytes(content)
    return digests


def _link(source: Path, target: Path) -> None:
    """Hard-link a regular file, or copy it where that is not possible."""
    if not is_plain_file(source):
        raise Differs(f"{source} was changed after the build", remedy="build again")
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)
