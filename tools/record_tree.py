# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the final ledger of a tree as the build machine does: `-m tools.record_tree TREE FILE`."""

import sys
from pathlib import Path

from pipeline.guest.ledger import Ledger


def main(tree: Path, final: Path) -> None:
    """Write the final ledger of `tree` to the file `final`."""
    ledger = Ledger(tree, final.with_suffix(".steps"))
    ledger.record("all")
    ledger.close()
    with final.open("wb") as out:
        ledger.write_final(out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
