# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the differences that a verdict names, down to the bytes, with their usual causes.

Reads the verdict, the ledgers, the statements and the artifacts of a run, writes
`explanation.json`. It explains a verdict and never changes one: unreadable contents are reported
and left unexplained.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.base.errors import TwinbuildError
from pipeline.base.files import write_json
from pipeline.base.plain import plain
from pipeline.compare.built import Built, open_built
from pipeline.compare.environments import read_facts
from pipeline.compare.folders import Folders
from pipeline.compare.properties import raw_values, read_entries, values_of
from pipeline.documents.explanation import DiffoscopeOutput, Explained, Explanation
from pipeline.documents.ledger_line import LedgerEntry
from pipeline.documents.verdict import Difference, Verdict
from pipeline.farm.run import Run
from pipeline.farm.run_view import RunView
from pipeline.look import diffoscope
from pipeline.look.causes.classify import distinct, find_causes_of_values, known_factors
from pipeline.look.causes.facts import Pair
from pipeline.look.causes.properties import only_in_one
from pipeline.look.causes.spots import is_text
from pipeline.look.containers import Sides
from pipeline.look.findings import EQUAL, Findings, Leaf, look_into, shortened
from pipeline.look.formats.source import ByteSource
from pipeline.look.places import REFUSED, say_reason
from pipeline.look.twins import find_twins

FILES_LIMIT = 40
NOTIFIED = 3  # differences
TIME_LIMIT_S = 30.0
ASKED_LIMIT = 3  # what diffoscope is asked about
ARTIFACTS = "the artifacts"  # instead of a step, where no ledger names anything
IN_CONTENT = frozenset({"content", "size"})


def explain(run: Run, verdict: Verdict, *, notify: Callable[[str], None]) -> Path | None:
    """Explain a verdict `differ`; return what was written, or None if there is nothing to explain.

    A difference that cannot be shown has a note that says so; no error is raised.
    """
    path = run.folder / "explanation.json"
    path.unlink(missing_ok=True)
    if verdict.verdict != "differ":
        return None
    begin = time.monotonic()
    found = _explain(run, verdict, begin + TIME_LIMIT_S)
    write_json(path, found.document())
    notify(f"explain: {len(found.files)} of the differences in {time.monotonic() - begin:.1f} s")
    for file in found.files[:NOTIFIED]:
        notify(f"explain: {_sentence(file)}")
    notify(f"explain: {found.diffoscope}")
    if found.factors:
        notify(f"explain: the environments differ in {', '.join(found.factors)}")
    return path


def _sentence(explained: Explained) -> str:
    """Summarize an explained path in a line."""
    what = f"{explained.path} differs in {', '.join(explained.kinds)}"
    if explained.kinds[0].startswith("only-in-"):
        what = f"{explained.path} is {explained.kinds[0].replace('-', ' ')}"
    count, inside = explained.bytes, explained.inside[:1]
    where = f", {count} bytes from byte {explained.offset} on" if count else ""
    deeper = "".join(f", in {i.where} {i.path} ({i.kind})" for i in inside)
    looks = "".join(f"; looks like {c.name}: {c.evidence}" for c in explained.causes[:1])
    return plain(f"step {explained.step}: {what}{where}{deeper}{looks}")


def _explain(run: Run, verdict: Verdict, deadline: float) -> Explanation:
    seen = RunView(run)
    names = _differing_pair(seen, verdict.environments)
    pair = _facts(seen, names)
    grouped = _grouped(verdict.differences)
    chosen = dict(list(grouped.items())[:FILES_LIMIT])
    with ExitStack() as stack:
        contents = _Contents(run, names, stack)
        contents.choose(read_entries(run, names, [path for _, path in chosen]))
        files: list[Explained] = []
        helper = _Diffoscope()
        for one in [*_paired(chosen, pair)] or contents.artifacts():
            if time.monotonic() > deadline:
                break
            findings = _look(one, contents, pair)
            if one.step != ARTIFACTS or findings.note != EQUAL:
                found = _explain_one(one, findings, contents, pair)
                files.append(replace(found, diffoscope=helper.say(found, findings.leaf)))
    left_out = max(0, len(grouped) - len(files))
    factors = tuple(known_factors(pair))
    return Explanation(names, factors, tuple(files), left_out, helper.part)


class _Diffoscope:
    """Runs diffoscope on the first few binary contents whose difference nothing explains."""

    def __init__(self) -> None:
        self._unusable = diffoscope.unusable()
        self._asked = 0

    @property
    def part(self) -> str:
        """How diffoscope was used in an explanation."""
        if self._unusable:
            return self._unusable
        return f"diffoscope looked at {self._asked} of the differences, which had no known cause"

    def say(self, found: Explained, leaf: Leaf | None) -> DiffoscopeOutput | None:
        known = any(not cause.weak for cause in found.causes)
        if self._unusable or known or leaf is None or not leaf.whole:
            return None
        contents = leaf.sides[0].data, leaf.sides[1].data
        if self._asked >= ASKED_LIMIT or all(map(is_text, contents)):
            return None
        self._asked += 1
        return diffoscope.ask(leaf.name, contents)


def _differing_pair(seen: RunView, names: Sequence[str]) -> tuple[str, str]:
    """Return the first environment and the first other one whose artifacts differ."""
    subjects = {}
    for name in names:
        statement = seen.environments[name].statement.content
        subjects[name] = statement and statement.subject
    others = [name for name in names[1:] if subjects[name] != subjects[names[0]]]
    return names[0], (others or names[1:])[0]


def _facts(seen: RunView, names: tuple[str, str]) -> Pair:
    """Return the facts of two environments; signatures are not checked, they only explain."""
    source = seen.source.content
    epoch = source.epoch if source else None
    left, right = (
        read_facts(name, epoch or 0, statement.predicate if statement else {})
        for name in names
        for statement in [seen.environments[name].statement.content]
    )
    folders = Folders(seen.environments[names[0]].folder / "ledger.jsonl.gz")
    left, right = (
        replace(facts, holds=folders.holding, lacks=folders.lacks) for facts in (left, right)
    )
    return left, right


def _grouped(differences: Sequence[Difference]) -> dict[tuple[str, str], list[str]]:
    """Return the kinds of each path that differs, in the order of the verdict."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for difference in differences:
        grouped.setdefault((difference.step, difference.path), []).append(difference.kind)
    return grouped


@dataclass(frozen=True)
class _Differing:
    """A path that differs.

    `paths` are its names on each side: a path that only one side has may have another in its place
    on the other side, or None.
    """

    step: str
    path: str
    kinds: Sequence[str]
    paths: tuple[str | None, str | None]

    @property
    def renamed(self) -> bool:
        return self.paths[0] != self.paths[1]


def _paired(grouped: Mapping[tuple[str, str], Sequence[str]], pair: Pair) -> Iterator[_Differing]:
    """Yield what differs; paths that only one side has are paired within a folder."""
    sides = {f"only-in-{facts.name}": number for number, facts in enumerate(pair)}
    only: tuple[list[str], list[str]] = [], []
    for (_, path), kinds in grouped.items():
        if kinds[0] in sides:
            only[sides[kinds[0]]].append(path)
    twins = find_twins(*only)
    for (step, path), kinds in grouped.items():
        side = sides.get(kinds[0])
        twin = path if side is None else twins.get(path)
        yield _Differing(step, path, kinds, (twin, path) if side == 1 else (path, twin))


class _Contents:
    """The contents of both environments, and their entries in the ledgers."""

    def __init__(self, run: Run, names: tuple[str, str], stack: ExitStack) -> None:
        self.entries: dict[str, dict[str, LedgerEntry]] = {}
        self._names = names
        self._fault = ""
        self._built: list[Built] = []
        self._trees: list[dict[str, ByteSource]] = [{}, {}]
        for name in names:
            try:
                self._built.append(open_built(run.environment(name) / "artifacts", stack))
            except (TwinbuildError, OSError) as error:
                self._fault = plain(str(error))

    def choose(self, entries: dict[str, dict[str, LedgerEntry]]) -> None:
        """Find these paths in both trees."""
        self.entries = entries
        self._trees = [built.tree(set(entries)) for built in self._built]

    def artifacts(self) -> Iterator[_Differing]:
        """Yield the artifacts that differ, if no ledger names anything inside."""
        if not self._fault:
            left, right = (built.artifacts for built in self._built)
            for name in sorted(left.keys() & right.keys()):
                yield _Differing(ARTIFACTS, name, ("content",), (name, name))

    def sides(self, paths: tuple[str, str]) -> Sides | str:
        """Return both contents of a path, or why they are not available."""
        if self._fault:
            return self._fault
        ours, theirs = (self._find(number, path) for number, path in enumerate(paths))
        if ours is not None and theirs is not None:
            return ours, theirs
        faults = [fault for built in self._built for fault in built.faults]
        return "; ".join(dict.fromkeys(faults)) or "no artifact has this file"

    def _find(self, number: int, path: str) -> ByteSource | None:
        if path in self._trees[number]:
            return self._trees[number][path]
        entries = self.entries.get(path, {})
        entry = entries.get(self._names[number])
        if entry is None:
            return None if entries else self._built[number].find(path)
        return self._built[number].find_content(entry.sha256, entry.size)


def _explain_one(one: _Differing, findings: Findings, contents: _Contents, pair: Pair) -> Explained:
    entries = contents.entries.get(one.path, {})
    values = tuple(values_of(one.kinds, entries, pair))
    properties = [*raw_values(one.kinds, entries, pair)]
    if one.renamed and None not in one.paths:
        properties.append(("name", *one.paths))
    causes = [
        cause
        for kind, left, right in properties
        for cause in find_causes_of_values(kind, (left, right), pair)
    ]
    if None in one.paths:
        causes.append(only_in_one(one.path, one.paths.index(None) ^ 1, pair))
    return Explained(
        plain(one.path),
        plain(one.step),
        tuple(map(plain, one.kinds)),
        findings.offset,
        findings.bytes,
        values,
        findings.shown,
        shortened(distinct([*findings.causes, *causes])),
        findings.inside,
        findings.note,
    )


def _look(one: _Differing, contents: _Contents, pair: Pair) -> Findings:
    left, right = one.paths
    if left is None or right is None or not (one.renamed or IN_CONTENT & set(one.kinds)):
        return Findings()
    try:
        sides = contents.sides((left, right))
        if isinstance(sides, str):
            return Findings(note="" if one.renamed else sides)
        findings = look_into(one.path, sides, pair)
    except REFUSED as error:
        return Findings(note=plain(f"it cannot be read: {say_reason(error)}"))
    except OSError as error:
        return Findings(note=plain(f"it cannot be read: {error.strerror}"))
    return Findings() if one.renamed and findings.offset is None else findings
