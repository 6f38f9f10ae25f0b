# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs for tests: one that is whole, with what a test changes of it."""

from typing import Any

from pipeline.documents.job import Job

DOCUMENT: dict[str, Any] = {
    "format": "twinbuild-job/1",
    "image": "mini",
    "architecture": "amd64",
    "suite": "trixie",
    "volume_id": "MINI",
    "kernel_parameters": "",
    "expected_differences": [],
    "version": "3.3",
    "commit": "c" * 40,
    "epoch": 1_766_400_000,
    "compression": "fast",
    "lock_sha256": "d" * 64,
    "source_sha256": "a" * 64,
    "index_sha256": "9" * 64,
    "kits": [],
    "local": None,
    "upgrade": True,
    "guest_sha256": "2" * 64,
}


def make_document(**changes: Any) -> Job:
    """Return a job with some of its fields changed, as `job.json` has them."""
    return Job.of({**DOCUMENT, **changes})
