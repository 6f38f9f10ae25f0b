# SPDX-License-Identifier: GPL-3.0-or-later
"""Which factor decides: the step that differs runs again with fewer and fewer factors exchanged.

All trials begin with the tree before the step, which is equal in both environments, and stop after
it. The search is delta debugging (A. Zeller and R. Hildebrandt, "Simplifying and Isolating
Failure-Inducing Input", 2002) over the factors in which the environments differ. What comes with
the container host, its QEMU and its guest kernel cannot be exchanged: where the other factors do
not decide, the other environment runs the step with factors of the first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, pairwise
from pathlib import Path

from pipeline.base.errors import BuildFailed, Differs, InfrastructureFailed, TwinbuildError
from pipeline.base.files import write_json
from pipeline.base.plain import plain
from pipeline.compare.ledger import parse, read_blocks
from pipeline.compare.ledgers import KINDS
from pipeline.documents.ledger_line import STEP_START, Artifact, LedgerEntry, Record, Step
from pipeline.documents.machine import Factor

FORMAT = "twinbuild-bisect/1"
HOST = "suite"  # the factor that stands for a container host with its QEMU and its kernel
SHOWN = 10
TEXT_LIMIT = 200


@dataclass(frozen=True)
class SeenPath:
    """The properties of a path after the step in which the environments differ.

    The type is empty if the step left the path as it was.
    """

    type: str
    fields: tuple[tuple[str, object], ...] = ()


Seen = Mapping[str, SeenPath]
Taken = frozenset[str]
Build = Callable[[Taken], Seen]


@dataclass(frozen=True)
class Question:
    """The question: who differs, from which step on, how, and which factors may decide.

    `kinds` are those of each path; `before` are the steps before; `seen` is the result of each
    environment; `values` are those of each factor that differs, the container host's last.
    """

    environments: tuple[str, str]
    step: str
    before: tuple[str, ...]
    kinds: Mapping[str, tuple[str, ...]]
    seen: tuple[Seen, Seen]
    values: Mapping[str, tuple[Factor, Factor]]


@dataclass(frozen=True)
class Tried:
    """A trial: which factors were those of the second environment, and whose result it had."""

    taken: tuple[str, ...]
    like: str  # an environment, "neither", or "failed: …"


@dataclass(frozen=True)
class Answer:
    """The smallest set of factors that decides; empty if none does, and `sentence` says why."""

    factors: tuple[str, ...]
    sentence: str
    trials: tuple[Tried, ...] = ()

    def error(self) -> TwinbuildError | None:
        """Return the error that a command raises; None if a factor was found."""
        return None if self.factors else Differs(self.sentence, remedy="see docs/causes.md")


@dataclass
class _Trials:
    """The trials so far; each is made once."""

    question: Question
    build: Build
    say: Callable[[str], None]
    known: dict[Taken, Seen | None] = field(default_factory=dict)
    tried: list[Tried] = field(default_factory=list)

    def see(self, taken: Taken) -> Seen | None:
        """Return the step's result with some factors of the second environment."""
        if taken not in self.known:
            names = ", ".join(_ordered(self.question, taken)) or "nothing"
            number = len(self.tried) + 1
            second = self.question.environments[1]
            self.say(f"bisect: trial {number}: {names} as in {second} …".replace("_", " "))
            try:
                self.known[taken], like = self.build(taken), ""
            except (BuildFailed, InfrastructureFailed) as error:
                if not self.tried:
                    raise
                self.known[taken], like = None, plain(f"failed: {error.what}", limit=TEXT_LIMIT)
            like = like or self.like(taken)
            self.tried.append(Tried(_ordered(self.question, taken), like))
            self.say(f"bisect: trial {number}: like {like}")
        return self.known[taken]

    def like(self, taken: Taken) -> str:
        """Return the environment whose result this is."""
        seen = self.see(taken)
        for name, side in zip(self.question.environments, self.question.seen, strict=True):
            if seen == side:
                return name
        return "neither"

    def decide(self, taken: Taken) -> bool:
        """Tell whether these factors alone give the second environment's result."""
        return self.see(taken) == self.question.seen[1]


def narrow(question: Question, build: Build, say: Callable[[str], None]) -> Answer:
    """Find the fewest factors that turn one result into the other.

    `build` runs the step in the first environment with some factors of the second, or in the
    second if HOST is among them. Raise what the first trial raises.
    """
    trials = _Trials(question, build, say)
    first, second = question.environments
    if trials.like(frozenset()) != first:
        return _not_repeatable(trials, frozenset(), first)
    factors = tuple(question.values)
    exchangeable = tuple(name for name in factors if name != HOST)
    if trials.decide(frozenset(exchangeable)):
        factors = exchangeable
    elif HOST not in factors:
        return _undecided(trials)
    elif not trials.decide(frozenset(factors)):
        return _not_repeatable(trials, frozenset(factors), second)
    elif trials.decide(frozenset({HOST})):
        factors = (HOST,)
    found = smallest(factors, lambda some: trials.decide(frozenset(some)))
    return Answer(found, _sentence(question, found), tuple(trials.tried))


def smallest(factors: Sequence[str], enough: Callable[[Sequence[str]], bool]) -> tuple[str, ...]:
    """Return a minimal set of factors that suffices; all of them together do.

    This is Zeller's ddmin: halves, then their complements, then finer parts.
    """
    left, parts = tuple(factors), 2
    while len(left) > 1:
        pieces = split(left, parts)
        rests = [tuple(f for f in left if f not in piece) for piece in pieces] if parts > 2 else []
        fewer = next((some for some in chain(pieces, rests) if enough(some)), None)
        if fewer is not None:
            parts = 2 if fewer in pieces else max(parts - 1, 2)
            left = fewer
        elif parts >= len(left):
            break
        else:
            parts = min(2 * parts, len(left))
    return left


def split(factors: tuple[str, ...], parts: int) -> list[tuple[str, ...]]:
    """Return factors in so many parts of nearly one size, in order."""
    ends = [len(factors) * part // parts for part in range(parts + 1)]
    return [factors[begin:end] for begin, end in pairwise(ends)]


def _ordered(question: Question, taken: Taken) -> tuple[str, ...]:
    return tuple(name for name in question.values if name in taken)


def _not_repeatable(trials: _Trials, taken: Taken, name: str) -> Answer:
    """Return that an environment gives another result when it repeats the step."""
    question = trials.question
    seen = trials.see(taken)
    if seen is None:
        sentence = f"no factor was found: {name} cannot repeat {plain(question.step)}"
        return Answer((), sentence, tuple(trials.tried))
    side = question.seen[question.environments.index(name)]
    paths = [path for path in question.kinds if seen.get(path) != side.get(path)]
    shown = ", ".join(plain(path, limit=TEXT_LIMIT) for path in paths[:SHOWN])
    shown += f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    sentence = (
        f"no factor decides: {name} itself makes something else when it does {plain(question.step)}"
        f" once more ({shown}): a time, chance, or an order that nothing fixes"
    )
    return Answer((), sentence, tuple(trials.tried))


def _undecided(trials: _Trials) -> Answer:
    first, second = trials.question.environments
    sentence = (
        f"no factor that can be exchanged makes what {first} made into what {second} did;"
        " what is left is what the machines run on"
    )
    return Answer((), sentence, tuple(trials.tried))


def _sentence(question: Question, found: Sequence[str]) -> str:
    """Return which factors decide, with their values and the first path's result with each."""
    names = " and ".join(name.replace("_", " ") for name in found)
    verb = "decides" if len(found) == 1 else "decide together"
    path = next(iter(question.kinds))
    sides = []
    for index, environment in enumerate(question.environments):
        values = ", ".join(_value(question.values[name][index]) for name in found)
        has = _shown(question.kinds[path], question.seen[index][path])
        sides.append(f"with {values} (as in {environment}) {plain(path, limit=TEXT_LIMIT)} {has}")
    return f"{names} {verb}: {', '.join(sides)}"


def _value(value: object) -> str:
    return plain(str(value), limit=TEXT_LIMIT)


def _shown(kinds: Sequence[str], seen: SeenPath) -> str:
    """Describe a path by the properties that were compared."""
    if not seen.type:
        return "is left as it was"
    if seen.type == "absent":
        return "is not there"
    parts = []
    for name, value in seen.fields:
        if name == "sha256" and isinstance(value, str):
            parts.append(f"content {value[:12]}…")
        elif name == "mode" and isinstance(value, int):
            parts.append(f"mode {value:04o}")
        else:
            parts.append(f"{name} {_value(value)}")
    return f"has {', '.join(parts)}" if parts else f"is a {seen.type}"


def look(ledger: Path, step: str, kinds: Mapping[str, Sequence[str]]) -> Seen:
    """Return the properties of some paths after a step, those that differ, from a ledger.

    Raise BuildFailed if the ledger is malformed.
    """
    found = dict.fromkeys(kinds, SeenPath(""))
    inside = False
    for line in chain.from_iterable(read_blocks(ledger)):
        if line.startswith(STEP_START):
            inside = parse(line) == Step(step)
        elif inside:
            record = parse(line)
            name = record.path if isinstance(record, LedgerEntry) else getattr(record, "name", "")
            if name in kinds:
                found[name] = _compared(record, kinds[name])
    return found


def _compared(record: Record, kinds: Sequence[str]) -> SeenPath:
    """Return the part of a record that these kinds are about."""
    if isinstance(record, Artifact):
        return SeenPath("artifact", (("sha256", record.sha256), ("size", record.size)))
    fields = [name for kind in kinds for name in KINDS.get(kind, ())]
    pairs = [(name, getattr(record, name)) for name in fields]
    fields_of = ((n, _hashable(v)) for n, v in pairs if v not in (None, ()))
    return SeenPath(getattr(record, "type", ""), tuple(fields_of))


def _hashable(value: object) -> object:
    return tuple(sorted(value.items())) if isinstance(value, Mapping) else value


def steps_before(ledger: Path, step: str) -> tuple[str, ...]:
    """Return the steps of a ledger before one; raise BuildFailed if the ledger is malformed."""
    found: list[str] = []
    for line in chain.from_iterable(read_blocks(ledger)):
        if line.startswith(STEP_START):
            record = parse(line)
            if record == Step(step):
                break
            if isinstance(record, Step):
                found.append(record.name)
    return tuple(found)


def write(path: Path, question: Question, answer: Answer) -> None:
    """Write `bisect.json`."""
    document = {
        "format": FORMAT,
        "environments": list(question.environments),
        "step": question.step,
        "paths": list(question.kinds),
        "factors": list(answer.factors),
        "values": {name: list(question.values[name]) for name in answer.factors},
        "answer": answer.sentence,
        "trials": [asdict(tried) for tried in answer.trials],
    }
    write_json(path, document)
