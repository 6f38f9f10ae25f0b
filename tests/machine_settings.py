# SPDX-License-Identifier: GPL-3.0-or-later
"""`machine.json` for tests: one that is whole, in the form that it has, and factors of it."""

from typing import Any

from pipeline.documents.json_form import parse_json
from pipeline.documents.machine import Factors, Settings

SEED = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
WRITTEN = b"""\
{
  "build_path": "/srv/alpha/twinbuild/work",
  "clock_offset_days": 213,
  "clock_offset_minutes": 0,
  "cpu_model_kvm": "host",
  "cpu_model_tcg": "max,-erms,-fsrm",
  "description": "Debian 13 with its QEMU and its kernel",
  "directory_seed": "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
  "environment_variables": {
    "ABCDEFGH": " ~"
  },
  "host_name": "alpha-host",
  "locale": "de_DE.UTF-8",
  "machine_type": "q35",
  "measure_by_hand": true,
  "open_files": 1024,
  "processes": 4096,
  "randomized_addresses": true,
  "scratch_filesystem": "ext4",
  "suite": "trixie",
  "time_zone": "Pacific/Kiritimati",
  "trees": {
    "begin": [
      {
        "digest": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        "ended": 2,
        "head": 7,
        "offset": 0,
        "size": 1000,
        "started": 1,
        "step": "20-bootstrap"
      },
      {
        "digest": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        "ended": 2,
        "head": 7,
        "offset": 1000,
        "size": 50,
        "started": 1,
        "step": "30-includes"
      }
    ],
    "keep": true,
    "stop": "30-includes"
  },
  "umask": "0022",
  "user": "ada"
}
"""
DOCUMENT: dict[str, Any] = parse_json(WRITTEN)


def make_settings(**changes: Any) -> Settings:
    """Return a machine's settings with some fields changed, as `machine.json` has them."""
    return Settings.of({**DOCUMENT, **changes})


def make_factors(**changes: Any) -> Factors:
    """Return the factors alone."""
    return make_settings(**changes).factors
