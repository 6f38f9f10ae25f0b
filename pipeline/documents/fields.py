# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of a JSON object, read one by one, each with its limits.

What is wrong raises Malformed, which names the field by its path: `packages[3].sha256`. A reader
ends with `end()`, so that a field that it does not know is refused as well.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, NoReturn, TypeVar

from pipeline.documents.formats import check_format
from pipeline.documents.malformed import Malformed

Element = TypeVar("Element")

SHA256 = re.compile(r"[0-9a-f]{64}")
CONTROL = re.compile(r"[\x00-\x1f]")
NUMBER_LIMIT = 2**63 - 1
TEXT_LIMIT = 2000  # characters
LIST_LIMIT = 100_000  # elements
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"  # of times in documents: UTC, to the second
TIME_FORM = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z")


def time_text(time: datetime) -> str:
    """Return a time as documents have it: UTC, to the second."""
    return time.astimezone(timezone.utc).strftime(TIME_FORMAT)


class Fields:
    """An object of a document; `where` is its path in it, empty for the document itself."""

    def __init__(self, value: Any, where: str = "") -> None:
        if not isinstance(value, dict):
            raise Malformed(f"{where or 'the document'} is no object")
        self._value = value
        self._where = where
        self._left = set(value)

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def format(self, *known: str, name: str = "format") -> str:
        """Return the format, one of `known`; raise LaterFormat for a higher number."""
        return check_format(self.any(name), *known)

    def any(self, name: str) -> Any:
        """Return a field as it is; raise Malformed if it is missing, as all that follow do."""
        if name not in self._value:
            raise Malformed(f"{self.path(name)} is missing")
        self._left.discard(name)
        return self._value[name]

    def is_null(self, name: str) -> bool:
        """Tell whether a field is null."""
        return self.any(name) is None

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """Return a printable text of 1 to 2000 characters, of the form of `pattern`."""
        value = self.any(name)
        fits = isinstance(value, str) and value.isprintable() and 0 < len(value) <= TEXT_LIMIT
        if not fits:
            self._refuse(name, value, f"not a text of 1 to {TEXT_LIMIT} characters")
        if pattern and not pattern.fullmatch(value):
            raise Malformed(f"{self.path(name)} is malformed: {value!r:.100}")
        return str(value)

    def optional_text(self, name: str, pattern: re.Pattern[str] | None = None) -> str | None:
        """Return a text, or None if the field is null."""
        return None if self.is_null(name) else self.text(name, pattern)

    def texts(
        self, name: str, pattern: re.Pattern[str] | None = None, limit: int = LIST_LIMIT
    ) -> tuple[str, ...]:
        """Return a list of texts."""
        return self.each(name, limit, lambda inner, place: inner.text(place, pattern))

    def line(self, name: str, limit: int = TEXT_LIMIT) -> str:
        """Return a text without control characters, which may be empty."""
        value = self.any_text(name, limit)
        if CONTROL.search(value):
            self._refuse(name, value, "not a line of text")
        return value

    def any_text(self, name: str, limit: int) -> str:
        """Return a text with any characters, as a path may have them."""
        value = self.any(name)
        if not isinstance(value, str) or len(value) > limit:
            self._refuse(name, value, f"not a text of at most {limit} characters")
        return str(value)

    def exactly(self, name: str, value: str) -> str:
        """Return a text that follows from other fields."""
        if self.any(name) != value:
            raise Malformed(f"{self.path(name)} is not {value}")
        return value

    def time(self, name: str) -> datetime:
        """Return a time in UTC, to the second."""
        text = self.text(name, TIME_FORM)
        try:
            return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=timezone.utc)
        except ValueError as error:
            raise Malformed(f"{self.path(name)} is no time: {text}") from error

    def one_of(self, name: str, *values: str) -> str:
        """Return a text that is one of `values`."""
        value = self.any(name)
        if value not in values:
            self._refuse(name, value, f"not {' or '.join(values)}")
        return str(value)

    def sha256(self, name: str) -> str:
        """Return a SHA-256 in 64 lower-case hexadecimal digits."""
        return self.text(name, SHA256)

    def optional_sha256(self, name: str) -> str | None:
        """Return a SHA-256, or None if the field is null."""
        return self.optional_text(name, SHA256)

    def number(self, name: str, low: int = 0, high: int = NUMBER_LIMIT) -> int:
        """Return an integer from `low` to `high`."""
        value = self.any(name)
        if type(value) is not int or not low <= value <= high:
            self._refuse(name, value, f"not a number from {low} to {high}")
        return int(value)

    def real(self, name: str, low: float = 0.0, high: float = float(NUMBER_LIMIT)) -> float:
        """Return a number from `low` to `high`, which may have a fraction."""
        value = self.any(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self._refuse(name, value, "not a number")
        if not low <= value <= high:
            self._refuse(name, value, f"not from {low} to {high}")
        return value

    def base64(self, name: str, limit: int) -> bytes:
        """Return at most `limit` bytes, which are written as base64."""
        value = self.any(name)
        if not isinstance(value, str):
            raise Malformed(f"{self.path(name)} is no text")
        if len(value) > limit * 4 // 3 + 4:
            raise Malformed(f"{self.path(name)} is larger than {limit} bytes")
        try:
            return base64.b64decode(value, validate=True)
        except ValueError as error:
            raise Malformed(f"{self.path(name)} is no base64: {error}") from error

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self.any(name)
        if not isinstance(value, bool):
            self._refuse(name, value, "not true or false")
        return bool(value)

    def object(self, name: str) -> Fields:
        """Return an object."""
        return Fields(self.any(name), self.path(name))

    def objects(self, name: str, limit: int = LIST_LIMIT) -> Iterator[Fields]:
        """Give the objects of a list."""
        yield from self.each(name, limit, Fields.object)

    def pair(self, name: str) -> tuple[Fields, Fields]:
        """Return the objects of a list of exactly two."""
        found = self.each(name, 2, Fields.object)
        if len(found) != 2:
            raise Malformed(f"{self.path(name)} has not two elements")
        return found[0], found[1]

    def each(
        self, name: str, limit: int, read: Callable[[Fields, str], Element]
    ) -> tuple[Element, ...]:
        """Return the elements of a list, read as if they were fields."""
        values = self.any(name)
        if not isinstance(values, list):
            raise Malformed(f"{self.path(name)} is no list")
        if len(values) > limit:
            raise Malformed(f"{self.path(name)} has over {limit} elements")
        places = {f"{name}[{number}]": value for number, value in enumerate(values)}
        inner = Fields(places, self._where)
        return tuple(read(inner, place) for place in places)

    def whatever(self, name: str) -> Mapping[str, Any]:
        """Return an object as it is, to be read elsewhere."""
        found: Mapping[str, Any] = self.any(name)
        self.object(name)
        return found

    def names(self, limit: int = LIST_LIMIT) -> list[str]:
        """Return the names of all fields, sorted."""
        if len(self._value) > limit:
            raise Malformed(f"{self._where or 'the document'} has over {limit} fields")
        return sorted(self._value)

    def end(self) -> None:
        """Raise Malformed if there is a field that was not asked for."""
        if self._left:
            raise Malformed(f"{self.path(min(self._left))} does not belong there")

    def path(self, name: str) -> str:
        """Return where a field stands, for messages."""
        shown = name if name.isprintable() and len(name) <= 80 else repr(name)[:80]
        return f"{self._where}.{shown}" if self._where else shown

    def _refuse(self, name: str, value: Any, why: str) -> NoReturn:
        raise Malformed(f"{self.path(name)} is {value!r:.100}, {why}")
