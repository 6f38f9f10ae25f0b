# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a build took, in seconds by the machine's clock. `timings.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.documents.fields import Fields

STEPS_LIMIT = 100_000


@dataclass(frozen=True)
class Timings:
    """The steps by their names, of which the `ledger` is part; `by_hand` is a bench's alone."""

    steps: Mapping[str, float]
    ledger: float
    by_hand: Mapping[str, float]

    @classmethod
    def of(cls, document: Any) -> Timings:
        """Read `timings.json`; raise Malformed, which names the field."""
        fields = Fields(document)
        timings = cls(
            _seconds(fields.object("steps")),
            fields.real("ledger"),
            _seconds(fields.object("by_hand")),
        )
        fields.end()
        return timings

    def document(self) -> dict[str, Any]:
        """Return what is written to `timings.json`."""
        return asdict(self)


def _seconds(fields: Fields) -> dict[str, float]:
    return {name: fields.real(name) for name in fields.names(STEPS_LIMIT)}
