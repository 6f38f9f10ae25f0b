# SPDX-License-Identifier: GPL-3.0-or-later
"""Two builds of a small system without machines: the real tools, hooks, and two pretended machines.

A build goes through the farm's steps: hooks in the tree, SquashFS, initramfs, EFI image, ISO, USB
image, kit; it leaves ledgers, artifacts and signed statements as a real one does. `date`,
`hostname`, `uname`, `nproc` and `whoami` answer as the pretended machine.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base import command
from pipeline.base.files import write_json
from pipeline.farm.run import Request, Run, create
from pipeline.guest.ledger import Ledger
from tests import differing_run
from tests.differing_run import COMMIT, EPOCH, KERNELS, VARIED

CPUS = {"alpha": "2", "beta": "1"}
READDIR = {"alpha": "cat", "beta": "tac"}  # in which order folders are read
STAND_INS = {
    "date": 'case "$*" in *-d*) exec /bin/date "$@";; esac; exec /bin/date -d "@$NOW" "$@"',
    "hostname": 'echo "$HOST_NAME"',
    "uname": 'echo "$KERNEL"',
    "nproc": 'echo "$CPUS"',
    "whoami": 'echo "$USER"',
}
STEM = "mini-amd64-3.3"
START = """\
set -e
when=$SOURCE_DATE_EPOCH stamp=2026112218382700 serial=54574230 label=EFI volume=MINI zone=UTC
compress='zstd -q' read=cat options= table= from=3.1 system=binary/live
squashfs=binary/live/filesystem.squashfs tar_owner='--owner=0 --group=0 --numeric-owner'
disk=54574230-0000-4000-8000-000000000001 identity=54574230-0000-4000-8000-000000000002
after() { :; }
settle() { find "$@" -exec touch -h -d "@$when" {} +; }
pack() { settle "$1"; (cd "$1" && find . -mindepth 1 | LC_ALL=C sort | $read |
    cpio -o -H newc --quiet --reproducible -R 0:0); }
squash() { env -u SOURCE_DATE_EPOCH mksquashfs tree "$squashfs" -quiet -no-progress \
    -noappend -all-root -comp zstd -Xcompression-level 3 "$@"; }
archive() { tar --format=ustar --mtime="@$when" $tar_owner -cf "$@"; }
fill() { TZ=$zone mcopy -i "$1" -s -m "$2" ::; }
"""
# What makes each piece; what it makes is what a ledger names, after the farm's own names.
MAKE = {
    "squashfs": """
squash -mkfs-time 0 -all-time "$SOURCE_DATE_EPOCH" $options
""",
    "initramfs": """
pack early >binary/live/initrd.img
head -c 512 /dev/zero >>binary/live/initrd.img
pack initramfs | $compress >>binary/live/initrd.img
""",
    "efi": """
image=binary/boot/grub/efi.img
truncate -s 360K $image
TZ=UTC mformat -i $image -v "$label" -N "$serial" ::
settle EFI
fill $image EFI
""",
    "iso": """
xorriso -as mkisofs -quiet -R -V "$volume" -o out/mini-amd64-3.3.iso --modification-date="$stamp" \
    --set_all_file_dates "$stamp" $options binary
""",
    "usb": """
truncate -s 2M partition
TZ=UTC mkfs.vfat --invariant -i "$serial" -n MINI partition >/dev/null
settle "$system"
fill partition "$system"
if [ -n "$table" ]; then  # sgdisk takes a second
    truncate -s 4M out/mini-amd64-3.3.img
    sgdisk -o -a 1 -n 1:2048:6143 -U "$disk" -u "1:$identity" out/mini-amd64-3.3.img >/dev/null
fi
dd if=partition of=out/mini-amd64-3.3.img bs=512 seek=2048 conv=notrunc status=none
""",
    "kit": """
settle boot
archive kit/boot.tar -C boot --sort=name .
echo "{\\"format\\": \\"twinbuild-kit/1\\", \\"from\\": \\"$from\\"}" >kit/control.json
echo twinbuild-kit/1 >kit/FORMAT
cp "$squashfs" kit/3.3.squashfs
archive out/mini-amd64-3.1-to-3.3.iuk -C kit $(printf '%s\\n' FORMAT control.json boot.tar \
    3.3.squashfs | $read)
""",
}
MADE = {
    "squashfs": ("70-squashfs", "filesystem.squashfs", "binary/live/filesystem.squashfs"),
    "initramfs": ("80-boot", "live/initrd.img", "binary/live/initrd.img"),
    "efi": ("80-boot", "boot/grub/efi.img", "binary/boot/grub/efi.img"),
    "iso": ("85-iso", f"{STEM}.iso", f"out/{STEM}.iso"),
    "usb": ("86-usb", f"{STEM}.img", f"out/{STEM}.img"),
    "kit": ("88-kits", "mini-amd64-3.1-to-3.3.iuk", "out/mini-amd64-3.1-to-3.3.iuk"),
}
# What is made again after a piece was made in another way.
FOLLOWS = {"squashfs": ("iso",), "initramfs": ("iso",), "efi": ("iso",)}


@dataclass(frozen=True)
class Base:
    """A work folder in which everything was made once, without any cause."""

    folder: Path
    stand_ins: Path


def make_base(folder: Path) -> Base:
    """Make a small system, all that is made of it, and the pretended machine's programs."""
    base = Base(folder / "work", folder / "bin")
    base.stand_ins.mkdir(parents=True)
    for name, script in STAND_INS.items():
        (base.stand_ins / name).write_text(f"#!/bin/sh\n{script}\n")
        (base.stand_ins / name).chmod(0o755)
    for name, content in {
        "tree/etc/hostname": "mini\n",
        "tree/usr/lib/big": "0123456789abcdef\n" * 2000,
        "early/kernel/x86/microcode/AuthenticAMD.bin": "code\n",
        "initramfs/init": "#!/bin/sh\n",
        "initramfs/etc/modprobe.conf": "options x\n",
        "initramfs/conf/conf.d/x": "A=1\n",
        "EFI/BOOT/BOOTX64.EFI": "MZ\n" * 700,
        "binary/boot/grub/grub.cfg": "set timeout=3\n",
        "binary/live/filesystem.module": "filesystem.squashfs\n",
        "boot/live/3.3.cfg": "linux /live/vmlinuz\n",
        "boot/live/3.3.module": "3.1.squashfs\n3.3.squashfs\n",
        "kit/FORMAT": "",
        "out/.keep": "",
    }.items():
        (base.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (base.folder / name).write_text(content)
    (base.folder / "out/.keep").unlink()
    for path in sorted([base.folder, *base.folder.rglob("*")]):
        os.utime(path, (EPOCH, EPOCH))
    for piece in MAKE:
        _make(base, base.folder, "alpha", piece, "table=new")
    return base


def build_twice(
    base: Base, runs: Path, *, hooks: Sequence[tuple[str, str]] = (), patch: tuple[str, str] | None
) -> Run:
    """Build in two pretended machines; return the run with what both gave back.

    `hooks` are run in the tree, each by its name. `patch` names a piece that is made in another
    way, and the shell lines that come before it is made.
    """
    run = create(runs, Request(image="mini", commit="HEAD", environments=("alpha", "beta")))
    write_json(run.source_json, {"format": "twinbuild-source/1", "commit": COMMIT, "epoch": EPOCH})
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: _build(base, run, name, hooks, patch), ("alpha", "beta")))
    return run


def _build(
    base: Base,
    run: Run,
    name: str,
    hooks: Sequence[tuple[str, str]],
    patch: tuple[str, str] | None,
) -> None:
    folder = run.environment(name)
    folder.mkdir()
    work = folder / "work"
    shutil.copytree(base.folder, work)
    with closing(Ledger(work / "tree", folder / "ledger.jsonl.gz", lambda _: EPOCH)) as ledger:
        ledger.record("20-bootstrap")
        for hook, does in hooks:
            _shell(base, name, does, work / "tree")
            ledger.record(f"40-hooks/{hook}")
        pieces = [patch[0], *FOLLOWS.get(patch[0], ())] if patch else ["squashfs", "iso"]
        for piece in pieces:
            _make(base, work, name, piece, patch[1] if patch and piece == patch[0] else "")
        for step in dict.fromkeys(step for step, _, _ in MADE.values()):
            ledger.record(step)
            for at, made, path in MADE.values():
                if at == step:
                    ledger.artifact(made, work / path)
    (work / "out").rename(folder / "artifacts")
    shutil.rmtree(work)
    for byproduct in ("console.log", "progress.jsonl"):
        (folder / byproduct).touch()
    write_json(folder / "timings.json", {"steps": {}, "by_hand": {}})
    job = {"format": "twinbuild-job/1", "expected_differences": [], "lock_sha256": "0" * 64}
    write_json(folder / "job.json", job)
    differing_run.state(run, name, job)


def _make(base: Base, work: Path, name: str, piece: str, does: str) -> None:
    if piece != "usb":
        (work / MADE[piece][2]).unlink(missing_ok=True)
    _shell(base, name, f"{START}\n{does}\n{MAKE[piece]}\nafter\n", work)


def _shell(base: Base, name: str, script: str, folder: Path) -> None:
    varied = VARIED[name]
    command.run(
        ["sh", "-c", f"PATH={base.stand_ins}:$PATH\n{script}"],
        timeout_s=30,
        cwd=folder,
        env=_machine(name, varied),
    )


def _machine(name: str, varied: Mapping[str, Any]) -> dict[str, str]:
    facts = {
        "HOST_NAME": varied["host_name"],
        "USER": varied["user"],
        "BUILD_PATH": varied["build_path"],
        "LC_ALL": varied["locale"],
        "TZ": varied["time_zone"],
        "UMASK": varied["umask"],
        "SCRATCH": varied["scratch_filesystem"],
        "MACHINE": varied["machine_type"],
        "KERNEL": KERNELS[name],
        "CPUS": CPUS[name],
        "READDIR": READDIR[name],
        "NOW": differing_run.built_at(name),
        "SOURCE_DATE_EPOCH": EPOCH,
    }
    return {key: str(value) for key, value in {**varied["environment_variables"], **facts}.items()}
