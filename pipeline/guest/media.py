# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the SquashFS, the files of the system partition, and the ISO."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pipeline.documents.digest import sha256_file
from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.documents.system_partition import DIGEST_DIGITS, SWITCH, switch
from pipeline.guest import grub, squashfs_sort, tree
from pipeline.guest.fat import files_below, make_fat
from pipeline.guest.hook_failure import hook_named
from pipeline.guest.job import GuestJob
from pipeline.guest.ledger import XATTRS
from pipeline.guest.programs import run
from pipeline.guest.serial_port import Report, StepFailed

SQUASHFS_OPTIONS = {
    "fast": ("-comp", "zstd", "-Xcompression-level", "3", "-b", "256K"),
    # Level 19 would take three times as long and save 5 % (measured on mini).
    "strong": ("-comp", "zstd", "-Xcompression-level", "15", "-b", "1M"),
}
MEMORY_MIB = 512
EFI_IMAGE_MIB = 8
KERNELS = (("vmlinuz-*", "vmlinuz"), ("initrd.img-*", "initrd.img"))
# The ISO's boot loaders, which it has in addition to the system partition's files.
BIOS_LOADER, EFI_IMAGE = Path("boot/grub/eltorito.img"), Path("boot/grub/efi.img")


def kernel_and_initramfs(job: GuestJob) -> dict[str, Path]:
    """Return the tree's only kernel and initramfs, by their names in the ledger."""
    paths = {}
    for pattern, name in KERNELS:
        found = [p for p in (job.tree / "boot").glob(pattern) if p.is_file() and not p.is_symlink()]
        if len(found) != 1:
            what = f"the image has {len(found)} files boot/{pattern} and must have one"
            raise StepFailed(STATUS_BUILD_FAILED, what)
        paths[f"live/{name}"] = found[0]
    return paths


def make_squashfs(job: GuestJob, report: Report, env: Mapping[str, str]) -> Mapping[str, Path]:
    """Move kernel and initramfs out of the tree, and pack the tree; return the SquashFS.

    The two are only on the system partition, under names with a digest of their content, so that an
    upgrade can add its own beside them. The image's `squashfs.sort` says which files come first.
    """
    live = job.binary / "live"
    live.mkdir(parents=True)
    boot = (job.tree / "boot").stat()
    moved = [_move(path, live, Path(name)) for name, path in kernel_and_initramfs(job).items()]
    os.utime(job.tree / "boot", ns=(boot.st_atime_ns, boot.st_mtime_ns))
    squashfs = live / f"{job.document.version}.squashfs"
    xattrs = ["-xattrs-include", f"^({'|'.join(XATTRS)})".replace(".", "\\.")]
    options = SQUASHFS_OPTIONS[job.document.compression]
    quiet = ["-noappend", "-no-progress", "-quiet", "-no-recovery", "-mem", f"{MEMORY_MIB}M"]
    argv = ["mksquashfs", os.fspath(job.tree), os.fspath(squashfs)]
    order = squashfs_sort.options(job, report)
    run(report, [*argv, *quiet, *options, *xattrs, *order], env=env)
    squashfs.with_suffix(".module").write_text(f"{squashfs.name}\n")
    grub.add_configuration(job, *moved)
    return {f"live/{squashfs.name}": squashfs}


def _move(path: Path, folder: Path, name: Path) -> str:
    """Move a file to a folder, with its content's digest in the name; return the new name."""
    moved = f"{name.stem}-{sha256_file(path)[:DIGEST_DIGITS]}{name.suffix}"
    path.rename(folder / moved)
    return moved


def complete_partition(job: GuestJob, report: Report, env: Mapping[str, str]) -> None:
    """Add loaders, `.disk/info` and the image's own includes, and run the binary hooks.

    Afterwards `binary` has the final content of the system partition of the USB image.
    """
    d = job.document
    (job.binary / ".disk").mkdir()
    info = f"{d.image} {d.version} {d.architecture} {d.commit}\n"
    (job.binary / ".disk" / "info").write_text(info)
    grub.add_efi_files(job)
    tree.include(job.image_folder / "includes.binary", job.binary)
    for hook in tree.hooks(job.image_folder / "hooks", ".binary"):
        hook.chmod(0o755)
        with hook_named(hook, job.work / "source"):
            tree.in_folder(job.binary, report, env, [os.fspath(hook)], blame=f"hook {hook.name}")
    _check_partition(job)
    _settle(job.binary, job.epoch)


def _check_partition(job: GuestJob) -> None:
    """Raise StepFailed if an include or hook changed what upgrades rely on."""
    unfit = ""
    path = job.binary / SWITCH
    if not path.is_file() or path.read_bytes() != switch(job.document.version):
        unfit = f"{SWITCH} was changed: upgrades rewrite it, use boot/grub/grub.cfg"
    for loader in (BIOS_LOADER, EFI_IMAGE):
        if (job.binary / loader).exists():
            unfit = f"{loader} is there: the build makes the loaders of the ISO"
    if unfit:
        raise StepFailed(STATUS_BUILD_FAILED, f"on the system partition {unfit}")


def _iso_loaders(
    job: GuestJob, report: Report, env: Mapping[str, str], folder: Path
) -> Mapping[str, Path]:
    """Make the loaders that boot the ISO by BIOS and by UEFI, below `folder`."""
    made = {os.fspath(loader): folder / loader for loader in (EFI_IMAGE, BIOS_LOADER)}
    (folder / BIOS_LOADER.parent).mkdir(parents=True)
    core = grub.core_image(job, report, env, "/boot/grub")
    (folder / BIOS_LOADER).write_bytes((grub.BIOS / "cdboot.img").read_bytes() + core)
    with (folder / EFI_IMAGE).open("wb") as file:
        file.truncate(EFI_IMAGE_MIB * 1024 * 1024)
    names = [name for name in files_below(job.binary) if name.startswith("EFI/")]
    make_fat(report, env, folder / EFI_IMAGE, ["-v", "EFI"], job.binary, names)
    _settle(folder, job.epoch)
    return made


def make_iso(job: GuestJob, report: Report, env: Mapping[str, str]) -> Mapping[str, Path]:
    """Make a hybrid ISO that boots by BIOS and UEFI, from optical media and USB sticks.

    It has the files of the system partition, except the EFI loaders, which are in its EFI image.
    """
    loaders = job.work / "iso-loaders"
    made = _iso_loaders(job, report, env, loaders)
    iso = job.artifacts / job.names.iso
    stamp = datetime.fromtimestamp(job.epoch, UTC).strftime("%Y%m%d%H%M%S00")
    run(
        report,
        ["xorriso", "-as", "mkisofs", "-quiet", "-o", os.fspath(iso)]
        + ["-R", "-J", "-joliet-long", "-iso-level", "3"]
        + [
            "-V",
            job.document.volume_id,
            "-preparer",
            "TWINBUILD",
            "-publisher",
            "TWINBUILD",
        ]
        + ["-uid", "0", "-gid", "0"]
        + [f"--modification-date={stamp}", "--set_all_file_dates", stamp]
        + ["-b", os.fspath(BIOS_LOADER), "-c", "boot/boot.cat", "-no-emul-boot"]
        + ["-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info"]
        + ["--grub2-mbr", os.fspath(grub.BIOS / "boot_hybrid.img")]
        + ["-partition_offset", "16", "--mbr-force-bootable"]
        + ["-eltorito-alt-boot", "-e", os.fspath(EFI_IMAGE), "-no-emul-boot"]
        + ["-isohybrid-gpt-basdat", "-x", os.fspath(job.binary / "EFI")]
        + [os.fspath(job.binary), os.fspath(loaders)],
        env={**env, "TZ": "UTC"},
    )
    return {**made, iso.name: iso}


def _settle(folder: Path, epoch: int) -> None:
    """Give all files and folders uniform modes and one time: umask and clock must not show."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
