# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes one kit outside of the machine: `python3 -m pipeline.guest.kits.program PLAN`.

PLAN is a file with a `KitPlan` as JSON. If that fails, the exit status is that of the failure;
details go to standard error, the message as the last line.
"""

import os
import sys
from pathlib import Path

from pipeline.documents.json_form import parse_json
from pipeline.documents.kit_plan import KitPlan
from pipeline.documents.malformed import Malformed
from pipeline.documents.progress import STATUS_INFRASTRUCTURE
from pipeline.guest.kits.kit import make_kit
from pipeline.guest.serial_port import StepFailed


def main(path: Path) -> int:
    """Make the kit of the plan in a file; return the exit status."""
    try:
        make_kit(_read(path), os.environ)
    except StepFailed as failure:
        sys.stderr.write(f"{failure.detail}\n{failure.what}\n")
        return failure.status
    return 0


def _read(path: Path) -> KitPlan:
    try:
        return KitPlan.of(parse_json(path.read_bytes()))
    except (OSError, Malformed) as error:
        raise StepFailed(STATUS_INFRASTRUCTURE, f"{path} is no plan of a kit: {error}") from error


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
