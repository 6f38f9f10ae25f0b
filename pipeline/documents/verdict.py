# SPDX-License-Identifier: GPL-3.0-or-later
"""`verdict.json`: whether the builds of a run match, and if not, in what they differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from pipeline.documents.fields import LIST_LIMIT, Fields
from pipeline.documents.malformed import Malformed

VERDICT_FORMAT = "twinbuild-verdict/1"
VERDICTS = ("match", "differ", "failed")
LINE_LIMIT = 20_000  # characters of a path or a reason


@dataclass(frozen=True)
class Judged:
    """An artifact: `size` and `sha256` are None where the environments do not agree on them."""

    name: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Difference:
    """What differs in a path, and since which step.

    `kind` is content, mode, owner, time, size, xattr, target, type, links or
    only-in-<environment>.
    """

    step: str
    path: str
    kind: str


@dataclass(frozen=True)
class Expected:
    """A path that may differ until a day (year-month-day), and why."""

    path: str
    reason: str
    until: str


OfLines = TypeVar("OfLines", Difference, Expected)


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison: `match`, `differ` or `failed`, `reasons` for people.

    `only_expected` is a `differ` that the image allows for a while, and that no release may have.
    """

    verdict: str
    environments: tuple[str, ...]
    artifacts: tuple[Judged, ...] = ()
    reasons: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    expected: tuple[Expected, ...] = ()
    only_expected: bool = False

    @classmethod
    def of(cls, document: Any) -> Verdict:
        """Read `verdict.json`; raise Malformed, which names the field.

        `expected` and `only_expected` may be missing: the first farms did not write them.
        """
        found = Fields(document)
        found.format(VERDICT_FORMAT)
        verdict = cls(
            found.one_of("verdict", *VERDICTS),
            found.texts("environments"),
            tuple(_judged(each) for each in found.objects("artifacts")),
            tuple(_line(found.path("reasons"), each) for each in _list(found, "reasons")),
            _of_lines(Difference, found, "differences"),
            _of_lines(Expected, found, "expected") if "expected" in found else (),
            found.flag("only_expected") if "only_expected" in found else False,
        )
        found.end()
        return verdict

    def document(self) -> dict[str, Any]:
        """Return what is written to `verdict.json`."""
        values = asdict(self)
        return {
            "format": VERDICT_FORMAT,
            **{each.name: values[each.name] for each in fields(Verdict)},
        }


def _judged(found: Fields) -> Judged:
    size = None if found.is_null("size") else found.number("size")
    digest = None if found.is_null("sha256") else found.sha256("sha256")
    judged = Judged(found.text("name"), size, digest)
    found.end()
    return judged


def _of_lines(kind: type[OfLines], found: Fields, name: str) -> tuple[OfLines, ...]:
    """Return a list of objects whose fields are all lines of text."""
    read = []
    for each in found.objects(name):
        lines = {one.name: _line(each.path(one.name), each.any(one.name)) for one in fields(kind)}
        each.end()
        read.append(kind(**lines))
    return tuple(read)


def _list(found: Fields, name: str) -> list[Any]:
    value = found.any(name)
    if not isinstance(value, list) or len(value) > LIST_LIMIT:
        raise Malformed(f"{found.path(name)} is no list of at most {LIST_LIMIT} elements")
    return value


def _line(place: str, value: Any) -> str:
    """Return a text: a path may have characters in it that no other text has."""
    if not isinstance(value, str) or len(value) > LINE_LIMIT:
        raise Malformed(f"{place} is {value!r:.100}, not a text of at most {LINE_LIMIT} characters")
    return value
