# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine and the outside agree on: disks, records, statuses and limits."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# virtio-blk serial numbers
ROOT_DISK, INPUT_DISK, SCRATCH_DISK, OUTPUT_DISK = "root", "input", "scratch", "output"
TREES_DISK, LAYERS_DISK = "trees", "layers"  # kept trees that went in, and that come out

# The name of the virtio-serial port that carries the records, one JSON object a line.
PROGRESS_PORT = "twinbuild.progress"

# {"record": "step", "step": name}            a step begins
# {"record": "step-done", "step": name, "seconds": float}
# {"record": "log", "line": text}             what a program printed
# {"record": "layer", "step": name, …}        what the step changed is on the layers disk: `offset`,
#                  `size`, `head` in bytes, `sha256` of these bytes, the ledger's `digest`, and when
#                  the build `started` and the layer `ended`, in seconds by the machine's clock
# {"record": "damaged", "step": name}         a layer that went in is not what was kept
# {"record": "alive"}                         every ALIVE_EVERY_S seconds
# {"record": "failed", "status": 3, 4 or 5, "step": name, "what": text, "detail": text}
# {"record": "done", "facts": {name: text}}
RECORDS = ("step", "step-done", "log", "layer", "damaged", "alive", "failed", "done")
ALIVE_EVERY_S = 5.0
RECORD_LIMIT = 1024 * 1024  # bytes of one line
LINE_LIMIT = 2000  # characters of a logged line

# The input disk is a tar archive in this order; `guest/`, `machine.json` and `job.json` come first.
REPOSITORY = "repository"  # an apt archive: dists/<suite>/<component>/…, pool/*.deb
# Its components: the image's locked packages, what builds the image's own, and, once they are
# built, these.
MAIN, BUILD, LOCAL = "main", "build", "local"
SOURCES = "sources"  # files of source packages that the commit names by hash
SOURCE_TAR = "source.tar"
LOCK = "lock"
EARLIER = "earlier"  # releases that kits start from, a folder each, as `earlier_files` names them

# The output disk is a tar archive: ARTIFACTS/<name>…, then LEDGER and TIMINGS.
ARTIFACTS = "artifacts"
LEDGER = "ledger.jsonl.gz"
TIMINGS = "timings.json"

# Which release an installed system boots: one sector, which a disk writes whole or not at all.
SWITCH = "boot/grub/current.cfg"
SWITCH_SIZE = 512  # bytes

KIT_FORMAT = "twinbuild-kit/1"

PACKAGES = "15-packages"  # what builds the image's own packages; a step for each source follows
# Where sources lie in the tree that builds them, the build path below it: a root directory may have
# file systems mounted anywhere but here.
BUILD_FOLDER = "build"
BOOTSTRAP = "20-bootstrap"  # the first step of the tree, which depends on the lock alone

LAST_KEPT = "50-initramfs"  # what follows is fast, and settles times as no kept tree shows

# Of an image: which files come first in its SquashFS, a path and a priority a line.
SORT_FILE = "squashfs.sort"
PRIORITIES = range(-(2**15), 2**15)

# The parts of a live-build configuration tree that a build or its lock applies.
IMAGE_PARTS = frozenset(
    {
        "apt",
        "archives",
        "exclude",
        "hooks",
        "image.yaml",
        "includes.binary",
        "includes.chroot",
        "includes.chroot_after_packages",
        "lock",
        "package-lists",
        "packages",
        "packages.chroot",
        "preferences",
        "README.md",
        SORT_FILE,
    }
)

SCRATCH_FULL = "the scratch disk is full"

STATUS_BUILD_FAILED, STATUS_INFRASTRUCTURE, STATUS_INPUTS = 3, 4, 5


def switch(version: str, previous: str = "") -> bytes:
    """Return the sector that says which release boots, and which one was there before."""
    return f"set version={version}\nset previous={previous}\n".encode().ljust(SWITCH_SIZE, b"\n")


def sort_line(path: str, priority: int) -> str:
    """Return a line of an image's SORT_FILE, in which a backslash stands before what is special."""
    return re.sub(r'([\s"\\#])', r"\\\1", path) + f" {priority}\n"


def earlier_files(kit: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of the files that one of the job's `kits` is made from, by their paths.

    They are the earlier release's final ledger and the list of its system partition's files, or
    its USB image where it has none of these.
    """
    names = {"ledger": "ledger.jsonl.gz", "partition": "partition", "image": "image.img"}
    folder = f"{EARLIER}/{kit['from']}"
    stated = {f"{folder}/{file}": kit[f"{what}_sha256"] for what, file in names.items()}
    return {path: sha256 for path, sha256 in stated.items() if sha256}


def source_files(job: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of the files of source packages that a job names by hash, by their paths.

    They are named by their hash: two sources may call different files the same.
    """
    sources = (job.get("local") or {}).get("sources", ())
    found = [file["sha256"] for source in sources for file in source.get("files", ())]
    return {f"{SOURCES}/{sha256}": sha256 for sha256 in found}


# --- from here on, verify.py carries a copy, and a test compares the two


@dataclass(frozen=True)
class ArtifactNames:
    """The names of all that a build hands back to be compared and published."""

    iso: str
    usb_image: str
    packages: str
    partition: str  # what the USB image's system partition holds
    ledger: str  # of the final tree
    kits: tuple[str, ...]  # one for each of the job's `kits`, in its order
    built: tuple[str, ...] = ()  # the packages that the image builds itself

    def all(self) -> tuple[str, ...]:
        """Return every name."""
        names = (self.iso, self.usb_image, self.packages, self.partition, self.ledger)
        return (*names, *self.kits, *self.built)


def deb_name(name: str, version: str, architecture: str) -> str:
    """Return what dpkg-deb calls the file of a package: without the epoch of its version."""
    return f"{name}_{version.partition(':')[2] or version}_{architecture}.deb"


def artifact_names(job: Mapping[str, Any]) -> ArtifactNames:
    """Return the names of the artifacts of a job, which is `job.json`."""
    product = f"{job['image']}-{job['architecture']}"
    stem = f"{product}-{job['version']}"
    return ArtifactNames(
        iso=f"{stem}.iso",
        usb_image=f"{stem}.img",
        packages=f"{stem}.packages",
        partition=f"{stem}.partition",
        ledger=f"{stem}.ledger.jsonl.gz",
        kits=tuple(f"{product}-{k['from']}-to-{job['version']}.iuk" for k in job.get("kits", ())),
        built=tuple(
            deb_name(p["name"], p["version"], p["architecture"])
            for p in (job.get("local") or {}).get("packages", ())
            if p["source"]
        ),
    )
