#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes `upgrade.pyz`, the client of upgrades as one file, as a release publishes it.

python3 -m tools.make_upgrade [FILE]
"""

import sys
from pathlib import Path

from pipeline.kits.make.client import NAME, upgrade_client


def main() -> None:
    """Write the file named on the command line, or `upgrade.pyz` in the current folder."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else NAME)
    path.write_bytes(upgrade_client())
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
