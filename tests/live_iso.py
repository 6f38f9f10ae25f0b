# SPDX-License-Identifier: GPL-3.0-or-later
"""A small ISO of a live system, made by the real mksquashfs and xorriso; it can be made to boot."""

import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

SECTOR = 512
ORIGIN, BUFFER, COM1 = 0x7C00, 0x8000, 0x3F8
FILLER = 4 * 1024 * 1024  # the BIOS reads no disk that is smaller than one of its cylinders
AT_ONCE = 64  # sectors that the BIOS is asked for
WORDS = b"twinbuild: image=mini version=1 commit=c0ffee squashfs=1\n"


def make_iso(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    options: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    image: str = "mini",
) -> Path:
    """Make an ISO that holds a SquashFS with these files, and links by what they lead to."""
    tree, medium = folder / "tree", folder / "medium"
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name, target in (links or {}).items():
        (tree / name).symlink_to(target)
    for path in (medium / "live", medium / ".disk"):
        path.mkdir(parents=True)
    (medium / ".disk/info").write_text(f"{image} 1 amd64 c0ffee\n")
    (medium / "filler").write_bytes(bytes(FILLER))
    squashfs, iso = medium / "live/1.squashfs", folder / "made.iso"
    for argv in (
        ["mksquashfs", str(tree), str(squashfs), "-noappend", "-quiet", *options],
        ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-o", str(iso), str(medium)],
    ):
        subprocess.run(argv, check=True, capture_output=True)
    return iso


def let_it_read(iso: Path, spans: Iterable[tuple[int, int]]) -> None:
    """Put a program into the boot sector that reads these bytes, then says that it is up."""
    places = [
        (sector, min(AT_ONCE, -(-end // SECTOR) - sector))
        for start, end in spans
        for sector in range(start // SECTOR, -(-end // SECTOR), AT_ONCE)
    ]
    steps = len(places)
    packet = ORIGIN + 4 + steps * 22 + 17
    code = b"\x31\xc0\x8e\xd8"  # xor ax, ax; mov ds, ax
    for sector, count in places:
        code += b"\x66\xc7\x06" + struct.pack("<HI", packet + 8, sector)  # mov dword [place]
        code += b"\xc7\x06" + struct.pack("<HH", packet + 2, count)  # mov word [count]
        code += b"\xbe" + struct.pack("<H", packet) + b"\xb4\x42\xcd\x13"  # read by int 13h
    code += b"\xbe" + struct.pack("<H", packet + 16)  # mov si, words
    # lodsb; test al, al; jz; mov dx, COM1; out dx, al; jmp; hlt
    code += b"\xac\x84\xc0\x74\x06\xba" + struct.pack("<H", COM1) + b"\xee\xeb\xf5\xf4\xeb\xfd"
    code = code.ljust(packet - ORIGIN, b"\x90")
    code += struct.pack("<BBHHHQ", 16, 0, 1, BUFFER, 0, 0) + WORDS + b"\0"
    assert len(code) <= 440
    with iso.open("r+b") as file:
        file.write(code)
        file.seek(510)
        file.write(b"\x55\xaa")
