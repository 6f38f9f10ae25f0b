# SPDX-License-Identifier: GPL-3.0-or-later
"""Run folders as two real builds leave them: real SquashFS, ISO, ledgers and signed statements."""

import gzip
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.base import dsse
from pipeline.base.files import write_json
from pipeline.documents import statement
from pipeline.documents.digest import sha256_file
from pipeline.documents.system_partition import without_digest
from pipeline.farm.run import Request, Run, create

EPOCH = 1795372707
COMMIT = "0" * 40
VARIED: dict[str, dict[str, Any]] = {
    "alpha": {
        "host_name": "alpha-host",
        "user": "ada",
        "build_path": "/srv/alpha/twinbuild/work",
        "locale": "C.UTF-8",
        "time_zone": "Pacific/Kiritimati",
        "umask": "0022",
        "machine_type": "q35",
        "scratch_filesystem": "ext4",
        "clock_offset_days": 213,
        "environment_variables": {"QZWXECRVTB": "a b"},
    },
    "beta": {
        "host_name": "b",
        "user": "barbara",
        "build_path": "/b",
        "locale": "C",
        "time_zone": "America/Anchorage",
        "umask": "0027",
        "machine_type": "pc",
        "scratch_filesystem": "xfs",
        "clock_offset_days": 398,
        "environment_variables": {"QZMKOPLNJI": "17"},
    },
}
KERNELS = {"alpha": "6.12.117+deb13-cloud-amd64", "beta": "6.1.0-56-cloud-amd64"}
STARTED = datetime(2026, 11, 22, 18, 39, 25, tzinfo=UTC)
Tree = Mapping[str, bytes]
Files = tuple[tuple[str, bytes], ...]


def clock(name: str) -> datetime:
    """Return what the machine's clock showed when the build began."""
    return STARTED + timedelta(days=VARIED[name]["clock_offset_days"])


def built_at(name: str) -> int:
    """Return a time within the build's hours, by the machine's clock."""
    return int(clock(name).timestamp()) + 200


def make_run(runs: Path, trees: Mapping[str, Tree], boots: Mapping[str, Tree] | None = None) -> Run:
    """Make a run whose environments built these trees, and put these files on the ISO beside."""
    run = create(runs, Request(image="mini", commit="HEAD", environments=tuple(trees)))
    source: dict[str, object]
    source = {"format": "twinbuild-source/1", "repository": "file:///srv/mini.git", "ref": "HEAD"}
    source |= {"commit": COMMIT, "epoch": EPOCH, "version": "3.3", "dirty": False, "tag": None}
    write_json(run.source_json, source | {"tree": COMMIT, "tar_sha256": "0" * 64})
    package = {"name": "adduser", "version": "3.152", "size": 191048}
    write_json(run.inputs_json, {"format": "twinbuild-inputs/1", "packages": [package]})
    for name, tree in trees.items():
        build(run, name, tree, (boots or {}).get(name, {}))
    return run


def build(run: Run, name: str, tree: Tree, boot: Tree) -> None:
    """Leave what a build of `tree` does."""
    folder = run.environment(name)
    (folder / "artifacts").mkdir(parents=True)
    job = {"format": "twinbuild-job/1", "image": "mini", "commit": COMMIT, "compression": "fast"}
    job |= {"lock_sha256": "0" * 64}
    write_json(folder / "job.json", job)
    iso = folder / "artifacts" / "mini-amd64-3.3.iso"
    large = sum(map(len, tree.values())) > 2**20  # more than is worth keeping
    make = _iso.__wrapped__ if large else _iso
    iso.write_bytes(make(tuple(sorted(tree.items())), tuple(sorted(boot.items()))))
    (folder / "artifacts" / "mini-amd64-3.3.packages").write_text("adduser 3.152 all 0\n")
    lines: list[dict[str, Any]] = [{"step": "20-bootstrap"}, {"step": "40-hooks/10-stamp"}]
    lines += [_entry(path, content) for path, content in sorted(tree.items())]
    lines += [{"step": "80-boot"}]
    lines += [_made(without_digest(path), content) for path, content in sorted(boot.items())]
    text = "".join(json.dumps(x, sort_keys=True, separators=(",", ":")) + "\n" for x in lines)
    (folder / "ledger.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    (folder / "console.log").write_text(f"Linux version {KERNELS[name]}\nthe build ended\n")
    (folder / "progress.jsonl").write_text('{"record": "step", "step": "20-bootstrap"}\n')
    steps = {"20-bootstrap": 320.547, "40-hooks/10-stamp": 0.9, "80-boot": 6.6}
    write_json(folder / "timings.json", {"steps": steps, "by_hand": {}})
    state(run, name, job)


def fail(run: Run, name: str, what: str) -> None:
    """Make a build a failed one."""
    (run.environment(name) / "statement.json").unlink()
    write_json(run.environment(name) / "failure.json", {"status": 3, "what": what, "detail": ""})


def state(run: Run, name: str, job: dict[str, Any]) -> None:
    folder = run.environment(name)
    machine = {
        "clock": clock(name).strftime("%Y-%m-%dT%H:%M:%S"),
        "cpus": 2 if name == "alpha" else 1,
        "memory_mib": 4096,
        "facts": {"kernel": KERNELS[name], "cpus": "2" if name == "alpha" else "1"},
        "varied": VARIED[name],
    }
    document = statement.make(
        statement.Statement(
            environment=name,
            run_id=run.id,
            repository="file:///srv/mini.git",
            commit=COMMIT,
            tag=None,
            image="mini",
            compression="fast",
            lock_sha256="0" * 64,
            job=job,
            machine=machine,
            artifacts={p.name: sha256_file(p) for p in (folder / "artifacts").iterdir()},
            byproducts={n: sha256_file(folder / n) for n in statement.BYPRODUCTS},
            started=STARTED,
            finished=STARTED + timedelta(seconds=520),
        )
    )
    path = run.folder.parent / f"{name}.key"
    if not path.exists():
        dsse.make_key(path)
    write_json(folder / "statement.json", dsse.sign(document, dsse.load_key(path)))


def _entry(path: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    facts = {"mode": 0o644, "uid": 0, "gid": 0, "mtime": EPOCH, "size": len(content)}
    return {"path": path, "type": "file", "sha256": digest, **facts}


def _made(path: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"artifact": path, "sha256": digest, "size": len(content)}


@lru_cache(maxsize=32)
def _iso(tree: Files, boot: Files) -> bytes:
    """Return an ISO of these files that holds a SquashFS of those; many tests ask for the same."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        _write(made / "tree", tree)
        _write(made / "binary", (*boot, ("live/keep", b"")))
        squashfs = made / "binary" / "live" / "filesystem.squashfs"
        times = ("-all-time", "1", "-mkfs-time", "1")
        _run("mksquashfs", made / "tree", squashfs, "-quiet", "-no-progress", *times)
        iso = made / "made.iso"
        dates = ["--modification-date=2026112218000000", "--set_all_file_dates", "2026112218000000"]
        _run("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", iso, *dates, made / "binary")
        return iso.read_bytes()


def _write(folder: Path, files: Files) -> None:
    folder.mkdir(parents=True)
    for path, content in files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        os.utime(target, (EPOCH, EPOCH))


def _run(*argv: str | Path) -> None:
    subprocess.run([os.fspath(a) for a in argv], check=True, capture_output=True)
