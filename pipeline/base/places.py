# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Twinbuild itself lies, and the farm that this process works for.

Both are one folder in a checkout of Twinbuild. Installed, Twinbuild is a folder of Python's, which
is laid out alike, and the farm is a distribution's repository.
"""

from pathlib import Path

# Holds pipeline/, hooks/, images/, docs/ and verify.py.
PROGRAM = Path(__file__).resolve().parents[2]
# Holds farm.yaml, keys/, runs/; whoever reads the command line sets it, once.
farm = PROGRAM
