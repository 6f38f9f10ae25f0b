# SPDX-License-Identifier: GPL-3.0-or-later
"""The common model of all formats: structures, entries, and regions of bytes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pipeline.look.formats.ranges import Ranges, Span
from pipeline.look.formats.recompress import Compressed
from pipeline.look.formats.source import BadFormat, ByteSource, Spool

ENTRY_LIMIT = 80_000  # entries of a format whose entries are all kept in memory
TEXT_LIMIT = 12 * 1024 * 1024  # characters of their paths and facts
PATH_LIMIT = 4096  # bytes of a path
LINK_LIMIT = 65_536  # bytes of a symbolic link's target

Fact = str | int | tuple[tuple[str, str], ...]  # a tuple has pairs of names and values


@dataclass(frozen=True)
class Structure:
    """A piece of the format itself, such as a header field or a boot record.

    `kind` is the kind of difference that is reported for it: structure, time, identifier or
    another one. `places` are the offsets that it points to: if they differ, but lead to the same
    parts on both sides, `content` may differ, too, since that follows from other differences.
    `follows` is set if `content` is determined by other bytes, like a correct checksum; if it is
    set on both sides, no difference is reported. An `optional` structure may be absent.
    """

    name: str
    span: Span
    content: bytes
    kind: str = "structure"
    text: str | None = None  # the content, formatted for people
    places: tuple[int, ...] = ()
    follows: bool = False
    optional: bool = False


@dataclass(slots=True)
class Entry:
    """A file, folder or other object with a path.

    `facts` are its properties by kind of difference (mode, owner, time, target, ...); a more
    precise name may follow the kind after a space. `record` is the span in which the facts are
    stored, if they are contiguous. `note` is the reason if its content cannot be opened.
    `compressed` describes the compressed content, if that is contiguous.
    """

    path: str
    facts: dict[str, Fact]
    content: ByteSource | None = None
    record: Span | None = None
    note: str = ""
    compressed: Compressed | None = None


@dataclass(frozen=True)
class Region:
    """A range of the format's own bytes; all regions of one `name` are compared as one.

    `rest` returns the information in these bytes that is not in entries, facts or structures and
    does not follow from them. Without it, all bytes are compared that no structure, record or
    content covers.
    """

    name: str
    span: Span
    rest: Callable[[], bytes] | None = None


def no_entries() -> Iterator[Entry]:
    """Return an iterator over no entries."""
    return iter(())


def no_regions() -> Iterable[Region]:
    """Return no regions."""
    return ()


def never(start: int, end: int) -> bool:
    """Return False: the format's tools pad no such span with zeros."""
    return False


@dataclass(frozen=True)
class Container:
    """A content that was parsed according to its format.

    `entries` returns the entries in the order of `sort_key`, with unique paths. `order` has the
    paths in stored order, if the format leaves that order free.

    The other fields serve the account of every byte (see `pipeline.look.account`); they are valid
    once the entries have been iterated. `regions` returns the format's own bytes, besides
    structures, records and contents. `rest` returns the information in an entry's record that is
    neither in its facts nor follows from its content; its second argument is whether the content
    differs from the other side's. Without it, the whole record is compared. `number` returns an
    entry's number if the entries are numbered in sequence, like inodes, so that an additional entry
    changes the numbers of those after it. `place` returns the class and position in which an
    entry's content is stored, if tools can choose that order. `unlike` returns whether an entry's
    content, though equal, is compressed to different bytes on the other side.

    `touched` returns the entries whose contents may lie in some ranges, if that is faster than
    testing all of them. `taken_down` returns the entries for the account if a format does not keep
    all of them in memory; its regions then also cover the entries' records and contents, and the
    functions above apply to the entry that was yielded last. `slack` returns the unused bytes in
    the compressed blocks that the given contents share; no other contents may use these blocks.
    `packed` maps a hash of each decompressed piece of the format's own data to a hash of its stored
    bytes.

    Zeros in unused space are ignored if they end at the next multiple of `align` (0: wherever they
    end, if the sizes of both sides are equal), or if `closes` returns True for their span.
    """

    structures: Sequence[Structure] = ()
    entries: Callable[[], Iterator[Entry]] = no_entries
    regions: Callable[[], Iterable[Region]] = no_regions
    order: Sequence[str] | None = None
    rest: Callable[[Entry, bool], bytes] | None = None
    number: Callable[[Entry], int | None] | None = None
    place: Callable[[Entry], tuple[int, int] | None] | None = None
    unlike: Callable[[Entry], bool] | None = None
    touched: Callable[[Ranges], Iterator[Entry]] | None = None
    taken_down: Callable[[], Iterator[Entry]] | None = None
    slack: Callable[[Iterable[ByteSource]], bytes] | None = None
    packed: Mapping[int, int] = field(default_factory=dict)
    align: int = 1
    closes: Callable[[int, int], bool] = never


@dataclass(frozen=True)
class Format:
    """A format: its name, a check whether a content looks like it, and its reader.

    The reader raises BadFormat, and so may the container that it returns. `packs` is set for a
    format that compresses a single content: if that differs, differences of the compressed bytes
    are not reported.
    """

    name: str
    matches: Callable[[ByteSource], bool]
    read: Callable[[ByteSource, Spool], Container]
    packs: bool = False


def sort_key(path: str) -> str:
    """Return the sort key of a path: a folder's contents come between it and its next sibling."""
    return path.replace("/", "\0")


class Tally:
    """Counts entries and the length of their texts; refuses what would exhaust the memory."""

    def __init__(self) -> None:
        self._entries = 0
        self._text = 0

    def count(self, entry: Entry) -> Entry:
        """Return the entry; raise BadFormat if there are too many entries or too much text."""
        self._entries += 1
        self._text += len(entry.path) + sum(map(_length, entry.facts.values()))
        if self._entries > ENTRY_LIMIT or self._text > TEXT_LIMIT:
            what = f"{self._entries} entries with {self._text} characters"
            raise BadFormat(f"it has at least {what}, which is too much")
        return entry


def _length(fact: Fact) -> int:
    if isinstance(fact, tuple):
        return sum(len(name) + len(value) for name, value in fact)
    return len(fact) if isinstance(fact, str) else 0


def listed(entries: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """Return the entries sorted, and their paths in stored order.

    Further entries with the same path get a number appended, as in `path (2)`. Raise BadFormat if
    there are too many.
    """
    found: dict[str, Entry] = {}
    tally = Tally()
    for entry in map(tally.count, entries):
        number, path = 1, entry.path
        while entry.path in found:
            number += 1
            if number > 100:  # the search for a free name takes longer each time
                raise BadFormat(f"the path {path} is there over 100 times")
            entry.path = f"{path} ({number})"
        found[entry.path] = entry
    return sorted(found.values(), key=lambda entry: sort_key(entry.path)), list(found)


def file_type(mode: int) -> str:
    """Return the file type in a POSIX mode."""
    types = {1: "fifo", 2: "char", 4: "dir", 6: "block", 8: "file", 10: "link", 12: "socket"}
    return types.get(mode >> 12 & 15, f"{mode >> 12 & 15:o}")


@lru_cache(maxsize=1024)  # one string for all files of an owner
def owner_of(uid: int, gid: int) -> str:
    """Return an owner and group as one fact."""
    return f"{uid}:{gid}"


def path_of(raw: str) -> str:
    """Return a path without the leading `./` that some archives have."""
    return raw.removeprefix("./") or "."


def name_of(raw: bytes) -> str:
    """Decode a name as UTF-8; invalid bytes become surrogates."""
    return raw.decode("utf-8", "surrogateescape")
