# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of formats, `twinbuild-NAME/NUMBER`: a later one is refused as such.

A document that is published never changes its meaning; the number in its format goes up instead.
So a reader that meets a higher number is too old, and the document is not at fault.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.documents.malformed import Malformed

FORM = re.compile(r"(twinbuild-[a-z]+)/([1-9][0-9]{0,5})")


class LaterFormat(Malformed):
    """A later Twinbuild has written the document; the message says what to do."""


def check_format(found: Any, *known: str) -> str:
    """Return a document's format, one of `known`; raise LaterFormat or Malformed if it is not."""
    if isinstance(found, str) and found in known:
        return found
    refuse_later(found, *known)
    raise Malformed(f"format is {found!r:.100}, not {' or '.join(known)}")


def refuse_later(found: Any, *known: str) -> None:
    """Raise LaterFormat if `found` is a higher number of one of the formats `known`."""
    match = FORM.fullmatch(found) if isinstance(found, str) else None
    numbers = [number for name, number in map(_parts, known) if match and name == match[1]]
    if match and numbers and int(match[2]) > max(numbers):
        raise LaterFormat(
            f"format is {found}, written by a later Twinbuild, and this one reads"
            f" {' or '.join(known)}; update this one"
        )


def _parts(known: str) -> tuple[str, int]:
    name, _, number = known.partition("/")
    return name, int(number)
