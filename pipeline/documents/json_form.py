# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON as documents are written, and as they are read: strictly (RFC 8259)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.documents.malformed import Malformed


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """Return the one form in which documents are written: sorted, indented, ending in a newline.

    It is UTF-8; the surrogates that stand for undecodable bytes of a path become JSON escapes.
    """
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")


def parse_json(content: bytes | str) -> Any:
    """Parse a JSON document; raise Malformed if it is not one.

    What parsers read differently is refused: an object with a key twice, NaN and the infinities,
    any encoding but UTF-8.
    """
    try:
        text = content if isinstance(content, str) else content.decode()
        return _DECODER.decode(text)
    except RecursionError:
        raise Malformed("it is nested too deeply") from None
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(str(error)) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise Malformed(f"it has the key {twice!r:.80} twice")
    return found


def _no_number(name: str) -> None:
    raise Malformed(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number)
