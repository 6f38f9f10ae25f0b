"""Where two builds began to differ: the step and the paths, from their ledgers.

What differs for a while and is equal in the end (a log that is removed, a time that is clamped)
made no difference and is left out. What differs in the end is told with the step since which it
does, a file that was made outside the tree with the step that made it.

Lines that are equal in both ledgers are not parsed; memory does not grow with the ledgers.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from pipeline.compare.ledger import (
    STEP_START,
    Artifact,
    Entry,
    Record,
    Step,
    Unpacking,
    parse,
    read_blocks,
)
from pipeline.plain import plain

DIFFERENCES_LIMIT = 1000
OPEN_LIMIT = 20_000  # paths that differ at one time; more say no more
SHOWN_PATHS = 10
CHUNK = 1024  # lines that are compared at once
IS_STEP = re.compile(re.escape(STEP_START)).match

# In what two entries of one path can differ, the weightiest first.
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

UNKNOWN = "unknown"  # until it is known what a side that said nothing had before

Names = tuple[str, str]
Order = tuple[int, bytes]
Found = tuple[int, str, str]  # number of the step, path, kind


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
class Located:
    """The differences, the earliest first, and what they come to in words."""

    differences: tuple[Difference, ...]
    reasons: tuple[str, ...]


def locate(names: Names, ledgers: tuple[Path, Path]) -> Located:
    """Compare the ledgers of the environments `names`; raise BuildFailed if one is not readable."""
    trace = _Trace(names)
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(closing(Unpacking(path))) for path in ledgers)
        steps, *read = ours.pass_shared_start(theirs)
        trace.same(steps)
        pool = stack.enter_context(ThreadPoolExecutor(len(ledgers)))  # decompresses ahead
        left, right = _Side(ours.blocks(read[0]), pool), _Side(theirs.blocks(read[1]), pool)
        while left.line is not None or right.line is not None:
            equal = _count_equal(left, right)
            if equal:
                trace.same(left.block[left.at : left.at + equal])
                left.advance(equal)
                right.advance(equal)
            elif _parted(left, right) or len(trace.open) > OPEN_LIMIT:
                break
            else:
                first = min(left.order, right.order)
                saying = [side if side.order == first else None for side in (left, right)]
                trace.differ(saying)
                for side in filter(None, saying):
                    side.advance(1)
    trace.settle()
    trace.complete(ledgers[0])
    return _located(trace, _say_parting(names, left, right))


class _Side:
    """One ledger, read a block of lines at a time; `line` is None after the last."""

    def __init__(self, blocks: Iterator[list[bytes]], pool: ThreadPoolExecutor) -> None:
        self._blocks = blocks
        self._pool = pool
        self._ahead: Future[list[bytes]] = pool.submit(next, blocks, [])
        self.block: list[bytes] = []
        self.at = 0
        self.advance(0)

    def advance(self, lines: int) -> None:
        self.at += lines
        if self.at >= len(self.block):
            self.at, self.block = 0, self._ahead.result()
            if self.block:
                self._ahead = self._pool.submit(next, self._blocks, [])
        self.line = self.block[self.at] if self.block else None
        self._record: Record | None = None
        self._order: Order | None = None

    @property
    def record(self) -> Record | None:
        if self._record is None and self.line is not None:
            self._record = parse(self.line)
        return self._record

    @property
    def order(self) -> Order:
        """Where the line stands in its step: paths, removed paths, artifacts; the next step."""
        if self._order is None:
            match self.record:
                case Entry(path=path, type=kind):
                    self._order = int(kind == "absent"), path.encode("utf-8", "surrogateescape")
                case Artifact(name=name):
                    self._order = 2, name.encode("utf-8", "surrogateescape")
                case _:
                    self._order = 3, b""
        return self._order


def _count_equal(left: _Side, right: _Side) -> int:
    """Return how many of the next lines are equal, of those that are at hand."""
    if left.line != right.line:
        return 0
    ours = left.block[left.at : left.at + CHUNK]
    theirs = right.block[right.at : right.at + CHUNK]
    count = min(len(ours), len(theirs))
    if ours[:count] == theirs[:count]:
        return count
    return next(number for number in range(count) if ours[number] != theirs[number])


def _parted(left: _Side, right: _Side) -> bool:
    """Tell whether the two go on with different steps, or one has ended."""
    return left.order == right.order == (3, b"")


@dataclass
class _Open:
    """A path that differs now: what each side last said of it, and since when each kind differs."""

    sides: list[Entry | None] = field(default_factory=lambda: [None, None])
    since: dict[str, int] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return next(entry.path for entry in self.sides if entry)


class _Trace:
    """What differs after each step, while both ledgers are read."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.steps = ["the start"]
        self.open: dict[bytes, _Open] = {}
        self.artifacts: list[tuple[int, str, str]] = []
        self._touched: set[bytes] = set()
        self._made: dict[str, list[Artifact | None]] = {}

    def same(self, lines: list[bytes]) -> None:
        """Both say the same lines."""
        if any(map(IS_STEP, lines)):
            for line in lines:
                if IS_STEP(line):
                    self._begin(parse(line))
                else:
                    self.open.pop(_path_bytes(line), None)
        elif self.open:
            for key in self.open.keys() & set(map(_path_bytes, lines)):
                del self.open[key]

    def _begin(self, step: Record) -> None:
        self.settle()
        if isinstance(step, Step):
            self.steps.append(step.name)

    def differ(self, sides: Sequence[_Side | None]) -> None:
        """One says what the other does not."""
        for index, side in enumerate(sides):
            record = side.record if side else None
            if side and side.line and isinstance(record, Entry):
                key = _path_bytes(side.line)
                self.open.setdefault(key, _Open()).sides[index] = record
                self._touched.add(key)
            elif isinstance(record, Artifact):
                self._made.setdefault(record.name, [None, None])[index] = record

    def settle(self) -> None:
        """End a step: what is equal again is closed, what is not is dated."""
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
        """Find what was there before, for paths of which one side said nothing.

        Before they differed both ledgers said the same of them, so either one will do.
        """
        wanted = {key: found for key, found in self.open.items() if None in found.sides}
        before: dict[bytes, bytes] = {}
        step = 0
        for line in chain.from_iterable(read_blocks(ledger) if wanted else ()):
            if IS_STEP(line):
                step += 1
            elif (key := _path_bytes(line)) in wanted and step < wanted[key].since[UNKNOWN]:
                before[key] = line
        for key, found in wanted.items():
            record = parse(before[key]) if key in before else None
            earlier = record if isinstance(record, Entry) else None
            left, right = (side or earlier for side in found.sides)
            first = found.since[UNKNOWN]
            found.since = dict.fromkeys(_kinds(self.names, left, right), first)


def _path_bytes(line: bytes) -> bytes:
    """Return the path of a line as it stands there, without parsing it: its key while it is open.

    A quotation mark within a JSON string has a backslash before it, so neither mark can be in one.
    """
    return line.partition(b'"path":"')[2].partition(b'","')[0]


def _kinds(names: Names, left: Entry | None, right: Entry | None) -> list[str]:
    """Return in what two entries of a path differ; None is no such path, as absent is."""
    here = left if left and left.type != "absent" else None
    there = right if right and right.type != "absent" else None
    if here is None or there is None:
        return [f"only-in-{names[here is None]}"] if here or there else []
    if here.type != there.type:
        return ["type"]
    return [kind for kind, fields in KINDS.items() if _differ(here, there, fields)]


def _differ(left: Entry, right: Entry, fields: tuple[str, ...]) -> bool:
    return any(getattr(left, name) != getattr(right, name) for name in fields)


def _say_parting(names: Names, left: _Side, right: _Side) -> str | None:
    """Say where one ledger goes on with another step than the other, or ends."""
    match left.record, right.record:
        case Step(name=ours), Step(name=theirs):
            return f"{names[0]} goes on with the step {ours} where {names[1]} does {theirs}"
        case Step(name=step), None:
            return f"the ledger of {names[1]} ends before the step {step}"
        case None, Step(name=step):
            return f"the ledger of {names[0]} ends before the step {step}"
    return None


def _located(trace: _Trace, parting: str | None) -> Located:
    """Put what was found into order and words."""
    found = [
        (since, opened.path, kind)
        for opened in trace.open.values()
        for kind, since in opened.since.items()
    ]
    order = {kind: number for number, kind in enumerate(KINDS)}
    found.sort(key=lambda f: (f[0], f[1].encode("utf-8", "surrogateescape"), order.get(f[2], -1)))
    made = sorted(trace.artifacts, key=lambda f: f[0])
    if found:  # a file that was made from a tree that differed already says nothing more
        made = [f for f in made if f[0] < found[0][0]]
    reasons = [*_say_made(trace, made), *_say_paths(trace, found)]
    if len(trace.open) > OPEN_LIMIT:
        reasons.append(f"over {OPEN_LIMIT} paths differ: the ledgers were not read further")
    if parting:
        reasons.append(parting)
    if not reasons:
        reasons.append("the ledgers are equal: the difference arises after the last step")
    differences = [Difference(trace.steps[since], *rest) for since, *rest in [*made, *found]]
    return Located(tuple(differences[:DIFFERENCES_LIMIT]), tuple(map(plain, reasons)))


def _say_made(trace: _Trace, made: Sequence[Found]) -> Iterator[str]:
    """Say which step made a file outside the tree that differs, the tree being equal."""
    first = [f for f in made if f[0] == made[0][0]]
    if first:
        names = ", ".join(name for _, name, _ in first[:SHOWN_PATHS])
        step = trace.steps[first[0][0]]
        yield f"the trees are equal after every step: the difference arises in {step} ({names})"


def _say_paths(trace: _Trace, found: Sequence[Found]) -> Iterator[str]:
    """Say what differs in the first paths of the first step that made a difference."""
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
