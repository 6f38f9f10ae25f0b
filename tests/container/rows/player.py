# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays one environment in a container: copies the system, makes each row's files twice, looks.

It gets `play.json` beside it and writes `/seen.json`. What a generator makes by itself, under a
stranger's variables, is seen first; then it runs as the build runs hooks, with the build's own code
(`pipeline.guest`) and the shared hooks, and the whole tree is seen.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.documents.job import Job
from pipeline.documents.machine import Settings
from pipeline.guest import locales, programs, serial_port, tree
from pipeline.guest.job import GuestJob
from pipeline.guest.serial_port import Report
from pipeline.guest.times import Times

HERE = Path(__file__).parent
EMPTY = {"proc", "sys", "dev", "run", "tmp"}
NOT_THE_SYSTEMS = {"in", "etc/hostname", "etc/hosts", "etc/resolv.conf", ".dockerenv"}
PACKED = 1_700_000_000  # the time that files have in packages
NOW = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}  # with the true clock
STRANGE = {
    "alpha": {"LANG": "C", "ROWS": "1", "PERL_HASH_SEED": "1", "PYTHONHASHSEED": "1", "TZ": "UTC"},
    "beta": {
        "LC_ALL": "de_DE.UTF-8",
        "TZ": "America/Anchorage",
        "PERL_HASH_SEED": "2",
        "PYTHONHASHSEED": "2",
        "XDG_DATA_HOME": "/nowhere",
        "MALLOC_PERTURB_": "165",
    },
}


def main() -> None:
    play = json.loads((HERE / "play.json").read_text())
    machine = Settings.of(play["machine"])
    os.umask(int(machine.factors.umask, 8))
    job = GuestJob(Job.of(play["job"]), machine, scratch(play))
    started = int(time.time())
    copy(job.tree, backwards=play["backwards"], given=play["given"])
    serial_port._find_port = lambda: Path("/dev/stderr")
    locales.make(job.machine.factors.locale)
    factors = {**witness(job.tree), "sorting": sorted_inside(job)}
    alone = {}
    for row in play["rows"]:
        make_alone(job.tree, row["does"], STRANGE[play["name"]])
        alone[row["name"]] = dict(seen(job.tree, row["files"]))
    times = Times(job.epoch, started)
    build(job, play, Report(), times)
    settled = {row["name"]: dict(seen(job.tree, row["files"])) for row in play["rows"]}
    whole = dict(seen(job.tree, ["**"]))
    found = {"factors": factors, "alone": alone, "settled": settled, "whole": whole}
    Path("/seen.json").write_text(json.dumps(found))


def scratch(play: dict[str, Any]) -> Path:
    """Return where this environment builds: on the container's disk, or in memory."""
    folder = Path(play["machine"]["build_path"])
    folder.mkdir(parents=True)
    if play["in_memory"]:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder], check=True)
    return folder


def build(job: GuestJob, play: dict[str, Any], log: Report, times: Times) -> None:
    """Run the generators as hooks, then the shared hooks, the initramfs and the cleaning."""
    env = programs.environment(job.machine.factors, job.epoch)
    rows = [row for row in play["rows"] if row["hook"]]
    scripts = {row["name"]: f"#!/bin/sh\nset -e\n{row['does']}\n" for row in rows}
    for name, does in {**scripts, **play["hooks"]}.items():
        hook = job.work / name
        hook.write_text(does)
        tree.run_chroot_hook(job, log, env, hook)
        times.settle_passwords(job.tree, job.epoch)
    tree.make_initramfs(job, log, env)
    tree.clean(job, times)


def copy(root: Path, *, backwards: bool, given: dict[str, str]) -> None:
    """Copy the container's own system, forwards or backwards, and what the rows are given."""
    root.mkdir()
    root.chmod(0o755)
    names = {path.name for path in Path("/").iterdir()} - EMPTY - {root.parts[1], "srv"}
    listed = subprocess.run(["find", *names, "-xdev"], cwd="/", stdout=subprocess.PIPE, check=True)
    found = set(os.fsdecode(listed.stdout).splitlines()) - NOT_THE_SYSTEMS
    paths = sorted((path for path in found if not path.startswith("in/")), reverse=backwards)
    for name in sorted(EMPTY, reverse=backwards):
        (root / name).mkdir()
        (root / name).chmod(0o755)
    pack = ["tar", "--create", "--no-recursion", "--xattrs", "--files-from=-"]
    packing = subprocess.Popen(
        pack, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=NOW
    )
    unpack = ["tar", "--extract", "--preserve-permissions", "--numeric-owner", "--xattrs"]
    unpacking = subprocess.Popen(unpack, cwd=root, stdin=packing.stdout, env=NOW)
    assert packing.stdin
    with packing.stdin as names_of_files:
        names_of_files.write(os.fsencode("\n".join(paths)))
    if packing.wait() != 0 or unpacking.wait() != 0:
        sys.exit("the system cannot be copied")
    for name, content in sorted(given.items(), reverse=backwards):
        make = ["install", "-D", "--mode=644", "/dev/stdin", str(root / name)]
        subprocess.run(make, input=content.encode(), env=NOW, check=True)
        os.utime(root / name, (PACKED, PACKED))
    now = time.time()  # as an installation at this hour leaves the folders that it fills
    for folder, _, _ in os.walk(root):
        os.utime(folder, (now, now))


def witness(root: Path) -> dict[str, Any]:
    """Tell what this environment has of all that is varied."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "day": int(time.time()) // (24 * 3600),
        "host name": os.uname().nodename,
        "umask": umask,
        "processors": len(os.sched_getaffinity(0)),
        "directory order": [p.name for p in (root / "usr/share/applications").iterdir()],
    }


def sorted_inside(job: GuestJob) -> list[str]:
    """Tell how a hook sorts, with its own locale and with one that it asks for."""
    sort = "printf '%s\\n' b A a B"
    does = f"{sort} | sort >/sorted; {sort} | LC_ALL=C.UTF-8 sort >>/sorted"
    env = programs.environment(job.machine.factors, job.epoch)
    tree.in_chroot(job.tree, Report(), env, ["sh", "-ec", does], blame="sort")
    found = (job.tree / "sorted").read_text().splitlines()
    (job.tree / "sorted").unlink()
    return found


def make_alone(root: Path, does: str, variables: dict[str, str]) -> None:
    """Run a generator as someone would who knows of no measure."""
    inherited = ("LD_PRELOAD", "FAKETIME", "NO_FAKE_STAT")
    env = {name: os.environ[name] for name in inherited} | variables
    env["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    argv = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", tree.IN_CHROOT, "sh"]
    subprocess.run([*argv, root, "sh", "-ec", does], env=env, check=True, stdout=sys.stderr)


def seen(root: Path, patterns: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """Give what is at the paths: content or target, mode, owner, and time in seconds."""
    for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
        status = path.lstat()
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            content = ""
        name = str(path.relative_to(root))
        yield name, [content, f"{status.st_mode:o}", status.st_uid, status.st_gid, status.st_mtime]


main()
