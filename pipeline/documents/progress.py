# SPDX-License-Identifier: GPL-3.0-or-later
"""The records that a machine sends over its serial port while it builds, one JSON object a line.

{"record": "step", "step": name}            a step begins
{"record": "step-done", "step": name, "seconds": float}
{"record": "log", "line": text}             what a program printed
{"record": "layer", "step": name, …}        what the step changed is on the layers disk:
                 `offset`, `size`, `head` in bytes, `sha256` of these bytes, the ledger's
                 `digest`, and when the build `started` and the layer `ended`, in seconds by
                 the machine's clock
{"record": "damaged", "step": name}         a layer that went in is not what was kept
{"record": "alive"}                         every ALIVE_EVERY_S seconds
{"record": "failed", "status": 3, 4 or 5, "step": name, "what": text, "detail": text}
{"record": "done", "facts": {name: text}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.documents.malformed import Malformed

# The name of the virtio-serial port that carries the records.
PROGRESS_PORT = "twinbuild.progress"

RECORDS = ("step", "step-done", "log", "layer", "damaged", "alive", "failed", "done")
NOTE = "note"  # the kind of what the farm itself adds, for whoever watches
TEXTS = ("step", "line", "what", "detail")
ALIVE_EVERY_S = 5.0
RECORD_LIMIT = 1024 * 1024  # bytes of one line
LINE_LIMIT = 2000  # characters of a logged line

SCRATCH_FULL = "the scratch disk is full"

STATUS_BUILD_FAILED, STATUS_INFRASTRUCTURE, STATUS_INPUTS = 3, 4, 5


@dataclass(frozen=True)
class Record:
    """A record of a kind; a text that it does not have, or has in another form, is empty.

    `fields` is all of it as the machine sent it.
    """

    kind: str
    step: str = ""
    line: str = ""
    what: str = ""
    detail: str = ""
    status: int | None = None
    fields: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Any) -> Record:
        """Read what a machine sent; raise Malformed if it is no record of a known kind."""
        kind = document.get("record") if isinstance(document, dict) else None
        if not isinstance(kind, str) or kind not in RECORDS:
            raise Malformed(f"record is {kind!r:.100}, none of {', '.join(RECORDS)}")
        texts = {n: text for n in TEXTS if isinstance(text := document.get(n), str)}
        status = document.get("status")
        return cls(kind, **texts, status=status if type(status) is int else None, fields=document)

    @classmethod
    def note(cls, line: str) -> Record:
        """Return what the farm itself adds."""
        return cls(NOTE, line=line)
