"""Shows the differences that a verdict names, down to the bytes, and says what usually makes them.

Reads the verdict, the ledgers, the statements and the ISOs of a run, writes `explanation.json`.
It explains a verdict and never changes one: what cannot be read is told and left unexplained.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import dsse
from pipeline.compare.artifacts import compare_files, list_artifacts
from pipeline.compare.causes.classify import find_causes, find_causes_of_values, known_factors
from pipeline.compare.causes.facts import Cause, Pair, read_facts
from pipeline.compare.contents import SECTOR, Content, Iso, open_iso
from pipeline.compare.ledger import Entry
from pipeline.compare.locate import Difference
from pipeline.compare.properties import Values, raw_values, read_entries, values_of
from pipeline.compare.shown import Shown, count_differing, show
from pipeline.compare.verdict import Verdict
from pipeline.errors import SignatureInvalid, TwinbuildError, UsageError
from pipeline.files import read_json, write_json
from pipeline.plain import plain
from pipeline.run import Run

FORMAT = "twinbuild-explanation/1"
FILES_LIMIT = 40
SAID = 3
TIME_LIMIT_S = 30.0
EVIDENCE_LIMIT = 400
ISO = ".iso"
PART = 65536  # bytes of an artifact that are looked at from its first difference on
IN_CONTENT = frozenset({"content", "size"})


@dataclass(frozen=True)
class Explained:
    """A path that differs: since which step, in what, how it looks, and what usually makes it.

    `offset` is the first byte that differs, `bytes` how many do. `note` says why there is nothing
    to look at.
    """

    path: str
    step: str
    kinds: tuple[str, ...]
    offset: int | None = None
    bytes: int | None = None
    values: tuple[Values, ...] = ()
    shown: Shown | None = None
    causes: tuple[Cause, ...] = ()
    note: str = ""

    def sentence(self) -> str:
        """Say the most important of it in a line."""
        what = f"{self.path} differs in {', '.join(self.kinds)}"
        if self.kinds[0].startswith("only-in-"):
            what = f"{self.path} is {self.kinds[0].replace('-', ' ')}"
        where = f", {self.bytes} bytes from byte {self.offset} on" if self.bytes else ""
        looks = "".join(f"; looks like {c.name}: {c.evidence}" for c in self.causes[:1])
        return plain(f"step {self.step}: {what}{where}{looks}")


@dataclass(frozen=True)
class Explanation:
    """All that was explained of a run: `factors` are those in which the environments differ."""

    environments: tuple[str, str]
    factors: tuple[str, ...]
    files: tuple[Explained, ...]
    left_out: int


def explain(run: Run, verdict: Verdict, *, notify: Callable[[str], None]) -> Path | None:
    """Explain a verdict `differ`; return what was written, or None if there is nothing to explain.

    A difference that cannot be shown says so; no error of it is raised.
    """
    path = run.folder / "explanation.json"
    path.unlink(missing_ok=True)
    if verdict.verdict != "differ":
        return None
    begin = time.monotonic()
    found = _explain(run, verdict, begin + TIME_LIMIT_S)
    write_json(path, {"format": FORMAT, **asdict(found)})
    notify(f"explain: {len(found.files)} of the differences in {time.monotonic() - begin:.1f} s")
    for file in found.files[:SAID]:
        notify(f"explain: {file.sentence()}")
    if found.factors:
        notify(f"explain: the environments differ in {', '.join(found.factors)}")
    return path


def _explain(run: Run, verdict: Verdict, deadline: float) -> Explanation:
    names = _differing_pair(run, verdict.environments)
    pair = _facts(run, names)
    grouped = _grouped(verdict.differences)
    chosen = list(grouped.items())[:FILES_LIMIT]
    entries = read_entries(run, names, [path for (_, path), _ in chosen])
    with_isos = _isos(run, names)
    files = []
    for (step, path), kinds in chosen:
        if time.monotonic() > deadline:
            break
        files.append(_explain_one(step, path, kinds, entries.get(path, {}), with_isos, pair))
    files = [*_named_alike(files, pair)]
    if not files:
        files = [*_artifacts(run, names, pair)]
    return Explanation(names, tuple(known_factors(pair)), tuple(files), len(grouped) - len(files))


def _differing_pair(run: Run, names: Sequence[str]) -> tuple[str, str]:
    """Return the first environment and the first other that gave back something else."""
    subjects = {name: _statement(run, name).get("subject") for name in names}
    others = [name for name in names[1:] if subjects[name] != subjects[names[0]]]
    return names[0], (others or names[1:])[0]


def _facts(run: Run, names: tuple[str, str]) -> Pair:
    source = _document(run.source_json)
    epoch = source.get("epoch")
    left, right = (
        read_facts(name, epoch if isinstance(epoch, int) else 0, _predicate(run, name))
        for name in names
    )
    return left, right


def _predicate(run: Run, name: str) -> Mapping[str, Any]:
    predicate = _statement(run, name).get("predicate")
    return predicate if isinstance(predicate, dict) else {}


def _statement(run: Run, name: str) -> Mapping[str, Any]:
    """Return what an environment states, whoever signed it: nothing rests on it here."""
    try:
        return dsse.unverified_payload(_document(run.environment(name) / "statement.json"))
    except SignatureInvalid:
        return {}


def _document(path: Path) -> Mapping[str, Any]:
    try:
        document = read_json(path, failure=UsageError)
    except UsageError:
        return {}
    return document if isinstance(document, dict) else {}


def _grouped(differences: Sequence[Difference]) -> dict[tuple[str, str], list[str]]:
    """Return the kinds of each path that differs, in the order of the verdict."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for difference in differences:
        grouped.setdefault((difference.step, difference.path), []).append(difference.kind)
    return grouped


def _isos(run: Run, names: tuple[str, str]) -> tuple[Iso, Iso] | str:
    """Open both ISOs, or say why that cannot be."""
    isos = []
    for name in names:
        folder = run.environment(name) / "artifacts"
        try:
            found = [a for a in list_artifacts(folder) if a.endswith(ISO)]
            if len(found) != 1:
                return f"{name} has {len(found)} ISOs, so contents cannot be had from one"
            isos.append(open_iso(folder / found[0]))
        except TwinbuildError as error:
            return str(error)
    return isos[0], isos[1]


def _explain_one(
    step: str,
    path: str,
    kinds: Sequence[str],
    entries: Mapping[str, Entry],
    isos: tuple[Iso, Iso] | str,
    pair: Pair,
) -> Explained:
    values = tuple(values_of(kinds, entries, pair))
    causes = tuple(
        cause
        for kind, left, right in raw_values(kinds, entries, pair)
        for cause in find_causes_of_values(kind, (left, right), pair)
    )
    found = Explained(plain(path), plain(step), tuple(map(plain, kinds)), values=values)
    if not IN_CONTENT & set(kinds):
        return replace(found, causes=_shortened(causes))
    if isinstance(isos, str):
        return replace(found, causes=_shortened(causes), note=plain(isos))
    try:
        contents = _read(isos, path, in_tree=bool(entries))
    except (TwinbuildError, OSError) as error:
        detail = f" ({error.detail})" if isinstance(error, TwinbuildError) and error.detail else ""
        return replace(found, causes=_shortened(causes), note=plain(f"{error}{detail}"))
    return _of_contents(found, path, contents, causes, pair)


def _read(isos: tuple[Iso, Iso], path: str, *, in_tree: bool) -> tuple[Content, Content]:
    """Read a path of the tree, or else a file of the ISO."""
    read = []
    for iso in isos:
        inside = None if in_tree else iso.find(path)
        read.append(iso.read(inside) if inside else iso.read_tree(path))
    return read[0], read[1]


def _of_contents(
    found: Explained,
    path: str,
    contents: tuple[Content, Content],
    causes: tuple[Cause, ...],
    pair: Pair,
) -> Explained:
    left, right = (content.data for content in contents)
    if left == right:
        cut = " as far as they are read" if contents[0].cut else ""
        return replace(found, causes=_shortened(causes), note=f"the contents are equal{cut}")
    offset, count = count_differing(left, right)
    names = {cause.name for cause in causes}
    more = tuple(c for c in find_causes(path, (left, right), pair) if c.name not in names)
    return replace(
        found,
        offset=offset,
        bytes=count,
        shown=show(left, right),
        causes=_shortened(more + causes),
        note="only the beginning was looked at" if any(c.cut for c in contents) else "",
    )


def _shortened(causes: Sequence[Cause]) -> tuple[Cause, ...]:
    return tuple(Cause(c.name, plain(c.evidence, limit=EVIDENCE_LIMIT), c.weak) for c in causes)


def _named_alike(files: Sequence[Explained], pair: Pair) -> Iterator[Explained]:
    """Explain the paths that only one side has by those that stand in their place in the other."""
    only = [{f.path: f for f in files if f.kinds == (f"only-in-{p.name}",)} for p in pair]
    twins: dict[str, str] = {}
    folders = {path.rpartition("/")[0] for path in only[0]}
    for folder in folders:
        here, there = ([p for p in side if p.rpartition("/")[0] == folder] for side in only)
        if len(here) == len(there):
            twins |= dict(zip(here, there, strict=True))
    back = {theirs: ours for ours, theirs in twins.items()}
    for file in files:
        if file.path in twins or file.path in back:
            ours = back.get(file.path, file.path)
            causes = find_causes_of_values("name", (ours, twins[ours]), pair)
            yield replace(file, causes=_shortened(causes))
        else:
            yield file


def _artifacts(run: Run, names: tuple[str, str], pair: Pair) -> Iterator[Explained]:
    """Explain the artifacts themselves, where no ledger names anything inside."""
    folders = [run.environment(name) / "artifacts" for name in names]
    listed = [set(list_artifacts(folder)) for folder in folders]
    for name in sorted(listed[0] & listed[1]):
        paths = [folder / name for folder in folders]
        offset = compare_files(paths[0], paths[1]).offset
        if offset is None:
            continue
        begin = max(0, offset - offset % SECTOR)
        contents = [_part(path, begin) for path in paths]
        found = Explained(
            plain(name), "the artifacts", ("content",), note=_within(paths[0], offset)
        )
        told = _of_contents(found, name, (contents[0], contents[1]), (), pair)
        yield replace(told, offset=offset, note=found.note, shown=_moved(told.shown, begin))


def _part(path: Path, begin: int) -> Content:
    with path.open("rb") as file:
        file.seek(begin)
        return Content(file.read(PART))


def _moved(shown: Shown | None, by: int) -> Shown | None:
    rows = tuple(replace(row, offset=row.offset + by) for row in shown.rows) if shown else ()
    return shown and replace(shown, rows=rows)


def _within(path: Path, offset: int) -> str:
    """Say in which file of an ISO an offset lies."""
    shown = f"the first {PART} bytes from there were looked at"
    if path.name.endswith(ISO):
        try:
            parts = open_iso(path).parts.items()
        except TwinbuildError as error:
            return plain(str(error))
        inside = [n for n, found in parts for at, size in found if at <= offset < at + size]
        shown = f"in {inside[0]}" if inside else "in none of its files: volume or boot records"
    return plain(shown)
