"""Makes what people boot from the tree: SquashFS, boot loaders, ISO."""

import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from . import protocol, tree
from .job import Job
from .ledger import XATTRS
from .programs import run
from .report import Report, StepFailed

SQUASHFS_OPTIONS = {
    "fast": ("-comp", "zstd", "-Xcompression-level", "3", "-b", "256K"),
    # 19 would take three times as long for 5 % less (measured on mini)
    "strong": ("-comp", "zstd", "-Xcompression-level", "15", "-b", "1M"),
}
MEMORY_MIB = 512
FAT_SERIAL = "54574230"  # any fixed number
EFI_IMAGE_MIB = 8
GRUB_BIOS = Path("/usr/lib/grub/i386-pc")
# Debian's signed loaders: Secure Boot works, and no byte of them is made here.
EFI_FILES = {
    "BOOTX64.EFI": Path("/usr/lib/shim/shimx64.efi.signed"),
    "grubx64.efi": Path("/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"),
    "mmx64.efi": Path("/usr/lib/shim/mmx64.efi.signed"),
}
GRUB_CFG = """\
insmod serial
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set default=0
set timeout=3
menuentry "{title}" {{
    linux /live/vmlinuz boot=live console=tty0 console=ttyS0,115200{parameters}
    initrd /live/initrd.img
}}
"""


def make_squashfs(job: Job, report: Report, env: Mapping[str, str]) -> Path:
    """Move kernel and initramfs out of the tree, and pack the tree; return the file."""
    live = job.binary / "live"
    live.mkdir(parents=True)
    for pattern, name in (("vmlinuz-*", "vmlinuz"), ("initrd.img-*", "initrd.img")):
        found = sorted((job.tree / "boot").glob(pattern))
        if len(found) != 1:
            what = f"the image has {len(found)} files boot/{pattern} and must have one"
            raise StepFailed(protocol.STATUS_BUILD_FAILED, what)
        shutil.copyfile(found[0], live / name)
    squashfs = live / "filesystem.squashfs"
    excluded = ["-wildcards", "-e", "boot/vmlinuz-*", "boot/initrd.img-*"]
    xattrs = ["-xattrs-include", f"^({'|'.join(XATTRS)})".replace(".", "\\.")]
    options = SQUASHFS_OPTIONS[str(job.document["compression"])]
    quiet = ["-noappend", "-no-progress", "-quiet", "-no-recovery", "-mem", f"{MEMORY_MIB}M"]
    argv = ["mksquashfs", os.fspath(job.tree), os.fspath(squashfs)]
    run(report, [*argv, *quiet, *options, *xattrs, *excluded], env=env)
    return squashfs


def make_boot_files(job: Job, report: Report, env: Mapping[str, str]) -> None:
    """Add the boot loaders, what the image includes, and run the binary hooks."""
    d = job.document
    grub = job.binary / "boot" / "grub"
    grub.mkdir(parents=True)
    (job.binary / ".disk").mkdir()
    title = f"{d['image']} {d['version']}"
    (job.binary / ".disk" / "info").write_text(f"{title} {d['architecture']} {d['commit']}\n")
    parameters = f" {d['kernel_parameters']}" if d["kernel_parameters"] else ""
    (grub / "grub.cfg").write_text(GRUB_CFG.format(title=title, parameters=parameters))
    _bios_loader(job, report, env, grub)
    _efi_image(job, report, env, grub / "efi.img")
    tree.include(job.image_folder / "includes.binary", job.binary)
    for hook in tree.hooks(job.image_folder / "hooks", ".hook.binary"):
        hook.chmod(0o755)
        run(
            report,
            [os.fspath(hook)],
            env=env,
            cwd=job.binary,
            umask=0o022,
            blame=f"hook {hook.name}",
        )


def _bios_loader(job: Job, report: Report, env: Mapping[str, str], grub: Path) -> None:
    core = job.work / "core.img"
    modules = [
        "biosdisk",
        "iso9660",
        "part_msdos",
        "part_gpt",
        "normal",
        "linux",
        "serial",
        "terminal",
    ]
    run(
        report,
        ["grub-mkimage", "-O", "i386-pc", "-p", "/boot/grub", "-o", os.fspath(core)] + modules,
        env=env,
    )
    loader = grub / "eltorito.img"
    loader.write_bytes((GRUB_BIOS / "cdboot.img").read_bytes() + core.read_bytes())
    include_modules = grub / "i386-pc"
    include_modules.mkdir()
    for path in sorted(GRUB_BIOS.glob("*.mod")) + sorted(GRUB_BIOS.glob("*.lst")):
        shutil.copyfile(path, include_modules / path.name)


def _efi_image(job: Job, report: Report, env: Mapping[str, str], image: Path) -> None:
    # mcopy -m keeps times, mmd does not; FAT holds local time; readdir order must not show: so the
    # one chain of folders is copied whole, in UTC, and the files one by one.
    skeleton = job.work / "efi" / "EFI"
    (skeleton / "BOOT").mkdir(parents=True)
    for folder in (skeleton / "BOOT", skeleton):
        os.utime(folder, (job.epoch, job.epoch))
    with image.open("wb") as file:
        file.truncate(EFI_IMAGE_MIB * 1024 * 1024)
    env = {**env, "TZ": "UTC"}
    at = ["-i", os.fspath(image)]
    run(report, ["mformat", *at, "-v", "EFI", "-N", FAT_SERIAL, "::"], env=env)
    run(report, ["mcopy", *at, "-s", "-m", os.fspath(skeleton), "::"], env=env)
    for name, source in EFI_FILES.items():
        copy = job.work / name
        shutil.copyfile(source, copy)
        os.utime(copy, (job.epoch, job.epoch))
        run(report, ["mcopy", *at, "-m", os.fspath(copy), f"::EFI/BOOT/{name}"], env=env)


def make_iso(job: Job, report: Report, env: Mapping[str, str]) -> Path:
    """Make a hybrid ISO that boots by BIOS and UEFI, from optical media and USB sticks."""
    _settle_modes(job.binary)
    tree.clamp_times(job.binary, job.epoch, 0)
    iso = job.artifacts / job.names.iso
    stamp = datetime.fromtimestamp(job.epoch, UTC).strftime("%Y%m%d%H%M%S00")
    run(
        report,
        ["xorriso", "-as", "mkisofs", "-quiet", "-o", os.fspath(iso)]
        + ["-R", "-J", "-joliet-long", "-iso-level", "3"]
        + [
            "-V",
            str(job.document["volume_id"]),
            "-preparer",
            "TWINBUILD",
            "-publisher",
            "TWINBUILD",
        ]
        + ["-uid", "0", "-gid", "0"]
        + [f"--modification-date={stamp}", "--set_all_file_dates", stamp]
        + ["-b", "boot/grub/eltorito.img", "-c", "boot/boot.cat", "-no-emul-boot"]
        + ["-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info"]
        + ["--grub2-mbr", os.fspath(GRUB_BIOS / "boot_hybrid.img")]
        + ["-partition_offset", "16", "--mbr-force-bootable"]
        + ["-eltorito-alt-boot", "-e", "boot/grub/efi.img", "-no-emul-boot"]
        + ["-isohybrid-gpt-basdat", os.fspath(job.binary)],
        env={**env, "TZ": "UTC"},
    )
    return iso


def _settle_modes(folder: Path) -> None:
    """Give files and folders of the ISO one mode: the umask must not show."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
        elif not path.is_symlink():
            path.chmod(0o644)
