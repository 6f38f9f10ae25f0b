# SPDX-License-Identifier: GPL-3.0-or-later
"""`./farm bench kit`: times making a kit against Tails' method, on the same two releases.

The releases are two trees of this machine's own Debian files, the second as after an upgrade: some
files changed, some removed, some new, and some only with another time. Tails' method: mount both
SquashFS, make an overlay over the earlier one, let rsync turn that into the later one by checksums,
and pack the overlay's upper layer with mksquashfs. Both compress alike; ours includes reading the
finished delta back and proving it.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pipeline.base import command
from pipeline.base.errors import UsageError
from pipeline.base.files import write_json
from pipeline.documents.digest import sha256_file
from pipeline.documents.kit_plan import Earlier, KitPlan, Later

MIB = 1024 * 1024
EPOCH = 1_700_000_000
SIZE_MIB = 500
TIMEOUT_S = 3600.0
SOURCES = ("etc", "usr/bin", "usr/lib/x86_64-linux-gnu", "usr/sbin", "usr/share")
COMPRESSION = ("-comp", "zstd", "-b", "1M")  # at the default level, 15, as for releases
CHECKOUT = Path(__file__).parents[1]


def bench_kit(*, size_mib: int = SIZE_MIB) -> Iterator[str]:
    """Measure both methods on trees of about this size; yield a table line by line.

    Raise UsageError if the caller is not root: Tails' method mounts, and our proof unpacks.
    """
    if os.geteuid() != 0:
        raise UsageError("this bench mounts file systems", remedy="run it as root")
    with tempfile.TemporaryDirectory(prefix="twinbuild-bench-") as name:
        folder = Path(name)
        _make_trees(folder, size_mib * MIB)
        sizes = [(folder / f"live/{version}.squashfs").stat().st_size for version in ("old", "new")]
        yield f"two releases: {sizes[0] / MIB:.1f} and {sizes[1] / MIB:.1f} MiB"
        yield f"{'':<32} {'seconds':>8} {'MiB':>8} {'compressor':>11} {'the rest':>9}"
        theirs = _their_way(folder)
        yield _row("overlay, rsync, mksquashfs", *theirs)
        found = []
        for processors in (os.cpu_count() or 1, 1):
            ours, digest = _our_way(folder, processors)
            found.append((ours, digest))
            yield _row(f"ledgers, sqfstar, {processors} CPUs, proven", *ours)
        seconds, size, *_ = found[0][0]
        yield f"{theirs[0] / seconds:.1f} times as fast, {size / theirs[1]:.1%} of the size"
        same = "the same bytes" if len({digest for _, digest in found}) == 1 else "OTHER BYTES"
        yield f"{same} with 1 and {os.cpu_count()} CPUs"


def _row(what: str, seconds: float, size: int, compressor: float, rest: float) -> str:
    return f"{what:<32} {seconds:8.2f} {size / MIB:8.2f} {compressor:11.0f} {rest:9.0f}"


def _make_trees(folder: Path, limit: int) -> None:
    """Make the trees `old` and `new`, their SquashFS files, ledgers and partition lists."""
    old, new, live = folder / "old", folder / "new", folder / "live"
    live.mkdir()
    old.mkdir(mode=0o755)
    argv = ["rsync", "--archive", "--hard-links", "--xattrs", "--relative", "--no-devices"]
    names = _some_files(limit)
    (folder / "names").write_bytes(b"\0".join(map(os.fsencode, names)))
    argv += ["--from0", f"--files-from={folder / 'names'}", "/", os.fspath(old)]
    _run(argv)
    _run(["cp", "-a", os.fspath(old), os.fspath(new)])
    _upgrade(new)
    for version in ("old", "new"):
        _clamp(folder / version)
        squashfs = live / f"{version}.squashfs"
        _run(["mksquashfs", os.fspath(folder / version), os.fspath(squashfs), *_packing()])
        content = {"size": squashfs.stat().st_size, "sha256": sha256_file(squashfs)}
        line = {"path": f"live/{squashfs.name}", "type": "file", **content}
        (folder / f"{version}.partition").write_text(json.dumps(line) + "\n")
        record = [sys.executable, "-m", "tools.record_tree", os.fspath(folder / version)]
        _run([*record, os.fspath(folder / f"{version}.ledger")])


def _some_files(limit: int) -> list[str]:
    """Return paths of Debian files here, chosen by hashes of names, of at most `limit` bytes."""
    paths = [path for source in SOURCES for path in Path("/", source).rglob("*")]
    found = []
    for path in sorted(paths, key=_lot):
        size = path.lstat().st_size
        if size < limit and (path.is_symlink() or path.is_file()):
            found.append(os.fspath(path.relative_to("/")))
            limit -= size
    return found


def _lot(path: Path) -> bytes:
    return hashlib.sha256(os.fsencode(path)).digest()


def _upgrade(tree: Path) -> None:
    """Change a tree as an upgrade does; hashes of names decide which files."""
    for path in sorted(tree.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        lot = _lot(path.relative_to(tree))[0]
        if lot < 6:  # of 256
            with path.open("ab") as file:
                file.write(b"another build")
        elif lot == 6:
            path.unlink()
        elif lot == 7:
            shutil.copyfile(path, path.with_name(f"{path.name}.new"))
        elif lot < 10:  # built again with the same content
            os.utime(path, (EPOCH - 5, EPOCH - 5))


def _clamp(tree: Path) -> None:
    for path in [*tree.rglob("*"), tree]:
        if path.lstat().st_mtime > EPOCH:
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def _their_way(folder: Path) -> tuple[float, int, float, float]:
    """Return seconds, bytes, and the peak MiB of the compressor and of rsync."""
    names = ("lower", "later", "upper", "union")
    lower, later, upper, union = mounts = [folder / "tails" / name for name in names]
    for mount in mounts:
        mount.mkdir(parents=True)
    delta = folder / "tails.squashfs"
    seconds = rest = 0.0
    with ExitStack() as mounted:
        for what, *argv in (
            (lower, "-t", "squashfs", "-o", "loop,ro", folder / "live/old.squashfs"),
            (later, "-t", "squashfs", "-o", "loop,ro", folder / "live/new.squashfs"),
            (upper, "-t", "tmpfs", "tmpfs"),
        ):
            seconds += _measured(["mount", *argv, what])[0]
            mounted.callback(_run, ["umount", os.fspath(what)])
        (upper / "up").mkdir()
        (upper / "work").mkdir()
        options = f"lowerdir={lower},upperdir={upper / 'up'},workdir={upper / 'work'}"
        seconds += _measured(["mount", "-t", "overlay", "-o", options, "overlay", union])[0]
        with ExitStack() as laid:
            laid.callback(_run, ["umount", os.fspath(union)])
            words = ["--archive", "--hard-links", "--xattrs", "--checksum", "--delete"]
            took, rest = _measured(["rsync", *words, f"{later}/", f"{union}/"])
            seconds += took
        took, compressor = _measured(["mksquashfs", upper / "up", delta, *_packing()])
    return seconds + took, delta.stat().st_size, compressor, rest


def _our_way(folder: Path, processors: int) -> tuple[tuple[float, int, float, float], str]:
    """Return the same for our method, with the size of the whole kit, and the kit's digest."""
    earlier = Earlier("old", folder / "old.ledger", folder / "old.partition")
    later = Later(
        image="mini",
        architecture="amd64",
        version="new",
        epoch=EPOCH,
        compression="strong",
        ledger=folder / "new.ledger",
        partition=folder / "new.partition",
        tree=folder / "new",
        files=folder,
    )
    kit = folder / f"{processors}.iuk"
    plan = KitPlan(earlier, later, kit, folder / "work", processors)
    write_json(folder / "plan.json", plan.document())
    argv = [sys.executable, "-m", "tools.make_one_kit", os.fspath(folder / "plan.json")]
    output = command.run(argv, timeout_s=TIMEOUT_S, cwd=CHECKOUT)
    status, seconds, own, compressor = map(float, output.text.split())
    if status:
        raise UsageError("the kit could not be made", detail=output.tail)
    return (seconds, kit.stat().st_size, compressor / 1024, own / 1024), sha256_file(kit)


def _packing() -> list[str]:
    quiet = ["-noappend", "-quiet", "-no-progress", "-no-recovery", "-mem", "512M"]
    return [*quiet, *COMPRESSION, "-mkfs-time", str(EPOCH)]


def _measured(argv: Sequence[str | Path]) -> tuple[float, float]:
    """Run a program; return its seconds and peak MiB."""
    words = [os.fspath(word) for word in argv]
    words[0] = os.fspath(command.find(words[0]))
    output = _run([sys.executable, "-m", "tools.measure", *words])
    status, seconds, memory = output.text.split()
    if int(status):
        raise UsageError(f"{words[0]} ended with status {status}", detail=output.tail)
    return float(seconds), float(memory) / 1024


def _run(argv: Sequence[str]) -> command.Completed:
    return command.run(argv, timeout_s=TIMEOUT_S, cwd=CHECKOUT)
