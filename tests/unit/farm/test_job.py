# SPDX-License-Identifier: GPL-3.0-or-later
"""The bytes of job.json: environments sign them, and those of 0.1 must not change."""

from pipeline.documents.inputs import Inputs
from pipeline.documents.json_form import json_bytes
from pipeline.documents.source import Source
from pipeline.farm.config import parse_image
from pipeline.farm.job import make_job

IMAGE = b"""\
description: A test
suite: trixie
volume_id: TEST
kernel_parameters: quiet
upgrade: false
expected_differences:
  - {path: etc/a, reason: reported upstream, until: 2027-01-31}
"""
SOURCE = {
    "format": "twinbuild-source/1",
    "repository": "https://example.org/mini.git",
    "ref": "3.3",
    "commit": "c" * 40,
    "tree": "7" * 40,
    "epoch": 1_766_400_000,
    "version": "3.3",
    "tag": {"name": "3.3", "object": "8" * 40, "signer": "ada@example.org"},
    "dirty": False,
    "tar_sha256": "a" * 64,
}
FILE = {"name": "xz_1.tar.gz", "size": 9, "sha256": "5" * 64}
LOCAL = {
    "sources": [
        {"name": "greeter", "version": "1:1.2-3", "epoch": 1, "sha256": "1" * 64}
        | {"dsc": None, "files": []},
        {"name": "xz", "version": "1", "epoch": 2, "sha256": "3" * 64}
        | {"dsc": "xz_1.dsc", "files": [FILE]},
    ],
    "packages": [
        {"name": "greeter", "version": "1:1.2-3", "architecture": "amd64", "source": "greeter"}
        | {"sha256": None, "file": None, "wanted": True},
        {"name": "made", "version": "2", "architecture": "all", "source": None}
        | {"sha256": "4" * 64, "file": "made_2_all.deb", "wanted": False},
    ],
}
KIT = {"from": "3.1", "ledger_sha256": "6" * 64, "partition_sha256": "b" * 64}
OF_IMAGE = {"from": "3.2", "ledger_sha256": None, "partition_sha256": None}
INPUTS = {
    "format": "twinbuild-inputs/1",
    "image": "mini",
    "lock_sha256": "d" * 64,
    "snapshot": None,
    "packages": [],
    "index_sha256": "9" * 64,
    "kits": [KIT | {"image_sha256": None}, OF_IMAGE | {"image_sha256": "e" * 64}],
    "local": LOCAL,
}
WRITTEN = """\
{
  "architecture": "amd64",
  "commit": "cccccccccccccccccccccccccccccccccccccccc",
  "compression": "strong",
  "epoch": 1766400000,
  "expected_differences": [
    {
      "path": "etc/a",
      "reason": "reported upstream",
      "until": "2027-01-31"
    }
  ],
  "format": "twinbuild-job/1",
  "guest_sha256": "2222222222222222222222222222222222222222222222222222222222222222",
  "image": "mini",
  "index_sha256": "9999999999999999999999999999999999999999999999999999999999999999",
  "kernel_parameters": "quiet",
  "kits": [
    {
      "from": "3.1",
      "image_sha256": null,
      "ledger_sha256": "6666666666666666666666666666666666666666666666666666666666666666",
      "partition_sha256": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
    },
    {
      "from": "3.2",
      "image_sha256": "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
      "ledger_sha256": null,
      "partition_sha256": null
    }
  ],
  "local": {
    "packages": [
      {
        "architecture": "amd64",
        "file": null,
        "name": "greeter",
        "sha256": null,
        "source": "greeter",
        "version": "1:1.2-3",
        "wanted": true
      },
      {
        "architecture": "all",
        "file": "made_2_all.deb",
        "name": "made",
        "sha256": "4444444444444444444444444444444444444444444444444444444444444444",
        "source": null,
        "version": "2",
        "wanted": false
      }
    ],
    "sources": [
      {
        "dsc": null,
        "epoch": 1,
        "files": [],
        "name": "greeter",
        "sha256": "1111111111111111111111111111111111111111111111111111111111111111",
        "version": "1:1.2-3"
      },
      {
        "dsc": "xz_1.dsc",
        "epoch": 2,
        "files": [
          {
            "name": "xz_1.tar.gz",
            "sha256": "5555555555555555555555555555555555555555555555555555555555555555",
            "size": 9
          }
        ],
        "name": "xz",
        "sha256": "3333333333333333333333333333333333333333333333333333333333333333",
        "version": "1"
      }
    ]
  },
  "lock_sha256": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",
  "source_sha256": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
  "suite": "trixie",
  "upgrade": false,
  "version": "3.3",
  "volume_id": "TEST"
}
"""


def test_its_bytes_are_those_of_0_1() -> None:
    image = parse_image(IMAGE, "image.yaml")
    source, inputs = Source.of(SOURCE), Inputs.of(INPUTS)
    job = make_job(source, inputs, image, compression="strong", guest_sha256="2" * 64)
    assert json_bytes(job.document()).decode() == WRITTEN
