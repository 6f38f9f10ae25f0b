# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares two ledgers, in a process of its own that can be measured; status 1 if they are equal.

`python3 -m tools.compare_two_ledgers LEDGER LEDGER`
"""

import sys
from pathlib import Path

from pipeline.compare.ledgers import compare_ledgers

if __name__ == "__main__":
    first, second = map(Path, sys.argv[1:])
    sys.exit(not compare_ledgers(("alpha", "beta"), (first, second)).differences)
