# SPDX-License-Identifier: GPL-3.0-or-later
"""Adds the packages that an image brings itself to the repository that it is bootstrapped from.

They become a component of their own there, beside that of the locked packages, with an index made
from the files themselves.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pipeline.documents.apt_release import release_file
from pipeline.documents.digest import sha256_file
from pipeline.documents.disks import LOCAL, MAIN, REPOSITORY
from pipeline.documents.job import LocalPackage
from pipeline.documents.progress import STATUS_BUILD_FAILED, STATUS_INPUTS
from pipeline.guest import tree
from pipeline.guest.job import GuestJob
from pipeline.guest.programs import output_of
from pipeline.guest.serial_port import StepFailed

SHOW = "--showformat=${Package} ${Version} ${Architecture}\n"
ADDED = ("Filename", "Size", "SHA256")  # fields that the index adds to a package's own
DEPENDS = ("Pre-Depends", "Depends")


def offer(job: GuestJob) -> tuple[LocalPackage, ...]:
    """Add the image's own packages to the repository that it is bootstrapped from; return them.

    Raise StepFailed for a package that is not as the job says, or whose dependencies are missing.
    """
    if not job.document.own.packages:
        return ()
    repository = job.work / REPOSITORY
    dists = repository / "dists" / job.document.suite
    paragraphs = [
        _paragraph(job, package, repository / "pool") for package in job.document.own.packages
    ]
    _check_depends(job, paragraphs, dists)
    _write(_index(job, dists, LOCAL), "\n".join(paragraphs))
    _write_release(job, dists)
    return job.document.own.packages


def installed(job: GuestJob) -> list[str]:
    """Return the lines for `.packages` of those of the image's own packages that are installed."""
    found = tree.installed(job.tree)
    return [
        f"{p.name} {p.version} {p.architecture} {sha256_file(_file(job, p))}\n"
        for p in job.document.own.packages
        if (p.name, p.version, p.architecture) in found
    ]


def check_identity(package: LocalPackage, path: Path, blame: str) -> None:
    """Raise StepFailed if a file is not the package that the job says."""
    found = output_of(["dpkg-deb", "--show", SHOW, os.fspath(path)], os.environ)
    wanted = f"{package.name} {package.version} {package.architecture}"
    if found != wanted:
        what = f"{blame}: {path.name} says that it is {found!r}, not {wanted!r}"
        raise StepFailed(STATUS_BUILD_FAILED, what)


def _file(job: GuestJob, package: LocalPackage) -> Path:
    """Return the path of a package: among the artifacts if it is built, else in the commit."""
    if package.file:
        return job.image_folder / "packages.chroot" / package.file
    return job.artifacts / package.file_name


def _paragraph(job: GuestJob, package: LocalPackage, pool: Path) -> str:
    """Add a package to the pool; return its paragraph for the index."""
    path, target = _file(job, package), pool / package.file_name
    sha256 = sha256_file(path)
    if package.sha256 not in (None, sha256):
        what = f"packages.chroot/{path.name} is not the one that the job names"
        raise StepFailed(STATUS_INPUTS, what)
    check_identity(package, path, path.parent.name)
    pool.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    target.chmod(0o644)
    argv = ["dpkg-deb", "--field", os.fspath(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    own = [line for line in done.stdout.split("\n") if not line.startswith(ADDED)]
    control = "".join(f"{line}\n" for line in own if line.strip())
    size = target.stat().st_size
    return f"{control}Filename: pool/{target.name}\nSize: {size}\nSHA256: {sha256}\n"


def _check_depends(job: GuestJob, paragraphs: Iterable[str], dists: Path) -> None:
    """Raise StepFailed for the first wanted package with a dependency that nothing satisfies.

    The lock was made from `debian/control` alone; only the build finds the shared libraries.
    """
    own = [_fields(paragraph) for paragraph in paragraphs]
    main = _index(job, dists, MAIN).read_text().split("\n\n")
    there = {name for fields in (*own, *map(_fields, main)) for name in _offered(fields)}
    wanted = {package.name for package in job.document.own.packages if package.wanted}
    for fields in own:
        for relation in ",".join(fields.get(key, "") for key in DEPENDS).split(","):
            if (
                fields["Package"] in wanted
                and relation.strip()
                and not there & set(_names(relation))
            ):
                name = next(iter(_names(relation)))
                raise StepFailed(
                    STATUS_BUILD_FAILED,
                    f"{fields['Package']} depends on {relation.strip()}, which the lock does not"
                    f" have; add {name} to a package list of the image and write its lock anew",
                )


def _fields(paragraph: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in paragraph.split("\n") if ": " in line)


def _offered(fields: Mapping[str, str]) -> Iterator[str]:
    """Yield the names by which dependencies can name a package."""
    yield fields.get("Package", "")
    for provided in fields.get("Provides", "").split(","):
        yield from _names(provided)


def _names(relation: str) -> list[str]:
    """Return the package names in a relation's alternatives, without versions and qualifiers."""
    return [re.split(r"[ :(]", words.strip())[0] for words in relation.split("|")]


def _index(job: GuestJob, dists: Path, component: str) -> Path:
    return dists / component / f"binary-{job.document.architecture}" / "Packages"


def _write(path: Path, text: str) -> None:
    """Write a file that apt's own user can read, whatever the umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for made in (path.parent.parent, path.parent):
        made.chmod(0o755)
    path.chmod(0o644)


def _write_release(job: GuestJob, dists: Path) -> None:
    """Write the repository's Release file, unsigned, as each package was hashed before."""
    suite, architecture = job.document.suite, job.document.architecture
    indices = sorted(dists.glob(f"*/binary-{architecture}/Packages"))
    hashed = {
        os.fspath(path.relative_to(dists)): (sha256_file(path), path.stat().st_size)
        for path in indices
    }
    _write(dists / "Release", release_file(suite, architecture, hashed))
