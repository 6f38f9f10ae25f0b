# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes docs/reference/schemas/: JSON schemas of the published documents.

Run `python3 -m tools.document_schemas` after a change to `pipeline/documents/`. Each document's
reader gets fields that record what it asks for, so that the schema says what the reader requires,
and nothing is written twice. Conditions on several fields together are not in the schemas.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.documents.dsse import IN_TOTO, Envelope
from pipeline.documents.fields import (
    LIST_LIMIT,
    NUMBER_LIMIT,
    TEXT_LIMIT,
    TIME_FORM,
    Element,
    Fields,
)
from pipeline.documents.job import Job
from pipeline.documents.kit_control import Control
from pipeline.documents.release_index import ReleaseIndex
from pipeline.documents.statement import Statement
from pipeline.documents.upgrade_description import DESCRIPTION_TYPE, Description
from pipeline.documents.upgrade_renewal import RENEWAL_TYPE, Renewal
from pipeline.documents.verdict import Verdict

FOLDER = Path(__file__).parents[1] / "docs" / "reference" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
ANY_NAME = "*"  # stands for all keys of a table
BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
ONE_LINE = re.compile(r"[^\x00-\x1f]*")

Schema = dict[str, object]


def envelope(fields: Fields) -> Envelope:
    """Read an envelope of any signed document."""
    return Envelope.read(fields, IN_TOTO, DESCRIPTION_TYPE, RENEWAL_TYPE)


# name of the file: title, reader
DOCUMENTS: dict[str, tuple[str, Callable[[Fields], object]]] = {
    "envelope": ("DSSE envelope", envelope),
    "index": ("index.json, the list of releases", ReleaseIndex.read),
    "job": ("job.json, what every environment is given", Job.read),
    "kit-control": ("control.json of an upgrade kit", Control.read),
    "renewal": ("Payload of a renewal of an upgrade description", Renewal.read),
    "statement": ("Payload of a statement, in-toto Statement v1", Statement.read),
    "upgrade": ("Payload of an upgrade description", Description.read),
    "verdict": ("verdict.json", Verdict.read),
}
# Documents that are embedded in others, whose readers leave them to these.
INSIDE: dict[str, Callable[[Fields], object]] = {"job": Job.read}


class _Noted(Fields):
    """Fields that have everything they are asked for, and record it."""

    def __init__(self) -> None:
        super().__init__({})
        self._schemas: dict[str, Callable[[], Schema]] = {}
        self._optional: set[str] = set()
        self._nullable: set[str] = set()
        self._limit = LIST_LIMIT
        self._ended = False

    def schema(self) -> Schema:
        """Return the schema of the fields that were asked for."""
        properties = {
            name: {"anyOf": [{"type": "null"}, made()]} if name in self._nullable else made()
            for name, made in sorted(self._schemas.items())
        }
        if ANY_NAME in properties:
            table: Schema = {"type": "object", "additionalProperties": properties[ANY_NAME]}
            return {**table, "maxProperties": self._limit}
        needed = sorted(properties.keys() - self._optional)
        found: Schema = {"type": "object", "properties": properties, "required": needed}
        return {**found, "additionalProperties": False} if self._ended else found

    def end(self) -> None:
        self._ended = True

    def __contains__(self, name: str) -> bool:
        self._optional.add(name)
        return True

    def is_null(self, name: str) -> bool:
        self._nullable.add(name)
        return False

    def any(self, name: str) -> Any:
        raise NotImplementedError(f"{name}: a schema cannot say what a reader asks of it")

    def format(self, *known: str, name: str = "format") -> str:
        self._note(name, {"const": known[0]})  # the one that is written now
        return known[0]

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        self._note(name, _text(pattern))
        return "x"

    def line(self, name: str, limit: int = TEXT_LIMIT) -> str:
        self._note(name, {"type": "string", "maxLength": limit, "pattern": _whole(ONE_LINE)})
        return "x"

    def any_text(self, name: str, limit: int) -> str:
        self._note(name, {"type": "string", "maxLength": limit})
        return "x"

    def texts(
        self, name: str, pattern: re.Pattern[str] | None = None, limit: int = LIST_LIMIT
    ) -> tuple[str, ...]:
        self._note(name, _list(_text(pattern), limit))
        return ()

    def exactly(self, name: str, value: str) -> str:
        self._note(name, {"type": "string"})
        return value

    def one_of(self, name: str, *values: str) -> str:
        self._note(name, {"enum": list(values)} if values[1:] else {"const": values[0]})
        return values[0]

    def time(self, name: str) -> datetime:
        self._note(name, {**_text(TIME_FORM), "format": "date-time"})
        return datetime(2000, 1, 1, tzinfo=UTC)

    def base64(self, name: str, limit: int) -> bytes:
        encoded = {"type": "string", "contentEncoding": "base64", "pattern": _whole(BASE64)}
        self._note(name, {**encoded, "maxLength": limit * 4 // 3 + 4})
        return b""

    def number(self, name: str, low: int = 0, high: int = NUMBER_LIMIT) -> int:
        self._note(name, {"type": "integer", "minimum": low, "maximum": high})
        return low

    def flag(self, name: str) -> bool:
        self._note(name, {"type": "boolean"})
        return True

    def whatever(self, name: str) -> Schema:
        inner = _Noted()
        if name in INSIDE:
            INSIDE[name](inner)
        self._schemas[name] = inner.schema if name in INSIDE else lambda: {"type": "object"}
        return {}

    def object(self, name: str) -> Fields:
        inner = _Noted()
        self._schemas[name] = inner.schema
        return inner

    def objects(self, name: str, limit: int = LIST_LIMIT) -> Iterator[Fields]:
        inner = _Noted()
        self._schemas[name] = lambda: _list(inner.schema(), limit)
        yield inner

    def each(
        self, name: str, limit: int, read: Callable[[Fields, str], Element]
    ) -> tuple[Element, ...]:
        inner = _Noted()
        element = read(inner, ANY_NAME)
        self._note(name, _list(inner._schemas[ANY_NAME](), limit))
        return (element,)

    def pair(self, name: str) -> tuple[Fields, Fields]:
        pair = _Noted(), _Noted()
        self._schemas[name] = lambda: {
            "type": "array",
            "prefixItems": [each.schema() for each in pair],
            "minItems": 2,
            "maxItems": 2,
        }
        return pair

    def names(self, limit: int = LIST_LIMIT) -> list[str]:
        self._limit = limit
        return [ANY_NAME]

    def _note(self, name: str, schema: Schema) -> None:
        self._schemas[name] = lambda: schema


def _text(pattern: re.Pattern[str] | None) -> Schema:
    schema: Schema = {"type": "string", "minLength": 1, "maxLength": TEXT_LIMIT}
    return {**schema, "pattern": _whole(pattern)} if pattern else schema


def _whole(pattern: re.Pattern[str]) -> str:
    return f"^(?:{pattern.pattern})$"


def _list(items: Schema, limit: int) -> Schema:
    return {"type": "array", "items": items, "maxItems": limit}


def schemas() -> dict[str, bytes]:
    """Return the schemas by the names of their files."""
    made = {}
    for name, (title, read) in DOCUMENTS.items():
        noted = _Noted()
        read(noted)
        document = {"$schema": DIALECT, "title": title, **noted.schema()}
        made[f"{name}.schema.json"] = f"{json.dumps(document, indent=2)}\n".encode()
    return made


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, content in schemas().items():
        (FOLDER / path).write_bytes(content)
