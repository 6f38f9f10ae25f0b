# SPDX-License-Identifier: GPL-3.0-or-later
"""What every format is read into: structures of its own, entries, and regions of its bytes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pipeline.look.formats.ranges import Ranges, Span
from pipeline.look.formats.recompress import Compressed
from pipeline.look.formats.source import BadFormat, ByteSource, Spool

ENTRY_LIMIT = 80_000  # entries of a format that is read as a whole
TEXT_LIMIT = 12 * 1024 * 1024  # characters of their paths and facts
PATH_LIMIT = 4096  # bytes of a path
LINK_LIMIT = 65_536  # bytes that a symbolic link leads along

Fact = str | int | tuple[tuple[str, str], ...]  # a tuple has names and values


@dataclass(frozen=True)
class Structure:
    """A piece of the format itself: a header's field, a boot record.

    `kind` is structure, time, identifier, or another kind of difference that it makes. `places`
    are the offsets that it points to. Where they point to the same things on both sides, that
    they moved follows from other differences, and `content` may differ; so it may if it `follows`
    from other bytes, as a checksum does that is right. What is `optional` need not be there.
    """

    name: str
    span: Span
    content: bytes
    kind: str = "structure"
    text: str | None = None  # how people read it
    places: tuple[int, ...] = ()
    follows: bool = False
    optional: bool = False


@dataclass(slots=True)
class Entry:
    """A file, folder or other thing with a path.

    `facts` says all that is known of it by kind of difference (mode, owner, time, target, ...);
    what it is more exactly may follow the kind, after a space. `record` is where the facts are
    stored, if they lie in one piece. `note` is why its content is not looked into, if it cannot be.
    `compressed` is where the content lies compressed, if it lies in one piece.
    """

    path: str
    facts: dict[str, Fact]
    content: ByteSource | None = None
    record: Span | None = None
    note: str = ""
    compressed: Compressed | None = None


@dataclass(frozen=True)
class Region:
    """A range of the format's own bytes; `name` is what it is matched by, with all of that name.

    `rest` gives what these bytes say beyond entries, facts and structures, and what does not follow
    from them; without it that is all of them that no structure, record or content covers.
    """

    name: str
    span: Span
    rest: Callable[[], bytes] | None = None


def no_entries() -> Iterator[Entry]:
    """Give no entries."""
    return iter(())


def no_regions() -> Iterable[Region]:
    """Give no regions."""
    return ()


def never(start: int, end: int) -> bool:
    """Tell of no zeros that the format's tools fill up so."""
    return False


@dataclass(frozen=True)
class Container:
    """A content that was read as its format demands.

    `entries` gives the entries in the order of `sort_key`, each path once. `order` has the paths
    as they are stored, where the format leaves their order free.

    What follows makes the account of every byte (see `pipeline.look.account`), once the entries
    were given. `regions` are the format's own, beside structures, records and contents. `rest`
    gives what an entry's record says beyond its facts and what does not follow from its content;
    it gets whether that differs from the other side's. Without it that is the whole record.
    `number` gives its number, if entries are numbered in some order, as inodes are: where there is
    one more, those behind it have other numbers. `place` gives in which order an entry's content is
    stored, and where in that, if tools can choose it. `unlike` tells of an entry whose content was
    found to be equal whether it is packed in other bytes.

    `touched` gives the entries whose contents may lie in some ranges, if it is faster than to ask
    all. Of a format that is not read as a whole, the regions are all there is, and `taken_down`
    gives the entries for the account; the functions above are then asked of the one given last.
    `slack` gives what the packed pieces that contents share hold beyond them, if these are all.
    `packed` has a hash of the stored bytes of each packed piece of the format's own, by one of what
    it holds.

    Zeros in unused space say nothing if they end at the next multiple of `align` (0: wherever they
    end, if the sizes are equal), or if `closes` tells so.
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
    """A format: its name, whether a content's first bytes look like it, and its reader.

    The reader raises BadFormat; what it gives may raise it later. `packs` tells that its bytes
    follow from one content: when that differs, they say nothing more.
    """

    name: str
    matches: Callable[[ByteSource], bool]
    read: Callable[[ByteSource, Spool], Container]
    packs: bool = False


def sort_key(path: str) -> str:
    """Return what paths are sorted by: a folder before what is in it, before its next sibling."""
    return path.replace("/", "\0")


class Tally:
    """Counts entries and the length of what they say; refuses what would fill the memory."""

    def __init__(self) -> None:
        self._entries = 0
        self._text = 0

    def count(self, entry: Entry) -> Entry:
        """Return the entry, or raise BadFormat if there are too many, or too long ones."""
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
    """Return entries sorted, and their paths as stored; a path's second entry is named so.

    Raise BadFormat if there are too many.
    """
    found: dict[str, Entry] = {}
    tally = Tally()
    for entry in map(tally.count, entries):
        number, path = 1, entry.path
        while entry.path in found:
            number += 1
            if number > 100:  # each further one would take longer
                raise BadFormat(f"the path {path} is there over 100 times")
            entry.path = f"{path} ({number})"
        found[entry.path] = entry
    return sorted(found.values(), key=lambda entry: sort_key(entry.path)), list(found)


def file_type(mode: int) -> str:
    """Return the type that a POSIX mode says."""
    types = {1: "fifo", 2: "char", 4: "dir", 6: "block", 8: "file", 10: "link", 12: "socket"}
    return types.get(mode >> 12 & 15, f"{mode >> 12 & 15:o}")


@lru_cache(maxsize=1024)  # one string for all files of an owner
def owner_of(uid: int, gid: int) -> str:
    """Return an owner and group as one fact."""
    return f"{uid}:{gid}"


def path_of(raw: str) -> str:
    """Return an archive's path without the `./` that some put before every path."""
    return raw.removeprefix("./") or "."


def name_of(raw: bytes) -> str:
    """Return the name that bytes say; those that are not UTF-8 become surrogates."""
    return raw.decode("utf-8", "surrogateescape")
