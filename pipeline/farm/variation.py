# SPDX-License-Identifier: GPL-3.0-or-later
"""The values of every factor in the environments of a run, by the requested level.

`none`     every factor that can be equal is equal; only the container host still differs, with its
           QEMU and its guest kernel
`default`  the values in `environment.yaml` and `farm.yaml`; the hash seed of ext4 is drawn
`all`      also the values under `all` in `environment.yaml`; environment variables are drawn, too

Drawn values depend only on the names of the run and the environment, so that a continued run draws
the same ones again, and whoever reads the statement can reproduce them.
"""

import random
import string
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import UsageError
from pipeline.documents.machine import Factor
from pipeline.farm.config import EnvironmentEntry, Farm, Variation, load_environment
from pipeline.farm.run import Request

# The values of all environments under `none`.
NEUTRAL: Mapping[str, object] = {
    "machine_type": "q35",
    # Without cmpxchg16b: in QEMU 7.2 without KVM, newer kernels that find it crash.
    "cpu_model_tcg": "Nehalem,-cx16",
    "cpu_model_kvm": "Nehalem",
    "clock_offset_days": 0,
    "clock_offset_minutes": 0,
    "time_zone": "UTC",
    "locale": "C.UTF-8",
    "host_name": "machine",
    "user": "builder",
    "build_path": "/build",
    "umask": "0022",
    "scratch_filesystem": "ext4",
    "open_files": 1024,
    "processes": 4096,
    "randomized_addresses": True,
}
OF_ENTRY = ("cpus", "memory_mib")  # the factors that are in `farm.yaml`
VARIABLES = 6  # how many environment variables are drawn


@dataclass(frozen=True)
class Choice:
    """The values of the factors of one environment in one run."""

    entry: EnvironmentEntry  # with the machine's memory and CPUs
    variation: Variation

    @property
    def factors(self) -> dict[str, Factor]:
        """The values of the factors, by name."""
        varied: dict[str, Factor] = self.variation.model_dump(exclude={"description"})
        return varied | {name: getattr(self.entry, name) for name in OF_ENTRY}

    def with_factors(self, values: Mapping[str, Factor]) -> "Choice":
        """Return this choice with other values of some factors."""
        of_entry = {name: value for name, value in values.items() if name in OF_ENTRY}
        varied = {name: value for name, value in values.items() if name not in OF_ENTRY}
        return Choice(
            self.entry.model_copy(update=of_entry), self.variation.model_copy(update=varied)
        )


def choose(farm: Farm, hosts: Path, run_id: str, request: Request) -> dict[str, Choice]:
    """Return the choice for each of a run's environments; `hosts` holds their folders.

    Raise UsageError if there is no such environment, or its `environment.yaml` is malformed.
    """
    unknown = sorted(set(request.environments) - set(farm.environments))
    if unknown:
        known = ", ".join(sorted(farm.environments))
        raise UsageError(f"there is no environment {unknown[0]!r}", remedy=f"farm.yaml has {known}")
    entries = {name: farm.environments[name] for name in request.environments}
    least = {
        "cpus": min(entry.cpus for entry in entries.values()),
        "memory_mib": min(entry.memory_mib for entry in entries.values()),
    }
    choices = {}
    for name, entry in entries.items():
        described = load_environment(hosts / name / "environment.yaml")
        if request.vary == "none":
            choice = Choice(entry.model_copy(update=least), described.varied(NEUTRAL))
        else:
            changes = described.all if request.vary == "all" else {}
            drawn = _draw(f"{run_id}/{name}", variables=VARIABLES if request.vary == "all" else 0)
            choice = Choice(entry, described.varied({**changes, **drawn}))
        choices[name] = choice
    return choices


def same(choices: Collection[Choice]) -> list[str]:
    """Return the names of the factors that have the same value in all environments."""
    first, *others = [choice.factors for choice in choices]
    return [name for name in first if all(other[name] == first[name] for other in others)]


def summary(choices: Collection[Choice]) -> str:
    """Describe in how many factors the environments differ, and in which they do not.

    QEMU and the guest kernel belong to the container host.
    """
    alike = same(choices)
    factors = next(iter(choices)).factors
    different = [name for name in factors if name not in alike]
    few = f"only in {', '.join(different) or 'nothing'}" if len(different) <= len(alike) else ""
    rest = f", not in {', '.join(alike)}" if alike else ""
    how_many = f"in {len(different)} of {len(factors)} factors{rest}"
    return f"the environments differ {few or how_many}".replace("_", " ")


def _draw(seed: str, *, variables: int) -> dict[str, object]:
    """Draw a hash seed for ext4, and meaningless environment variables."""
    drawn = random.Random(seed)  # noqa: S311  not a secret: it has to be drawn again
    letters, printable = string.ascii_uppercase, string.ascii_letters + string.digits + " -_./:=#%"
    return {
        "directory_seed": str(uuid.UUID(int=drawn.getrandbits(128), version=4)),
        "environment_variables": {
            "".join(drawn.choices(letters, k=drawn.randint(8, 24))): "".join(
                drawn.choices(printable, k=drawn.randint(0, 120))
            )
            for _ in range(variables)
        },
    }
