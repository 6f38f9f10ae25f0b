# SPDX-License-Identifier: GPL-3.0-or-later
"""Where two builds began to differ: the step and the paths, from their ledgers.

A path that differs for a while and is equal in the end (a log that is removed, a time that is
clamped) is left out. A path that differs in the end is reported with the step at which that began,
a file outside the tree with the step that made it.

Lines that are equal in both ledgers are not even parsed; memory does not grow with the ledgers.
"""

import re
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from pipeline.base.plain import plain
from pipeline.compare.ledger import Unpacking, parse, read_blocks, step_lines
from pipeline.documents.ledger_line import (
    ARTIFACT_START,
    STEP_START,
    Artifact,
    LedgerEntry,
    Record,
    Step,
)
from pipeline.documents.verdict import Difference

DIFFERENCES_LIMIT = 1000
OPEN_LIMIT = 10_000  # paths that differ at one time; more would tell nothing new
SHOWN_PATHS = 10
WINDOW, WINDOW_LIMIT = 512, 256 * 1024  # bytes compared at once: the first number, the largest
# A path in its line. It never backtracks: a hostile line costs no more than others.
PATHS = re.compile(rb'"path":"((?:[^"\\\n]++|\\.)*+)"')

# How two entries of one path can differ, the most important first.
KINDS = {
    "content": ("sha256", "device"),
    "size": ("size",),
    "target": ("target",),
    "mode": ("mode",),
    "owner": ("uid", "gid"),
    "xattr": ("xattrs",),
    "links": ("links",),
    "time": ("mtime",),
}

UNKNOWN = "unknown"  # until it is known what a side without a line had before

Names = tuple[str, str]
Order = tuple[int, bytes]
Found = tuple[int, str, str]  # number of the step, path, kind


@dataclass(frozen=True)
class ComparedLedgers:
    """The differences, the earliest first, and a summary of them in words."""

    differences: tuple[Difference, ...]
    reasons: tuple[str, ...]


def compare_ledgers(
    names: Names, ledgers: tuple[Path, Path], delivered: Set[str] = frozenset()
) -> ComparedLedgers:
    """Compare the ledgers of the environments `names`; raise BuildFailed if one is not readable.

    `delivered` are the artifacts that are known to differ: a ledger has no hash of them.
    """
    trace = _Trace(names)
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(closing(Unpacking(path))) for path in ledgers)
        steps, *read = ours.pass_shared_start(theirs)
        for step in steps:
            trace.begin(parse(step))
        pool = stack.enter_context(ThreadPoolExecutor(len(ledgers)))  # decompresses ahead
        left = _Side(_ahead(ours.blocks(read[0]), pool))
        right = _Side(_ahead(theirs.blocks(read[1]), pool))
        while left.block or right.block:
            equal = _count_equal(left, right)
            if equal:
                trace.same(left.next(0, equal))
                left.advance(equal)
                right.advance(equal)
            elif _parted(left, right) or len(trace.open) > OPEN_LIMIT:
                break
            else:
                first = min(left.order, right.order)
                saying = [side if side.order == first else None for side in (left, right)]
                trace.differ(saying)
                for side in filter(None, saying):
                    side.advance(len(side.line) + 1)
    trace.settle()
    trace.complete(ledgers[0])
    parting = _say_parting(names, left, right)
    if delivered and not trace.open and not parting:
        trace.add_delivered(ledgers[0], delivered)
    return _summarized(trace, parting)


class _Side:
    """One ledger, read a block of lines at a time; the block is empty after the last."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self.block = b""
        self.at = 0
        self.advance(0)

    def advance(self, length: int) -> None:
        """Skip so many bytes, which are whole lines."""
        self.at += length
        if self.at >= len(self.block):
            self.at, self.block = 0, next(self._blocks, b"")
        self._record: Record | None = None
        self._order: Order | None = None

    def next(self, offset: int, length: int) -> bytes:
        """Return so many bytes of the block, from `offset` after the current position."""
        return self.block[self.at + offset : self.at + offset + length]

    @property
    def line(self) -> bytes:
        """The current line, without its newline."""
        return self.block[self.at : self.block.index(b"\n", self.at)]

    @property
    def record(self) -> Record | None:
        """The record of the current line; None after the last."""
        if self._record is None and self.block:
            self._record = parse(self.line)
        return self._record

    @property
    def order(self) -> Order:
        """The line's place in its step: paths, removed paths, artifacts, then the next step."""
        if self._order is None:
            match self.record:
                case LedgerEntry(path=path, type=kind):
                    self._order = int(kind == "absent"), path.encode("utf-8", "surrogateescape")
                case Artifact(name=name):
                    self._order = 2, name.encode("utf-8", "surrogateescape")
                case _:
                    self._order = 3, b""
        return self._order


def _count_equal(left: _Side, right: _Side) -> int:
    """Return how many of the next bytes in both blocks are equal, in whole lines."""
    limit = min(len(side.block) - side.at for side in (left, right))
    equal, size = 0, min(WINDOW, limit)
    while size and left.next(equal, size) == right.next(equal, size):
        equal += size
        size = min(2 * size, WINDOW_LIMIT, limit - equal)
    while size > WINDOW:  # the first that differs is among so many
        half = size // 2
        same = left.next(equal, half) == right.next(equal, half)
        equal, size = (equal + half, size - half) if same else (equal, half)
    ours, theirs = (int.from_bytes(side.next(equal, size), "big") for side in (left, right))
    equal += size - ((ours ^ theirs).bit_length() + 7) // 8
    return max(0, left.block.rfind(b"\n", left.at, left.at + equal) + 1 - left.at)


def _parted(left: _Side, right: _Side) -> bool:
    """Tell whether the two continue with different steps, or one has ended."""
    return left.order == right.order == (3, b"")


@dataclass
class _Open:
    """A path that differs now: its last entry on each side, and the step of each kind."""

    sides: list[LedgerEntry | None] = field(default_factory=lambda: [None, None])
    since: dict[str, int] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return next(entry.path for entry in self.sides if entry)


class _Trace:
    """The paths that differ after each step, while both ledgers are read."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.steps = ["the start"]
        self.open: dict[bytes, _Open] = {}
        self.artifacts: list[tuple[int, str, str]] = []
        self._touched: set[bytes] = set()  # in this step, and those open since before it
        self._earlier: set[bytes] = set()
        self._made: dict[str, list[Artifact | None]] = {}

    def same(self, lines: bytes) -> None:
        """Take lines that are equal in both."""
        at = 0
        for start, end in step_lines(lines):
            self._close(lines[at:start])
            self.begin(parse(lines[start:end]))
            at = end
        self._close(lines[at:])

    def _close(self, lines: bytes) -> None:
        """Take paths that are equal in both: those that differed before no longer do."""
        if self._earlier:
            for key in self._earlier.intersection(PATHS.findall(lines)):
                self._earlier.discard(key)
                self.open.pop(key, None)

    def begin(self, step: Record) -> None:
        """Begin a step in both."""
        self.settle()
        self._earlier = set(self.open)
        if isinstance(step, Step):
            self.steps.append(step.name)

    def differ(self, sides: Sequence[_Side | None]) -> None:
        """Take a line that differs between the two, or that only one has."""
        for index, side in enumerate(sides):
            record = side.record if side else None
            if side and isinstance(record, LedgerEntry):
                key = _path_bytes(side.line)
                self.open.setdefault(key, _Open()).sides[index] = record
                self._touched.add(key)
            elif isinstance(record, Artifact):
                self._made.setdefault(record.name, [None, None])[index] = record

    def settle(self) -> None:
        """End a step: drop paths that are equal again, date those that are not."""
        now = len(self.steps) - 1
        for key in self._touched & self.open.keys():
            found = self.open[key]
            left, right = found.sides
            kinds = _kinds(self.names, left, right) if left and right else [UNKNOWN]
            first = found.since.get(UNKNOWN, now)
            found.since = {kind: found.since.get(kind, first) for kind in kinds}
            if not kinds:
                del self.open[key]
        for name, (ours, theirs) in self._made.items():
            if ours != theirs:
                kind = "content" if ours and theirs else f"only-in-{self.names[ours is None]}"
                self.artifacts.append((now, name, kind))
        self._touched.clear()
        self._made.clear()

    def complete(self, ledger: Path) -> None:
        """Find the earlier entries of paths for which one side has no line.

        Before they differed both ledgers had the same entry, so either one will do.
        """
        wanted = {key: found for key, found in self.open.items() if None in found.sides}
        before = _last_lines(ledger, {key: found.since[UNKNOWN] for key, found in wanted.items()})
        for key, found in wanted.items():
            record = parse(before[key]) if key in before else None
            earlier = record if isinstance(record, LedgerEntry) else None
            left, right = (side or earlier for side in found.sides)
            first = found.since[UNKNOWN]
            found.since = dict.fromkeys(_kinds(self.names, left, right), first)

    def add_delivered(self, ledger: Path, delivered: Set[str]) -> None:
        """Date the artifacts that differ although their entries in both ledgers are equal."""
        step, known = 0, {name for _, name, _ in self.artifacts}
        for lines in read_blocks(ledger):
            for line in lines:
                if line.startswith(STEP_START):
                    step += 1
                elif line.startswith(ARTIFACT_START):
                    record = parse(line)
                    if isinstance(record, Artifact) and record.name in delivered - known:
                        self.artifacts.append((step, record.name, "content"))


def _last_lines(ledger: Path, until: dict[bytes, int]) -> dict[bytes, bytes]:
    """Return the last line about each path before the step with its number."""
    last: dict[bytes, bytes] = {}
    if not until:
        return last
    step = 0
    with closing(Unpacking(ledger)) as unpacking, ThreadPoolExecutor(1) as pool:
        for lines in _ahead(unpacking.blocks(), pool):
            at = 0
            for start, end in [*step_lines(lines), (len(lines), len(lines))]:
                part = lines[at:start]
                for key in until.keys() & set(PATHS.findall(part)):
                    if step < until[key]:
                        last[key] = _line_of(key, part)
                at, step = end, step + (start < end)
    return last


def _line_of(key: bytes, lines: bytes) -> bytes:
    """Return the last of the lines that have this path."""
    at = lines.rindex(b'"path":"' + key + b'"')
    return lines[lines.rfind(b"\n", 0, at) + 1 : lines.index(b"\n", at)]


def _ahead(blocks: Iterator[bytes], pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """Yield the blocks; the next one is decompressed while one is compared."""
    coming = pool.submit(next, blocks, b"")
    while block := coming.result():
        coming = pool.submit(next, blocks, b"")
        yield block


def _path_bytes(line: bytes) -> bytes:
    """Return the path of a line as it is written there: its key while it is open."""
    found = PATHS.search(line)
    return found[1] if found else b""


def _kinds(names: Names, left: LedgerEntry | None, right: LedgerEntry | None) -> list[str]:
    """Return how two entries of a path differ; None means no such path, like absent."""
    here = left if left and left.type != "absent" else None
    there = right if right and right.type != "absent" else None
    if here is None or there is None:
        return [f"only-in-{names[here is None]}"] if here or there else []
    if here.type != there.type:
        return ["type"]
    of = {kind: attrgetter(*fields) for kind, fields in KINDS.items()}
    return [kind for kind, fields in of.items() if fields(here) != fields(there)]


def _say_parting(names: Names, left: _Side, right: _Side) -> str | None:
    """Return where one ledger continues with another step than the other, or ends."""
    match left.record, right.record:
        case Step(name=ours), Step(name=theirs):
            return f"{names[0]} continues with the step {ours} where {names[1]} has {theirs}"
        case Step(name=step), None:
            return f"the ledger of {names[1]} ends before the step {step}"
        case None, Step(name=step):
            return f"the ledger of {names[0]} ends before the step {step}"
    return None


def _summarized(trace: _Trace, parting: str | None) -> ComparedLedgers:
    """Return the differences in order, with a summary in words."""
    found = [
        (since, opened.path, kind)
        for opened in trace.open.values()
        for kind, since in opened.since.items()
    ]
    order = {kind: number for number, kind in enumerate(KINDS)}
    found.sort(key=lambda f: (f[0], f[1].encode("utf-8", "surrogateescape"), order.get(f[2], -1)))
    # A file made from a tree that already differed tells nothing new.
    made = [f for f in sorted(trace.artifacts) if not found or f[0] < found[0][0]]
    reasons = [*_say_made(trace, made), *_say_paths(trace, found)]
    if len(trace.open) > OPEN_LIMIT:
        reasons.append(f"over {OPEN_LIMIT} paths differ: the ledgers were not read further")
    if parting:
        reasons.append(parting)
    if not reasons:
        reasons.append("the ledgers are equal: the difference arises after the last step")
    differences = [Difference(trace.steps[since], *rest) for since, *rest in [*made, *found]]
    return ComparedLedgers(tuple(differences[:DIFFERENCES_LIMIT]), tuple(map(plain, reasons)))


def _say_made(trace: _Trace, made: Sequence[Found]) -> Iterator[str]:
    """Return which step made a differing file outside the tree, if the tree is equal."""
    first = [f for f in made if f[0] == made[0][0]]
    if first:
        step, names = trace.steps[first[0][0]], ", ".join(f[1] for f in first[:SHOWN_PATHS])
        equal = "until then" if trace.open else "after every step"
        yield f"the trees are equal {equal}: the difference arises in {step} ({names})"


def _say_paths(trace: _Trace, found: Sequence[Found]) -> Iterator[str]:
    """Return how the first paths of the first step with a difference differ."""
    if not found:
        return
    first = found[0][0]
    kinds: dict[str, list[str]] = {}
    for _, path, kind in (f for f in found if f[0] == first):
        kinds.setdefault(path, []).append(kind)
    for path, names in list(kinds.items())[:SHOWN_PATHS]:
        yield f"step {trace.steps[first]}: {path} {_say_kinds(names)}"
    others = len(kinds) - SHOWN_PATHS
    if others > 0:
        yield f"step {trace.steps[first]}: and {others} more paths"
    later = len({path for since, path, _ in found if since != first} - kinds.keys())
    if later:
        yield f"{later} more paths differ since later steps"


def _say_kinds(kinds: list[str]) -> str:
    if kinds[0].startswith("only-in-"):
        return f"is {kinds[0].replace('-', ' ')}"
    *most, last = kinds
    return f"differs in {', '.join(most)} and {last}" if most else f"differs in {last}"
