# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of one machine: what differs from the other one's, on purpose. `machine.json`.

Nothing of it may reach an artifact; `docs/reference/configuration.md` describes the factors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.documents.fields import CONTROL, SHA256, Fields
from pipeline.documents.malformed import Malformed

Factor = str | int | bool | Mapping[str, str]  # the value of one

VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{7,39}")
VARIABLES_LIMIT = 1000
LAYERS_LIMIT = 10_000
SECONDS = 2**40  # either way from the epoch
DAYS, MINUTES, RESOURCES = 3650, 1439, 65536


@dataclass(frozen=True)
class Factors:
    """What an environment does differently, factor by factor."""

    description: str
    suite: str  # of the container host
    machine_type: str
    cpu_model_tcg: str
    cpu_model_kvm: str
    clock_offset_days: int
    clock_offset_minutes: int
    time_zone: str
    locale: str
    host_name: str
    user: str
    build_path: str
    umask: str  # octal
    scratch_filesystem: str
    directory_seed: str  # a UUID
    open_files: int
    processes: int
    randomized_addresses: bool
    environment_variables: Mapping[str, str]

    @classmethod
    def of(cls, fields: Fields) -> Factors:
        """Read the factors, and leave other fields; raise Malformed."""
        return cls(
            description=_description(fields),
            suite=fields.line("suite"),
            machine_type=fields.line("machine_type"),
            cpu_model_tcg=fields.line("cpu_model_tcg"),
            cpu_model_kvm=fields.line("cpu_model_kvm"),
            clock_offset_days=fields.number("clock_offset_days", -DAYS, DAYS),
            clock_offset_minutes=fields.number("clock_offset_minutes", -MINUTES, MINUTES),
            time_zone=fields.text("time_zone"),
            locale=fields.text("locale"),
            host_name=fields.text("host_name"),
            user=fields.text("user"),
            build_path=fields.text("build_path"),
            umask=fields.text("umask"),
            scratch_filesystem=fields.text("scratch_filesystem"),
            directory_seed=fields.text("directory_seed"),
            open_files=fields.number("open_files", 1, RESOURCES),
            processes=fields.number("processes", 1, RESOURCES),
            randomized_addresses=fields.flag("randomized_addresses"),
            environment_variables=_variables(fields.object("environment_variables")),
        )

    def document(self) -> dict[str, Any]:
        """Return the factors by name, as the statement signs them, too."""
        return asdict(self)


@dataclass(frozen=True)
class Layer:
    """A kept layer on the trees disk: where it is, and the digest that it must lead to.

    `started` and `ended` are when the build began and when the layer was kept, in seconds by the
    clock of the machine that did; `digest` is the ledger's after the step.
    """

    step: str
    offset: int
    size: int
    head: int
    started: int
    ended: int
    digest: str

    @classmethod
    def of(cls, fields: Fields) -> Layer:
        """Read an entry of `trees.begin`; raise Malformed."""
        layer = cls(
            step=fields.line("step"),
            offset=fields.number("offset"),
            size=fields.number("size"),
            head=fields.number("head"),
            started=fields.number("started", -SECONDS, SECONDS),
            ended=fields.number("ended", -SECONDS, SECONDS),
            digest=fields.text("digest", SHA256),
        )
        fields.end()
        return layer


@dataclass(frozen=True)
class TreePlan:
    """Which kept trees a build begins with, whether its own are kept, and where it stops.

    The layers lie in the order of their steps; `stop` is the step after which only the ledger is
    handed back, or None.
    """

    begin: tuple[Layer, ...]
    keep: bool
    stop: str | None

    @classmethod
    def of(cls, fields: Fields) -> TreePlan:
        """Read `trees`; raise Malformed."""
        plan = cls(
            tuple(map(Layer.of, fields.objects("begin", LAYERS_LIMIT))),
            fields.flag("keep"),
            None if fields.is_null("stop") else fields.line("stop"),
        )
        fields.end()
        return plan

    def document(self) -> dict[str, Any]:
        """Return what stands under `trees`."""
        begin = [asdict(layer) for layer in self.begin]
        return {"begin": begin, "keep": self.keep, "stop": self.stop}


@dataclass(frozen=True)
class Settings:
    """All that a machine is given beside the job; `measure_by_hand` is asked for by a bench."""

    factors: Factors
    measure_by_hand: bool
    trees: TreePlan

    @classmethod
    def of(cls, document: Any) -> Settings:
        """Read `machine.json`; raise Malformed, which names the field."""
        fields = Fields(document)
        settings = cls(
            Factors.of(fields),
            fields.flag("measure_by_hand"),
            TreePlan.of(fields.object("trees")),
        )
        fields.end()
        return settings

    def document(self) -> dict[str, Any]:
        """Return what is written to `machine.json`: the factors stand beside the rest."""
        rest = {"measure_by_hand": self.measure_by_hand, "trees": self.trees.document()}
        return {**self.factors.document(), **rest}


@dataclass(frozen=True)
class Description:
    """A machine's part of a statement: its properties, and what was varied."""

    accelerator: str
    builder: Mapping[str, str]  # its facts by name, as the versions of its programs
    clock: str  # what its clock showed at the start
    cpu_model: str
    cpus: int
    host_image: str
    memory_mib: int
    varied: Factors
    vary: str  # the level that was asked for
    facts: Mapping[str, str]  # what the machine itself reported
    kept_trees: tuple[Mapping[str, str], ...]  # those that the build began with: step and digest

    def document(self) -> dict[str, Any]:
        """Return what stands under `machine`."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**parts, "varied": self.varied.document(), "kept_trees": list(self.kept_trees)}


def _description(fields: Fields) -> str:
    value = fields.any("description")  # for people: it may have several lines, or none
    if not isinstance(value, str) or CONTROL.search(value.replace("\n", " ").replace("\t", " ")):
        raise Malformed(f"{fields.path('description')} is {value!r:.100}, not a text")
    return value


def _variables(fields: Fields) -> dict[str, str]:
    names = fields.names(VARIABLES_LIMIT)
    odd = next((name for name in names if not VARIABLE.fullmatch(name)), None)
    if odd is not None:
        raise Malformed(f"{fields.path(odd)} is no name that a variable has")
    return {name: fields.line(name) for name in names}
