# SPDX-License-Identifier: GPL-3.0-or-later
"""`verdict.json`: whether the builds of a run match, and if not, in what they differ."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from pipeline.documents.fields import LIST_LIMIT, Fields

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
        return cls.read(Fields(document))

    @classmethod
    def read(cls, found: Fields) -> Verdict:
        """Read its fields; raise Malformed."""
        found.format(VERDICT_FORMAT)
        verdict = cls(
            found.one_of("verdict", *VERDICTS),
            found.texts("environments"),
            tuple(_judged(each) for each in found.objects("artifacts")),
            found.each("reasons", LIST_LIMIT, lambda each, place: each.any_text(place, LINE_LIMIT)),
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
        lines = {one.name: each.any_text(one.name, LINE_LIMIT) for one in fields(kind)}
        each.end()
        read.append(kind(**lines))
    return tuple(read)
