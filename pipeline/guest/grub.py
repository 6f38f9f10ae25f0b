# SPDX-License-Identifier: GPL-3.0-or-later
"""The boot loaders and what they read: GRUB for BIOS, Debian's signed ones for UEFI.

`boot/grub/grub.cfg` stays the same from release to release. The switch,
`boot/grub/current.cfg`, one sector that is rewritten in place, names the release that boots, and
that release's own `live/<version>.cfg` how it boots.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline.documents.system_partition import SWITCH, switch
from pipeline.guest.job import GuestJob
from pipeline.guest.programs import run
from pipeline.guest.serial_port import Report

BIOS = Path("/usr/lib/grub/i386-pc")
# All that a core image will ever have: no upgrade can replace it, so it reads no modules from the
# system partition. `linux` needs the video modules, a menu with pictures what stands in the end.
MODULES = (
    *("biosdisk", "part_gpt", "part_msdos", "fat", "iso9660"),
    *("search", "search_fs_file", "search_label", "search_fs_uuid", "probe", "regexp"),
    *("normal", "configfile", "linux", "test", "true", "echo", "cat", "ls", "sleep", "minicmd"),
    *("halt", "reboot", "chain", "loadenv", "serial", "terminal", "help", "all_video"),
    *("gfxterm", "gfxterm_background", "gfxmenu", "font", "png", "play"),
)
# Debian's signed loaders: Secure Boot works, and no byte of them is made here.
EFI_FILES = {
    "BOOTX64.EFI": Path("/usr/lib/shim/shimx64.efi.signed"),
    "grubx64.efi": Path("/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"),
    "mmx64.efi": Path("/usr/lib/shim/mmx64.efi.signed"),
}
# GRUB for BIOS that was installed by earlier versions has no `play`, and kits bring it this menu.
# Debian's signed loaders have always had it.
CORE_CFG = "set speaker=yes\n"
GRUB_CFG = """\
if serial --unit=0 --speed=115200; then
    terminal_input console serial
    terminal_output console serial
fi
if [ "$speaker" = yes -o "$grub_platform" = efi ]; then
    play 480 440 1
fi
set default=0
set timeout=3
source /boot/grub/current.cfg
menuentry "{image} $version" {{
    source /live/$version.cfg
}}
if [ -n "$previous" ]; then
    menuentry "{image} $previous" {{
        source /live/$previous.cfg
    }}
fi
"""
VERSION_CFG = """\
linux /live/{kernel} boot=live module={version} console=tty0 console=ttyS0,115200{parameters}
initrd /live/{initramfs}
"""


def add_configuration(job: GuestJob, kernel: str, initramfs: str) -> None:
    """Write what the loaders read to boot this release, from `kernel` and `initramfs` in live/."""
    d = job.document
    (job.binary / "boot" / "grub").mkdir(parents=True)
    (job.binary / "boot" / "grub" / "grub.cfg").write_text(GRUB_CFG.format(image=d.image))
    (job.binary / SWITCH).write_bytes(switch(d.version))
    parameters = f" {d.kernel_parameters}" if d.kernel_parameters else ""
    entry = {"version": d.version, "kernel": kernel, "initramfs": initramfs}
    (job.binary / "live" / f"{d.version}.cfg").write_text(
        VERSION_CFG.format(**entry, parameters=parameters)
    )


def add_efi_files(job: GuestJob) -> None:
    """Copy the loaders for UEFI onto the system partition."""
    folder = job.binary / "EFI" / "BOOT"
    folder.mkdir(parents=True)
    for name, source in EFI_FILES.items():
        shutil.copyfile(source, folder / name)


def core_image(job: GuestJob, report: Report, env: Mapping[str, str], prefix: str) -> bytes:
    """Return GRUB for BIOS, which finds `grub.cfg` at `prefix`."""
    core, configuration = job.work / "core.img", job.work / "core.cfg"
    configuration.write_text(CORE_CFG)
    argv = ["grub-mkimage", "-O", "i386-pc", "-p", prefix, "-c", os.fspath(configuration)]
    run(report, [*argv, "-o", os.fspath(core), *MODULES], env=env)
    return core.read_bytes()
