# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the packages that an image brings itself, from source.

dpkg-buildpackage builds the source packages one after the other, as an ordinary user, in a tree of
their own that has exactly the packages that the lock names for it. The results are artifacts.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.documents.disks import BUILD, SOURCES
from pipeline.documents.job import LocalSource
from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.documents.steps import BUILD_FOLDER
from pipeline.guest import tree
from pipeline.guest.job import GuestJob, lock_of
from pipeline.guest.local_archive import check_identity
from pipeline.guest.serial_port import Report, StepFailed

USER = 1000  # uid of the building user, and gid of its group
DAY = 86400


def make_build_root(job: GuestJob, report: Report, env: Mapping[str, str]) -> None:
    """Install the locked packages that the image's own ones are built with, and add the user."""
    locked = lock_of(job, "build")
    root = _root(job)
    tree.install(job, report, env, root, locked, [BUILD])
    tree.check_installed(root, locked, locked)
    user = job.machine.factors.user
    for name, line in (
        ("etc/passwd", f"{user}:x:{USER}:{USER}::/home/{user}:/bin/sh\n"),
        ("etc/group", f"{user}:x:{USER}:\n"),
    ):
        with (root / name).open("a") as file:
            file.write(line)
    home = root / "home" / user
    home.mkdir(mode=0o755)
    _hand_to_user(home)


def build(
    job: GuestJob, report: Report, env: Mapping[str, str], source: LocalSource
) -> dict[str, Path]:
    """Build a source package; return its packages, which are among the artifacts.

    Raise StepFailed if that fails, or if it makes other packages than the job names.
    """
    name, upstream = source.name, _upstream(source.version)
    outside = _root(job) / BUILD_FOLDER / job.machine.factors.build_path.strip("/") / name
    folder = outside / f"{name}-{upstream}"
    outside.mkdir(parents=True)
    for above in (outside, *outside.parents):
        if above.is_relative_to(_root(job)):
            above.chmod(0o755)  # the user must be able to enter, whatever the umask
    # dpkg takes SOURCE_DATE_EPOCH from the changelog, so that a package does not depend on commits.
    given = {key: value for key, value in env.items() if key != "SOURCE_DATE_EPOCH"}
    _lay_out(job, report, given, source, folder)
    options = f"noautodbgsym parallel={os.cpu_count() or 1}"
    with _clock_after(source.epoch, report):
        _run(
            job,
            report,
            {**given, "DEB_BUILD_OPTIONS": options},
            ["dpkg-buildpackage", "--build=binary", "--no-sign"],
            folder,
        )
    made = _deliver(job, name, outside)
    shutil.rmtree(outside)
    return made


def _lay_out(
    job: GuestJob, report: Report, env: Mapping[str, str], source: LocalSource, folder: Path
) -> None:
    """Unpack a source package, from the commit or from the files that its .dsc names by hash."""
    outside, packages = folder.parent, job.image_folder / "packages"
    if dsc := source.dsc:
        shutil.copyfile(packages / dsc, outside / dsc)
        for file in source.files:
            fetched = job.work / SOURCES / file.sha256
            shutil.copyfile(fetched, outside / file.name)
        _hand_to_user(outside)
        # Their hashes were checked; the signer of the .dsc is not known here.
        argv = ["dpkg-source", "--no-check", "--extract", dsc, folder.name]
        _run(job, report, env, argv, outside)
    else:
        folder.mkdir()
        tree.include(packages / source.name, folder)
    folder.chmod(0o755)
    _hand_to_user(outside, source.epoch)


def _run(
    job: GuestJob, report: Report, env: Mapping[str, str], argv: Sequence[str], folder: Path
) -> None:
    """Run a program as the building user, in a folder of the tree for building packages."""
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
    user += ["env", f"--chdir=/{folder.relative_to(_root(job))}"]
    blame = f"{argv[0]} in packages/{folder.name}"
    tree.in_chroot(_root(job), report, env, [*user, *argv], blame=blame)


def _root(job: GuestJob) -> Path:
    return job.work / "build-root"


def _upstream(version: str) -> str:
    """Return the upstream part of a version, as in the name of a source's folder."""
    shown = version.partition(":")[2] or version
    return shown.rpartition("-")[0] or shown


def _hand_to_user(top: Path, mtime: int | None = None) -> None:
    """Give a folder and its content to the building user; set all times to `mtime`, if given."""
    for path in [*sorted(top.rglob("*"), reverse=True), top]:
        os.chown(path, USER, USER, follow_symlinks=False)
        if mtime is not None:
            os.utime(path, (mtime, mtime), follow_symlinks=False)


@contextmanager
def _clock_after(epoch: int, report: Report) -> Iterator[None]:
    """Set this machine's clock after a package's last change, `epoch`, if it is not.

    dpkg-deb clamps only times that are later than that: earlier ones, from a clock that is behind,
    would stay.
    """
    if time.time() > epoch:
        yield
        return
    ahead = epoch + DAY - time.time()
    report.log(f"the clock goes {ahead:.0f} s ahead, to be after debian/changelog")
    time.clock_settime(time.CLOCK_REALTIME, time.time() + ahead)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, time.time() - ahead)


def _deliver(job: GuestJob, source: str, folder: Path) -> dict[str, Path]:
    """Move the packages that a build made to the artifacts, if they are what the job names."""
    wanted = {
        package.file_name: package
        for package in job.document.own.packages
        if package.source == source
    }
    made = {path.name: path for path in folder.glob("*.deb") if not path.is_symlink()}
    for name in sorted(wanted.keys() ^ made.keys()):
        what = "was not made, though debian/control and debian/changelog name it"
        if name in made:
            what = "was made, though debian/control and debian/changelog do not name it"
        raise StepFailed(STATUS_BUILD_FAILED, f"packages/{source}: {name} {what}")
    for name, package in wanted.items():
        check_identity(package, made[name], f"packages/{source}")
        os.chown(made[name], 0, 0)
        made[name].chmod(0o644)
        os.rename(made[name], job.artifacts / name)
    return {name: job.artifacts / name for name in sorted(wanted)}
