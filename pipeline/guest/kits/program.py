# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes one kit outside of the machine: `python3 -m pipeline.guest.kits.program PLAN`.

PLAN is a JSON file: `earlier` and `later` with the fields of `kit.Earlier` and `kit.Later`, `kit`
and `work`, `processors` and `proven` as `kit.make_kit` takes them. Ends with the status of the
failure, and with what happened on standard error.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from pipeline.guest.kits.kit import Earlier, Later, make_kit
from pipeline.guest.serial_port import StepFailed

PATHS = {"ledger", "partition", "tree", "files"}


def main(plan: Path) -> int:
    """Make the kit of a plan; return an exit status of design.md."""
    asked = json.loads(plan.read_text())
    earlier, later = Earlier(**_fields(asked["earlier"])), Later(**_fields(asked["later"]))
    try:
        make_kit(
            earlier,
            later,
            Path(asked["kit"]),
            Path(asked["work"]),
            os.environ,
            processors=asked["processors"],
            proven=asked["proven"],
        )
    except StepFailed as failure:
        sys.stderr.write(f"{failure.detail}\n{failure.what}\n")
        return failure.status
    return 0


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    return {name: Path(value) if name in PATHS else value for name, value in given.items()}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
