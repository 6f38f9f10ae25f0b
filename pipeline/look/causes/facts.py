# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of the environments that a difference may come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

MARGIN_S = 600  # how far a machine's clock may be from what its statement says
CLOCK = "%Y-%m-%dT%H:%M:%S"
# Factors that no cause asks for, as `varied` has them and as people know them.
OTHERS = {
    "machine_type": "machine type",
    "scratch_filesystem": "scratch filesystem",
    "suite": "suite",
    "directory_seed": "directory order",
    "open_files": "open files",
    "processes": "processes",
    "randomized_addresses": "randomized addresses",
}
STATEMENT_TIME = "%Y-%m-%dT%H:%M:%SZ"


Holds = Callable[[frozenset[str]], str]
Lacks = Callable[[frozenset[str]], bool]


@dataclass(frozen=True)
class Facts:
    """One environment: `hours` are when it built, by its own clock, in seconds since 1970 UTC.

    What is not known is None. `others` are the values of further factors, by their names. `holds`
    returns the folder of the tree which holds just these names, or nothing; `lacks` tells whether
    the tree is known to have had few of these: absolute paths, or names of files.
    """

    name: str
    epoch: int
    hours: tuple[int, int] | None = None
    host_name: str | None = None
    user: str | None = None
    build_path: str | None = None
    locale: str | None = None
    time_zone: str | None = None
    kernel: str | None = None
    cpus: str | None = None
    umask: int | None = None
    clock: str | None = None  # how far it is from the real time
    others: Mapping[str, str] = field(default_factory=dict)
    holds: Holds = field(default=lambda _: "", compare=False)
    lacks: Lacks = field(default=lambda _: False, compare=False)

    @property
    def seed(self) -> str | None:
        """The seed by which the scratch file system orders folders, if it does so by hashes."""
        hashed = self.others.get("scratch filesystem") == "ext4"
        return self.others.get("directory order") if hashed else None

    def built_at(self, earliest: float, latest: float) -> bool:
        """Tell whether a time between `earliest` and `latest` lies within the build's hours."""
        if self.hours is None:
            return False
        return latest >= self.hours[0] - MARGIN_S and earliest <= self.hours[1] + MARGIN_S


Pair = tuple[Facts, Facts]


@dataclass(frozen=True)
class Cause:
    """A usual cause, by its name in `docs/causes.md`, and what speaks for it in this case.

    `weak` is a guess: nothing else explains it, and little speaks for this.
    """

    name: str
    evidence: str
    weak: bool = False


def read_facts(name: str, epoch: int, predicate: Mapping[str, Any]) -> Facts:
    """Return what the predicate of an environment's statement says; what is odd is not known."""
    definition = _mapping(predicate, "buildDefinition")
    machine = _mapping(_mapping(definition, "internalParameters"), "machine")
    varied, said = _mapping(machine, "varied"), _mapping(machine, "facts")
    others = {"cpu model": machine.get("cpu_model"), "memory": machine.get("memory_mib")}
    others["accelerator"] = machine.get("accelerator")
    others["qemu"] = _mapping(machine, "builder").get("qemu")
    others |= {words: varied.get(factor) for factor, words in OTHERS.items()}
    variables = " ".join(sorted(map(str, _mapping(varied, "environment_variables"))))
    others["environment variables"] = variables or None
    return Facts(
        name=name,
        epoch=epoch,
        hours=_hours(machine, _mapping(_mapping(predicate, "runDetails"), "metadata")),
        host_name=_text(varied.get("host_name")),
        user=_text(varied.get("user")),
        build_path=_text(varied.get("build_path")),
        locale=_text(varied.get("locale")),
        time_zone=_text(varied.get("time_zone")),
        kernel=_text(said.get("kernel")),
        cpus=_text(said.get("cpus", machine.get("cpus"))),
        umask=_octal(varied.get("umask")),
        clock=_offset(varied),
        others={key: text for key, value in others.items() if (text := _text(value))},
    )


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    text = str(value) if isinstance(value, str | int) else ""
    return text if 0 < len(text) <= 200 else None


def _octal(value: object) -> int | None:
    try:
        return int(str(value), 8)
    except ValueError:
        return None


def _offset(varied: Mapping[str, Any]) -> str | None:
    days, minutes = varied.get("clock_offset_days"), varied.get("clock_offset_minutes", 0)
    if not isinstance(days, int) or not isinstance(minutes, int):
        return None
    return f"{days} days and {minutes} minutes"


def _hours(machine: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[int, int] | None:
    try:
        clock = datetime.strptime(str(machine["clock"]), CLOCK).replace(tzinfo=UTC)
        started, finished = (
            datetime.strptime(str(metadata[key]), STATEMENT_TIME).replace(tzinfo=UTC)
            for key in ("startedOn", "finishedOn")
        )
        begin = int(clock.timestamp())
    except (KeyError, ValueError, OverflowError):
        return None
    return begin, begin + max(0, int((finished - started).total_seconds()))
