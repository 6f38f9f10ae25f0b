# SPDX-License-Identifier: GPL-3.0-or-later
"""The disks of a machine, and what the input disk and the output disk hold."""

from __future__ import annotations

# virtio-blk serial numbers
ROOT_DISK, INPUT_DISK, SCRATCH_DISK, OUTPUT_DISK = "root", "input", "scratch", "output"
TREES_DISK, LAYERS_DISK = "trees", "layers"  # kept trees that went in, and that come out

# The input disk is a tar archive in this order; the machine's programs, `machine.json` and
# `job.json` come first.
REPOSITORY = "repository"  # an apt archive: dists/<suite>/<component>/…, pool/*.deb
# Its components: the image's locked packages, what builds the image's own, and, once they are
# built, these.
MAIN, BUILD, LOCAL = "main", "build", "local"
SOURCES = "sources"  # files of source packages that the commit names by hash
SOURCE_TAR = "source.tar"
LOCK = "lock"
EARLIER = "earlier"  # releases that kits start from, a folder each, as `Kit.files` names them

# The output disk is a tar archive: ARTIFACTS/<name>…, then LEDGER and TIMINGS.
ARTIFACTS = "artifacts"
LEDGER = "ledger.jsonl.gz"
TIMINGS = "timings.json"
