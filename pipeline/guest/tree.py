# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the image's tree: bootstrap, includes, hooks, initramfs, clean-up."""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.documents.disks import LOCAL, MAIN, REPOSITORY
from pipeline.documents.image_folder import IMAGE_PARTS
from pipeline.documents.job import LocalPackage
from pipeline.documents.lock import Package
from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest import locales, squashfs_sort
from pipeline.guest.hook_failure import hook_named
from pipeline.guest.hook_links import check_hook_links
from pipeline.guest.job import GuestJob
from pipeline.guest.ledger import walk
from pipeline.guest.programs import SCRIPT_LIMIT_S, SCRIPT_UMASK, run
from pipeline.guest.serial_port import Report, StepFailed
from pipeline.guest.times import SECOND, Times

Retimed = Callable[[bytes, os.stat_result, os.stat_result], object]

# Otherwise tar warns about each file from the future if the clock is behind, and perl, in each
# script, about a locale without data.
QUIET = {"TAR_OPTIONS": "--warning=no-timestamp", "PERL_BADLANG": "0"}

# Mounts are private to the program and vanish with it, as do the processes that it leaves behind.
# It sees none of the machine's disks and ports, and cannot write its kernel's settings.
WITHOUT_DEVICES = """
mount -t proc proc "$1/proc"
for name in sys sysrq-trigger; do
    [ -e "$1/proc/$name" ] || continue
    mount --bind "$1/proc/$name" "$1/proc/$name"
    mount -o remount,bind,ro "$1/proc/$name"
done
mount -t tmpfs -o mode=755 tmpfs "$1/dev"
for name in null zero full random urandom tty; do
    : >"$1/dev/$name"
    mount --bind "/dev/$name" "$1/dev/$name"
done
mkdir "$1/dev/pts" "$1/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$1/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$1/dev/shm"
ln -s pts/ptmx "$1/dev/ptmx"
ln -s /proc/self/fd "$1/dev/fd"
ln -s fd/0 "$1/dev/stdin"
ln -s fd/1 "$1/dev/stdout"
ln -s fd/2 "$1/dev/stderr"
"""
IN_CHROOT = f"""
set -e
{WITHOUT_DEVICES}
mount -t sysfs -o ro sysfs "$1/sys"
mount -t tmpfs -o mode=755 tmpfs "$1/run"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
if [ -d {locales.DATA} ]; then
    mkdir "$1{locales.INSIDE}"
    mount --bind {locales.DATA} "$1{locales.INSIDE}"
    mount -o remount,bind,ro "$1{locales.INSIDE}"
fi
exec chroot "$@"
"""
# If libc finds no locale data that it accepts, it falls back to C, whose character set is ASCII.
UNTAKEN = 42
ASK_LOCALE = (
    f'[ ! -x /usr/bin/locale ] || [ "$(/usr/bin/locale charmap)" = UTF-8 ] || exit {UNTAKEN}'
)
# A second view of the machine, in which only a folder and /tmp are writable. The kernel writes a
# space in a path as \040; a mount that another one hides is no mount point, and is unreachable.
IN_FOLDER = f"""
set -e
folder=$1
shift
mount --rbind / "$1"
while read -r _ _ _ _ at _; do
    at=$(printf %b "$at")
    case $at in "$1" | "$1"/*) ;; *) continue ;; esac
    mountpoint --quiet "$at" || continue
    mount -o remount,bind,ro "$at"
done </proc/self/mountinfo
{WITHOUT_DEVICES}
mount --bind /tmp "$1/tmp"
mount --bind "$folder" "$1$folder"
exec chroot "$@"
"""

# Made again at each boot or by the first program that needs them; each would differ in two builds.
EMPTIED = ("etc/machine-id",)
LEFT_BY_BOOTSTRAP = (
    "etc/apt/sources.list.d/0000copy.list",  # points to the build's repository
    "etc/apt/sources.list",
    "etc/resolv.conf",  # that of the machine
)
REMOVED = (
    "var/lib/dbus/machine-id",
    "var/cache/ldconfig/aux-cache",  # holds inode numbers and change times
    "var/lib/systemd/random-seed",
)
EMPTY = ("run", "tmp", "var/tmp", "var/log/journal")  # a journal's folder is named by machine-id
CLEARED = ("var/log", "var/cache/apt", "var/lib/apt/lists")  # packages ship subfolders here


def check_configuration(job: GuestJob) -> None:
    """Raise StepFailed if the image's folder has parts that a build ignores or must not use."""
    present = {path.name for path in job.image_folder.iterdir()}
    unknown = sorted(present - IMAGE_PARTS)
    if unknown:
        what = f"images/live/{job.image_folder.name}/{unknown[0]} is not supported"
        raise StepFailed(STATUS_BUILD_FAILED, what, "\n".join(unknown))
    check_hook_links(job.image_folder / "hooks", job.work / "source")
    squashfs_sort.read(job)  # used only later, but errors should be reported now


def bootstrap(
    job: GuestJob,
    report: Report,
    env: Mapping[str, str],
    locked: Sequence[Package],
    local: Sequence[LocalPackage] = (),
) -> None:
    """Install exactly the locked packages and the wanted local ones into an empty tree.

    Other local packages are installed only if one of these depends on them.
    """
    wanted = [package for package in local if package.wanted]
    components = [MAIN, LOCAL] if local else [MAIN]
    install(job, report, env, job.tree, [*locked, *wanted], components)
    check_installed(job.tree, [*locked, *wanted], [*locked, *local])
    for name in LEFT_BY_BOOTSTRAP:
        (job.tree / name).unlink(missing_ok=True)
    (job.tree / "etc/hostname").write_text(f"{job.document.image}\n")
    os.chmod(job.tree / "etc/hostname", 0o644)


def install(
    job: GuestJob,
    report: Report,
    env: Mapping[str, str],
    tree: Path,
    packages: Sequence[Package | LocalPackage],
    components: Sequence[str],
) -> None:
    """Install packages from these components of the job's repository into an empty tree."""
    suite = job.document.suite
    archive = f"copy:{job.work / REPOSITORY} {suite} {' '.join(components)}"
    run(
        report,
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=essential",
            "--format=directory",
            f"--include={','.join(package.name for package in packages)}",
            suite,
            os.fspath(tree),
            f"deb [trusted=yes] {archive}",
        ],
        env={**env, "TMPDIR": os.fspath(job.work), "INITRD": "No", **QUIET},
        umask=SCRIPT_UMASK,
    )


def check_installed(
    tree: Path,
    required: Sequence[Package | LocalPackage],
    allowed: Sequence[Package | LocalPackage],
) -> None:
    """Raise StepFailed unless all required packages are installed, and only allowed ones."""
    found = installed(tree)
    must, may = (
        {(p.name, p.version, p.architecture) for p in some} for some in (required, allowed)
    )
    wrong = [" ".join(package) for package in sorted((must - found) | (found - may))]
    if wrong:
        what = f"{len(wrong)} installed packages are not those of the lock, for instance {wrong[0]}"
        raise StepFailed(STATUS_BUILD_FAILED, what, "\n".join(wrong))


def installed(tree: Path) -> set[tuple[str, str, str]]:
    """Return name, version and architecture of the packages that are installed in a tree."""
    return set(_installed(tree / "var/lib/dpkg/status"))


def _installed(status: Path) -> Iterator[tuple[str, str, str]]:
    for paragraph in status.read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.split("\n") if ": " in line)
        if fields.get("Status") == "install ok installed":
            yield fields["Package"], fields["Version"], fields["Architecture"]


def include(source: Path, target: Path) -> None:
    """Copy a tree of includes: modes as in Git, owned by root; times are clamped later.

    Files and links are replaced, folders are merged. Raise StepFailed if a file would replace a
    folder or the reverse, or if a path is behind a link that leads out of the target.
    """
    if not source.is_dir():
        return
    inside = target.resolve()
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source.parent)
        there = target / path.relative_to(source)
        if not there.parent.resolve().is_relative_to(inside):
            raise _unfit(f"{name} lies behind a link that leads out of the image")
        try:
            _place(path, there)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise _unfit(f"{name} is in the way of what the image has: {error.strerror}") from error


def _unfit(what: str) -> StepFailed:
    return StepFailed(STATUS_BUILD_FAILED, what)


def _place(path: Path, there: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        if not there.is_dir():
            there.mkdir()
            there.chmod(0o755)
        return
    there.unlink(missing_ok=True)  # never write through a link, which may lead anywhere
    if path.is_symlink():
        there.symlink_to(path.readlink())
    else:
        shutil.copyfile(path, there)
        there.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def add_includes(job: GuestJob) -> None:
    """Add the image's includes, and `/etc/image-release`."""
    for name in ("includes.chroot", "includes.chroot_after_packages"):
        include(job.image_folder / name, job.tree)
    write_release(job)


def write_release(job: GuestJob) -> None:
    """Write `/etc/image-release`, which identifies the system, as shell variables."""
    d = job.document
    path = job.tree / "etc/image-release"
    path.write_text(
        f"IMAGE={d.image}\nVERSION={d.version}\nCOMMIT={d.commit}\nSOURCE_DATE_EPOCH={d.epoch}\n"
    )
    path.chmod(0o644)


def hooks(folder: Path, suffix: str) -> list[Path]:
    """Return the hooks of a live-build configuration tree in the order in which they run.

    As in live-build, those of `normal/` come first, then those of `live/`, then any others. A
    `suffix` without `.hook` also matches the names of older configurations.
    """
    first = {"normal": 0, "live": 1}
    return sorted(
        folder.rglob(f"*{suffix}"),
        key=lambda path: (first.get(path.relative_to(folder).parts[0], 2), path),
    )


def run_chroot_hook(job: GuestJob, report: Report, env: Mapping[str, str], hook: Path) -> None:
    """Run a hook in the tree, as root, with its own /proc, /sys, /dev and /tmp."""
    inside = job.tree / "root" / hook.name
    shutil.copyfile(hook, inside)
    inside.chmod(0o755)
    try:
        argv = [f"/root/{hook.name}"]
        with hook_named(hook, job.work / "source"):
            in_chroot(job.tree, report, {**env, "HOME": "/root"}, argv, blame=f"hook {hook.name}")
    finally:
        inside.unlink(missing_ok=True)


def in_chroot(
    tree: Path, report: Report, env: Mapping[str, str], argv: Sequence[str], *, blame: str
) -> None:
    """Run a program with a tree as its root directory."""
    env = locales.lent(tree, env)
    _run_apart(IN_CHROOT, [os.fspath(tree), *argv], report, env, blame=blame)


def takes_locale(tree: Path, report: Report, env: Mapping[str, str]) -> bool:
    """Tell whether the libc in a tree accepts the locale's data; True if that is unknown."""
    try:
        in_chroot(tree, report, env, ["sh", "-c", ASK_LOCALE], blame="locale charmap in the tree")
    except StepFailed as error:
        return f"status {UNTAKEN}" not in str(error)
    return True


def in_folder(
    folder: Path, report: Report, env: Mapping[str, str], argv: Sequence[str], *, blame: str
) -> None:
    """Run a program in a folder: it sees all of the machine's files, and can write only there."""
    place = os.fspath(folder)
    with tempfile.TemporaryDirectory(prefix="machine-") as view:
        argv = [place, view, "env", f"--chdir={place}", *argv]
        _run_apart(IN_FOLDER, argv, report, env, blame=blame)


def _run_apart(
    script: str, argv: Sequence[str], report: Report, env: Mapping[str, str], *, blame: str
) -> None:
    """Run, in namespaces of its own, a shell script that mounts and then executes a program."""
    shell = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"]
    run(report, [*shell, *argv], env=env, umask=SCRIPT_UMASK, blame=blame, limit_s=SCRIPT_LIMIT_S)


def make_initramfs(job: GuestJob, report: Report, env: Mapping[str, str]) -> None:
    """Make the initramfs of every kernel in the tree, after everything that may go into it.

    An image without initramfs-tools has its own `boot/initrd.img-*`.
    """
    if not (job.tree / "usr/sbin/update-initramfs").exists():
        return
    argv = ["update-initramfs", "-c", "-k", "all"]
    # mkinitramfs clamps newer times to this one, and the clock may be before the epoch.
    env = {**env, "HOME": "/root", "SOURCE_DATE_EPOCH": "0"}
    in_chroot(job.tree, report, env, argv, blame="update-initramfs")


def clean(job: GuestJob, times: Times, retimed: Retimed = lambda *_: None) -> None:
    """Remove what each system generates itself or only the build needed; settle times.

    `retimed` is that of `settle_times`.
    """
    for name in EMPTIED:
        path = job.tree / name
        if path.is_file() and not path.is_symlink():
            path.write_bytes(b"")
    for name in REMOVED:
        (job.tree / name).unlink(missing_ok=True)
    for name in EMPTY:
        _clear(job.tree / name, whole=True)
    for name in CLEARED:
        _clear(job.tree / name, whole=False)
    settle_times(job.tree, times.settled, retimed)


def _clear(folder: Path, *, whole: bool) -> None:
    """Remove the files below a folder; if `whole`, its subfolders, too."""
    if not folder.is_dir() or folder.is_symlink():
        return
    for path in list(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if whole:
                shutil.rmtree(path)
            else:
                _clear(path, whole=False)
        else:
            path.unlink()


def settle_times(
    tree: Path, settled: Callable[[int], int], retimed: Retimed = lambda *_: None
) -> None:
    """Give every file its settled time, in whole seconds; `settled` is that of `Times`.

    `retimed` is called for each path whose time changes, with its status before and after.
    """
    root = os.fsencode(tree)
    for path, before in [(b"", os.lstat(root)), *walk(root)]:
        wanted = settled(before.st_mtime_ns) * SECOND
        if wanted != before.st_mtime_ns:
            full = os.path.join(root, path)
            os.utime(full, ns=(wanted, wanted), follow_symlinks=False)
            retimed(path, before, os.lstat(full))
