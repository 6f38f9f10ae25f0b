# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts in the statements of two environments that may explain a difference."""

from collections.abc import Mapping
from datetime import UTC, datetime

from pipeline.documents.fields import TIME_FORMAT
from pipeline.documents.steps import BUILD_FOLDER
from pipeline.look.causes.facts import Facts

CLOCK = "%Y-%m-%dT%H:%M:%S"
# Factors that no cause uses: their names in `varied`, and for people.
OTHERS = {
    "machine_type": "machine type",
    "scratch_filesystem": "scratch filesystem",
    "suite": "suite",
    "directory_seed": "directory order",
    "open_files": "open files",
    "processes": "processes",
    "randomized_addresses": "randomized addresses",
}


def read_facts(name: str, epoch: int, predicate: Mapping[str, object]) -> Facts:
    """Return the facts in the predicate of an environment's statement.

    Malformed fields become None.
    """
    definition = _mapping(predicate, "buildDefinition")
    machine = _mapping(_mapping(definition, "internalParameters"), "machine")
    varied, measured = _mapping(machine, "varied"), _mapping(machine, "facts")
    others = {"cpu model": machine.get("cpu_model"), "memory": machine.get("memory_mib")}
    others["accelerator"] = machine.get("accelerator")
    others["qemu"] = _mapping(machine, "builder").get("qemu")
    others |= {words: varied.get(factor) for factor, words in OTHERS.items()}
    variables = " ".join(sorted(map(str, _mapping(varied, "environment_variables"))))
    others["environment variables"] = variables or None
    path = _text(varied.get("build_path"))
    return Facts(
        name=name,
        epoch=epoch,
        hours=_hours(machine, _mapping(_mapping(predicate, "runDetails"), "metadata")),
        host_name=_text(varied.get("host_name")),
        user=_text(varied.get("user")),
        build_path=path,
        package_path=f"/{BUILD_FOLDER}{path}" if path else None,
        locale=_text(varied.get("locale")),
        time_zone=_text(varied.get("time_zone")),
        kernel=_text(measured.get("kernel")),
        cpus=_text(measured.get("cpus", machine.get("cpus"))),
        umask=_octal(varied.get("umask")),
        clock=_offset(varied),
        others={key: text for key, value in others.items() if (text := _text(value))},
    )


def _mapping(document: Mapping[str, object], key: str) -> Mapping[str, object]:
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


def _offset(varied: Mapping[str, object]) -> str | None:
    days, minutes = varied.get("clock_offset_days"), varied.get("clock_offset_minutes", 0)
    if not isinstance(days, int) or not isinstance(minutes, int):
        return None
    return f"{days} days and {minutes} minutes"


def _hours(machine: Mapping[str, object], metadata: Mapping[str, object]) -> tuple[int, int] | None:
    try:
        clock = datetime.strptime(str(machine["clock"]), CLOCK).replace(tzinfo=UTC)
        started, finished = (
            datetime.strptime(str(metadata[key]), TIME_FORMAT).replace(tzinfo=UTC)
            for key in ("startedOn", "finishedOn")
        )
        begin = int(clock.timestamp())
    except (KeyError, ValueError, OverflowError):
        return None
    return begin, begin + max(0, int((finished - started).total_seconds()))
