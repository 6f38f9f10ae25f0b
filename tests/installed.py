# SPDX-License-Identifier: GPL-3.0-or-later
"""Installed systems and kits for them, small, for tests: FAT32 by mtools, whole kits."""

import hashlib
import os
import struct
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.documents.json_form import json_bytes
from pipeline.documents.kit_control import BOOT
from pipeline.documents.ustar import BLOCK, RECORD, ustar_header
from pipeline.kits.install.format import FORMAT_TEXT

EPOCH = 1766400000
SECTOR = 512
SECTORS = 66_700  # more than 65525 clusters of one sector: fewer would be a FAT16
PARTITION_AT = 2 * 1024 * 1024


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def noise(name: str, size: int) -> bytes:
    """Bytes that look like nothing else's."""
    found = b""
    while len(found) < size:
        found += hashlib.sha256(f"{name} {len(found)}".encode()).digest()
    return found[:size]


def switch(version: str, previous: str = "") -> bytes:
    return f"set version={version}\nset previous={previous}\n".encode().ljust(SECTOR, b"\n")


@dataclass(frozen=True)
class Release:
    """The files of a release's USB image but for the switch."""

    version: str
    kernel: str = "A"
    image: str = "mini"
    static: Mapping[str, bytes] = field(default_factory=dict)
    size: int = 9_000  # of its SquashFS

    @property
    def squashfs(self) -> bytes:
        return noise(f"base {self.version}", self.size)

    @property
    def boot(self) -> dict[str, bytes]:
        """All but its SquashFS and the module file."""
        kernel, initrd = (
            noise(f"kernel {self.kernel}", 3_000),
            noise(f"initrd {self.kernel}", 2_500),
        )
        names = f"live/vmlinuz-{sha256(kernel)[:12]}", f"live/initrd-{sha256(initrd)[:12]}.img"
        text = f"linux /{names[0]} boot=live module={self.version}\ninitrd /{names[1]}\n"
        return {
            ".disk/info": f"{self.image} {self.version} amd64 c0ffee\n".encode(),
            "EFI/BOOT/BOOTX64.EFI": noise("shim", 1_500),
            "boot/grub/grub.cfg": b"source /boot/grub/current.cfg\n",
            f"live/{self.version}.cfg": text.encode(),
            names[0]: kernel,
            names[1]: initrd,
            **self.static,
        }

    @property
    def files(self) -> dict[str, bytes]:
        """What is on the partition of its USB image, without the switch."""
        return {
            **self.boot,
            f"live/{self.version}.squashfs": self.squashfs,
            f"live/{self.version}.module": f"{self.version}.squashfs\n".encode(),
        }


@dataclass(frozen=True)
class KitParts:
    """A kit before it is packed; tests spoil what they like."""

    base: Release
    new: Release

    @property
    def delta(self) -> bytes:
        return noise(f"delta {self.base.version} {self.new.version}", 6_000)

    @property
    def partition(self) -> dict[str, bytes]:
        """What is on the partition once the kit is applied, without the switch."""
        base, new = self.base, self.new
        modules = f"{base.version}.squashfs\n{new.version}.squashfs\n"
        return {
            **new.boot,
            f"live/{base.version}.squashfs": base.squashfs,
            f"live/{new.version}.squashfs": self.delta,
            f"live/{new.version}.module": modules.encode(),
        }

    @property
    def boot(self) -> dict[str, bytes]:
        before = self.base.files
        return {
            path: content
            for path, content in self.partition.items()
            if not path.endswith(".squashfs") and before.get(path) != content
        }

    @property
    def delete(self) -> list[str]:
        kept = self.partition
        return sorted(path for path in self.base.files if path not in kept)

    def control(self, boot_tar: bytes) -> dict[str, Any]:
        def entry(content: bytes) -> dict[str, object]:
            return {"size": len(content), "sha256": sha256(content)}

        base, new = self.base, self.new
        return {
            "format": "twinbuild-kit/1",
            "name": new.image,
            "architecture": "amd64",
            "from": base.version,
            "to": new.version,
            "epoch": EPOCH,
            "members": {BOOT: entry(boot_tar), f"{new.version}.squashfs": entry(self.delta)},
            "base": {"file": f"{base.version}.squashfs", **entry(base.squashfs)},
            "delete": self.delete,
            "partition": {path: entry(content) for path, content in self.partition.items()},
            "tree_sha256": "0" * 64,
        }

    def pack(
        self, boot: Mapping[str, bytes] | None = None, control: Mapping[str, object] | None = None
    ) -> bytes:
        """Return the kit's bytes."""
        boot_tar = archive(dict(sorted((boot or self.boot).items())))
        document = control or self.control(boot_tar)
        return archive(
            {
                "FORMAT": FORMAT_TEXT,
                "control.json": json_bytes(document),
                BOOT: boot_tar,
                f"{self.new.version}.squashfs": self.delta,
            }
        )


def archive(members: Mapping[str, bytes]) -> bytes:
    packed = b""
    for name, content in members.items():
        packed += ustar_header(name, len(content), EPOCH)
        packed += content + bytes(-len(content) % BLOCK)
    packed += bytes(2 * BLOCK)
    return packed + bytes(-len(packed) % RECORD)


# --- images


def mtools(*argv: str | Path, stdin: bytes | None = None) -> bytes:
    environment = {**os.environ, "MTOOLSRC": os.devnull, "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    words = [str(word) for word in argv]
    done = subprocess.run(words, env=environment, input=stdin, capture_output=True, check=True)
    return done.stdout


def make_partition(
    path: Path,
    files: Mapping[str, bytes],
    *,
    offset: int = 0,
    sectors: int = SECTORS,
    cluster: int = 1,
) -> Path:
    """Make a FAT32 file system with these files, as the USB image has one."""
    at = ["-i", f"{path}@@{offset}"]
    with Path(path).open("ab") as file:
        file.truncate(max(offset + sectors * SECTOR, Path(path).stat().st_size))
    shape = ["-F", "-c", str(cluster), "-v", "MINI", "-T", str(sectors), "-h", "255", "-s", "63"]
    mtools("mformat", *at, *shape, "-N", "54574230", "-H", str(offset // SECTOR), "::")
    folders = {parent.as_posix() for name in files for parent in Path(name).parents}
    if wanted := sorted(folders - {"."}):
        mtools("mmd", *at, *(f"::{folder}" for folder in wanted))
    for name, content in files.items():
        mtools("mcopy", *at, "-", f"::{name}", stdin=content)
    return path


def make_disk(path: Path, files: Mapping[str, bytes], **options: Any) -> Path:
    """Make an image file with a GPT, a boot partition and the system partition."""
    sectors = options.get("sectors", SECTORS)
    first = PARTITION_AT // SECTOR
    spans = [(2048, first - 1), (first, first + sectors - 1)]
    table = b"".join(
        struct.pack("<16s16sQQQ72s", b"kind" * 4, bytes([n]) * 16, *span, 0, b"")
        for n, span in enumerate(spans, 1)
    ).ljust(128 * 128, b"\0")
    header = struct.pack(
        "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, first + sectors + 40, 34,
        first + sectors, b"disk" * 4, 2, 128, 128, zlib.crc32(table),
    )  # fmt: skip
    header = header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]
    with Path(path).open("wb") as file:
        file.seek(SECTOR)
        file.write(header.ljust(SECTOR, b"\0") + table)
        file.truncate(PARTITION_AT + (sectors + 41) * SECTOR)
    return make_partition(path, files, offset=PARTITION_AT, **options)


def read_partition(path: Path, *, offset: int = 0, into: Path) -> dict[str, bytes]:
    """Return all files of a partition as mtools reads them."""
    into.mkdir()
    mtools("mcopy", "-i", f"{path}@@{offset}", "-s", "-p", "-Q", "::", into)
    found = (path for path in into.rglob("*") if path.is_file())
    return {path.relative_to(into).as_posix(): path.read_bytes() for path in found}
