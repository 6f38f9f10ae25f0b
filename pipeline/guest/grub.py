# SPDX-License-Identifier: GPL-3.0-or-later
"""The boot loaders and their configuration: GRUB for BIOS, Debian's signed loaders for UEFI.

`boot/grub/grub.cfg` stays the same from release to release. The switch, `boot/grub/current.cfg`,
is one sector that is rewritten in place: it names the release to boot. That release's own
`live/<version>.cfg` says how to boot it.
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
# A core image must contain all modules: no upgrade can replace it, so it must not read modules from
# the system partition. `linux` needs the video modules, a graphical menu those at the end.
MODULES = (
    *("biosdisk", "part_gpt", "part_msdos", "fat", "iso9660"),
    *("search", "search_fs_file", "search_label", "search_fs_uuid", "probe", "regexp"),
    *("normal", "configfile", "linux", "test", "true", "echo", "cat", "ls", "sleep", "minicmd"),
    *("halt", "reboot", "chain", "loadenv", "serial", "terminal", "help", "all_video"),
    *("gfxterm", "gfxterm_background", "gfxmenu", "font", "png", "play"),
)
# Debian's signed loaders, unchanged, so that Secure Boot works.
EFI_FILES = {
    "BOOTX64.EFI": Path("/usr/lib/shim/shimx64.efi.signed"),
    "grubx64.efi": Path("/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"),
    "mmx64.efi": Path("/usr/lib/shim/mmx64.efi.signed"),
}
# Kits bring this menu to systems whose GRUB for BIOS is older and has no `play`: only a core image
# that has it sets `speaker`. Debian's signed loaders have always had `play`.
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
    """Write the loaders' configuration to boot this release, with these files in live/."""
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
    """Copy the loaders for UEFI to the system partition."""
    folder = job.binary / "EFI" / "BOOT"
    folder.mkdir(parents=True)
    for name, source in EFI_FILES.items():
        shutil.copyfile(source, folder / name)


def core_image(job: GuestJob, report: Report, env: Mapping[str, str], prefix: str) -> bytes:
    """Return the core image of GRUB for BIOS, which reads `grub.cfg` at `prefix`."""
    core, configuration = job.work / "core.img", job.work / "core.cfg"
    configuration.write_text(CORE_CFG)
    argv = ["grub-mkimage", "-O", "i386-pc", "-p", prefix, "-c", os.fspath(configuration)]
    run(report, [*argv, "-o", os.fspath(core), *MODULES], env=env)
    return core.read_bytes()
