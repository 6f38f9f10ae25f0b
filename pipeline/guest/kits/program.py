# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes one kit outside of the machine: `python3 -m pipeline.guest.kits.program PLAN`.

PLAN is a file that `documents/kit_plan.py` describes. Ends with the status of the failure, and with
what happened on standard error.
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
    """Make the kit of a plan; return an exit status of design.md."""
    try:
        plan = KitPlan.of(parse_json(path.read_bytes()))
        make_kit(
            plan.earlier,
            plan.later,
            plan.kit,
            plan.work,
            os.environ,
            processors=plan.processors,
            proven=plan.proven,
        )
    except Malformed as error:
        sys.stderr.write(f"{path}: {error}\n")
        return STATUS_INFRASTRUCTURE
    except StepFailed as failure:
        sys.stderr.write(f"{failure.detail}\n{failure.what}\n")
        return failure.status
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
