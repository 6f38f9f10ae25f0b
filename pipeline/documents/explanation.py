# SPDX-License-Identifier: GPL-3.0-or-later
"""`explanation.json`: what differs between two builds, down to the bytes, and what makes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.documents.fields import Fields

FORMAT = "twinbuild-explanation/1"
FILES_LIMIT, INSIDE_LIMIT, LINES_LIMIT = 1000, 1000, 1000  # as read; fewer are written


@dataclass(frozen=True)
class Cause:
    """A usual cause, by its name in `docs/causes.md`, and what speaks for it in this case.

    `weak` is a guess: nothing else explains it, and little speaks for this.
    """

    name: str
    evidence: str
    weak: bool = False

    @classmethod
    def of(cls, fields: Fields) -> Cause:
        """Read an entry of `causes`; raise Malformed."""
        cause = cls(fields.line("name"), fields.line("evidence"), fields.flag("weak"))
        fields.end()
        return cause


@dataclass(frozen=True)
class Row:
    """Sixteen bytes of each side from `offset` on, in hexadecimal; `marks` number what differs."""

    offset: int
    left: str
    right: str
    marks: tuple[int, ...]

    @classmethod
    def of(cls, fields: Fields) -> Row:
        """Read an entry of `rows`; raise Malformed."""
        row = cls(
            fields.number("offset"),
            fields.line("left"),
            fields.line("right"),
            fields.each("marks", LINES_LIMIT, Fields.number),
        )
        fields.end()
        return row


@dataclass(frozen=True)
class Shown:
    """A difference to look at: the `lines` of a unified diff, or `rows` of bytes; `cut` if more."""

    lines: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    cut: bool = False

    @classmethod
    def of(cls, fields: Fields) -> Shown:
        """Read `shown`; raise Malformed."""
        shown = cls(
            fields.each("lines", LINES_LIMIT, Fields.line),
            tuple(map(Row.of, fields.objects("rows", LINES_LIMIT))),
            fields.flag("cut"),
        )
        fields.end()
        return shown


@dataclass(frozen=True)
class Values:
    """What a property of a path is on each side, as text."""

    kind: str
    left: str
    right: str

    @classmethod
    def of(cls, fields: Fields) -> Values:
        """Read an entry of `values`; raise Malformed."""
        values = cls(fields.line("kind"), fields.line("left"), fields.line("right"))
        fields.end()
        return values


@dataclass(frozen=True)
class Inside:
    """What differs in a content that is an image, an archive or packed.

    `where`, `path`, `kind`, `offset` and `bytes` are those of locate's places; `left` and `right`
    are the values that differ, where that is not bytes.
    """

    where: str
    path: str
    kind: str
    offset: int | None = None
    bytes: int | None = None
    left: str = ""
    right: str = ""
    shown: Shown | None = None
    causes: tuple[Cause, ...] = ()

    @classmethod
    def of(cls, fields: Fields) -> Inside:
        """Read an entry of `inside`; raise Malformed."""
        inside = cls(
            where=fields.line("where"),
            path=fields.line("path"),
            kind=fields.line("kind"),
            offset=_number(fields, "offset"),
            bytes=_number(fields, "bytes"),
            left=fields.line("left"),
            right=fields.line("right"),
            shown=_shown(fields),
            causes=_causes(fields),
        )
        fields.end()
        return inside


@dataclass(frozen=True)
class DiffoscopeOutput:
    """What diffoscope printed, safe for a terminal; `note` is why that is nothing."""

    lines: tuple[str, ...] = ()
    cut: bool = False
    note: str = ""

    @classmethod
    def of(cls, fields: Fields) -> DiffoscopeOutput:
        """Read `diffoscope` of a file; raise Malformed."""
        output = cls(
            fields.each("lines", LINES_LIMIT, Fields.line), fields.flag("cut"), fields.line("note")
        )
        fields.end()
        return output


@dataclass(frozen=True)
class Explained:
    """A path that differs: since which step, in what, how it looks, and what usually makes it.

    `offset` is the first byte that differs, `bytes` how many do. `inside` goes on within an image,
    an archive or what is packed. `diffoscope` is its output. `note` says why there is nothing
    to look at, or less than all.
    """

    path: str
    step: str
    kinds: tuple[str, ...]
    offset: int | None = None
    bytes: int | None = None
    values: tuple[Values, ...] = ()
    shown: Shown | None = None
    causes: tuple[Cause, ...] = ()
    inside: tuple[Inside, ...] = ()
    note: str = ""
    diffoscope: DiffoscopeOutput | None = None

    @classmethod
    def of(cls, fields: Fields) -> Explained:
        """Read an entry of `files`; raise Malformed."""
        output = "diffoscope"
        explained = cls(
            path=fields.line("path"),
            step=fields.line("step"),
            kinds=fields.each("kinds", LINES_LIMIT, Fields.line),
            offset=_number(fields, "offset"),
            bytes=_number(fields, "bytes"),
            values=tuple(map(Values.of, fields.objects("values", LINES_LIMIT))),
            shown=_shown(fields),
            causes=_causes(fields),
            inside=tuple(map(Inside.of, fields.objects("inside", INSIDE_LIMIT))),
            note=fields.line("note"),
            diffoscope=None
            if fields.is_null(output)
            else DiffoscopeOutput.of(fields.object(output)),
        )
        fields.end()
        return explained


@dataclass(frozen=True)
class Explanation:
    """All that was explained of a run: `factors` are those in which the environments differ.

    `left_out` is the number of further paths. `diffoscope` says what part that program had.
    """

    environments: tuple[str, ...]
    factors: tuple[str, ...]
    files: tuple[Explained, ...]
    left_out: int
    diffoscope: str = ""

    @classmethod
    def of(cls, document: Any) -> Explanation:
        """Read `explanation.json`; raise Malformed, which names the field."""
        fields = Fields(document)
        fields.format(FORMAT)
        explanation = cls(
            fields.texts("environments"),
            fields.texts("factors"),
            tuple(map(Explained.of, fields.objects("files", FILES_LIMIT))),
            fields.number("left_out"),
            fields.line("diffoscope"),
        )
        fields.end()
        return explanation

    def document(self) -> dict[str, Any]:
        """Return what is written to `explanation.json`."""
        return {"format": FORMAT, **asdict(self)}


def _number(fields: Fields, name: str) -> int | None:
    return None if fields.is_null(name) else fields.number(name)


def _shown(fields: Fields) -> Shown | None:
    return None if fields.is_null("shown") else Shown.of(fields.object("shown"))


def _causes(fields: Fields) -> tuple[Cause, ...]:
    return tuple(map(Cause.of, fields.objects("causes", LINES_LIMIT)))
