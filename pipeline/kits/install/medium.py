# SPDX-License-Identifier: GPL-3.0-or-later
"""The image file or device that a kit is applied to: opened alone, written, read back.

Nothing else may use it meanwhile. A device is claimed from the kernel (O_EXCL), which refuses it
while it or a part of it is mounted or belongs to a RAID; an image file is locked, and refused
while a loop device has it.
"""

import fcntl
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.kits.install.failure import InfrastructureFailed, UsageError

ALIGNMENT = 4096  # what reading past the cache wants at most
SYS = Path("/sys")
MOUNTS = Path("/proc/self/mountinfo")


class Medium:
    """An open medium, in bytes from its beginning (`fat_table.Blocks`)."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = os.lseek(descriptor, 0, os.SEEK_END)
        self._descriptor = descriptor
        self._direct: int | None = None
        with suppress(OSError):
            # the same file, even if another has its name by now
            self._direct = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_DIRECT)

    @property
    def reads_past_cache(self) -> bool:
        """Whether `read_back` is sure to come from the medium and not from memory."""
        return self._direct is not None

    def close(self) -> None:
        """Close what was opened beside the descriptor."""
        if self._direct is not None:
            os.close(self._direct)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes, possibly from memory."""
        content = bytearray()
        with self._failures("read"):
            while len(content) < length:
                piece = os.pread(self._descriptor, length - len(content), offset + len(content))
                if not piece:
                    raise InfrastructureFailed(f"{self.path} ends before byte {offset + length}")
                content += piece
        return bytes(content)

    def write(self, offset: int, content: bytes) -> None:
        """Write; it is on the medium for certain after `flush`."""
        done = 0
        with self._failures("write"):
            while done < len(content):
                done += os.pwrite(self._descriptor, content[done:], offset + done)

    def flush(self) -> None:
        """Return when all that was written is on the medium."""
        with self._failures("write"):
            os.fsync(self._descriptor)

    def read_back(self, offset: int, length: int) -> bytes:
        """Return `length` flushed bytes, past the cache or after emptying it of them."""
        if self._direct is not None:
            try:
                return self._read_directly(self._direct, offset, length)
            except OSError:
                os.close(self._direct)  # not every file system keeps what `open` promised
                self._direct = None
        os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_DONTNEED)
        return self.read(offset, length)

    def _read_directly(self, direct: int, offset: int, length: int) -> bytes:
        before = offset % ALIGNMENT
        wanted = before + length
        with mmap.mmap(-1, wanted + -wanted % ALIGNMENT) as memory, memoryview(memory) as view:
            done = 0
            while done < wanted:
                count = os.preadv(direct, [view[done:]], offset - before + done)
                done += count
                if not count or (done < wanted and count % ALIGNMENT):
                    raise OSError
            return bytes(view[before:wanted])

    @contextmanager
    def _failures(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InfrastructureFailed(
                f"cannot {verb} {self.path}: {error.strerror}", remedy="use another medium"
            ) from error


@contextmanager
def open_medium(path: Path) -> Iterator[Medium]:
    """Open an image file or a device for this process alone.

    Raise UsageError if it is neither or is mounted, InfrastructureFailed while another process
    has it.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
            raise UsageError(f"{path} is neither an image file nor a device")
        user = _device_user(path) if stat.S_ISBLK(mode) else _image_user(path)
        if user:
            raise UsageError(f"{path} is in use: {user}", remedy="unmount it first")
        exclusive = os.O_EXCL if stat.S_ISBLK(mode) else 0
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | exclusive)
    except PermissionError as error:
        raise UsageError(f"you may not write to {path}", remedy="a device needs root") from error
    except OSError as error:
        raise UsageError(f"cannot open {path}: {error.strerror}") from error
    try:
        _lock(descriptor, path)
        medium = Medium(path, descriptor)
        try:
            yield medium
        finally:
            medium.close()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InfrastructureFailed(
            f"another process is at work on {path}", remedy="try again when it has ended"
        ) from None


def _device_user(path: Path) -> str:
    """Return where a device or one of its partitions is mounted, for a message; "" if nowhere."""
    number = path.stat().st_rdev
    folder = SYS / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}"
    numbers = {folder.name}
    for partition in folder.glob("*/partition"):
        numbers.add((partition.parent / "dev").read_text().strip())
    for line in MOUNTS.read_text().splitlines():
        fields = line.split(" ")
        if fields[2] in numbers:
            return f"it is mounted on {fields[4]}"
    return ""


def _image_user(path: Path) -> str:
    """Return which loop device uses an image file, for a message; "" if none."""
    for backing in (SYS / "block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if path.samefile(backing.read_text().rstrip("\n")):
                device = backing.parents[1].name
                return _device_user(Path("/dev", device)) or f"it is attached as /dev/{device}"
    return ""
