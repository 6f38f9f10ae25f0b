# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of formats, `twinbuild-NAME/NUMBER` or addresses in `/vNUMBER`: later ones are refused.

A document that is published never changes its meaning; the number in its format goes up instead.
So a reader that meets a higher number is too old, and the document is not at fault.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.documents.malformed import Malformed

FORM = re.compile(r"([A-Za-z:./-]+/v?)([1-9][0-9]{0,5})")


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
    same = [own[2] for own in map(FORM.fullmatch, known) if own and match and own[1] == match[1]]
    if match and same and int(match[2]) > max(map(int, same)):
        raise LaterFormat(
            f"format is {found}, written by a later Twinbuild, and this one reads"
            f" {' or '.join(known)}; update this one"
        )
