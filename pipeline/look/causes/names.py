# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts of an environment in contents: host name, user, paths, kernel, processors and others.

A fact is the cause only if it explains the difference: after removing each environment's own value,
the two places must be equal.
"""

import re
from collections.abc import Iterator

from pipeline.documents.explanation import Cause
from pipeline.look.causes.facts import Facts, Pair
from pipeline.look.causes.languages import UNTRANSLATED
from pipeline.look.causes.spots import Spot, differing_words
from pipeline.look.causes.zones import zone_names

WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # of an identifier
# Words for things of which there is one for each processor, in the singular.
PARALLEL = frozenset(
    {
        *("cpu", "ncpu", "core", "ncore", "proc", "nproc", "processor", "processe", "smp"),
        *("job", "njob", "j", "thread", "nthread", "worker", "nworker", "slot", "pool"),
        *("parallel", "parallelism", "concurrent", "concurrency"),
    }
)
NUMBER = re.compile(r"\d{1,9}")
# Factors that have causes of their own, which look for more than their values.
OF_OWN_CAUSE = ("memory", "scratch filesystem", "environment variables", "directory order")
# Lookbehind assertions for values that begin with these characters.
BEFORE = {"/": r"(?:(?<![\w.])|(?<=-[IL]))", "+": r"(?<!\d)", "-": r"(?<!\d)"}
OUT = "\0"  # replaces a value; no text contains it


def _values(facts: Facts) -> dict[str, list[str]]:
    """Return the values to look for, by cause, longer ones first."""
    kernel = facts.kernel or ""
    found: dict[str, list[str | None]] = {
        "build-path": [facts.package_path, facts.build_path],
        "kernel": [kernel, kernel.partition("+")[0], re.split(r"[+-]", kernel)[0]],
        "host-name": [facts.host_name, (facts.host_name or "").upper()],
        "user": [facts.user],
        "time-zone": [facts.time_zone, *zone_names(facts)],
        "locale": _locales(facts.locale),
        "cpu-count": [facts.cpus],
        **{f"machine {factor}": [value] for factor, value in facts.others.items()},
    }
    for factor in OF_OWN_CAUSE:
        found.pop(f"machine {factor}", None)
    return {name: [value or OUT for value in values] for name, values in found.items()}


def _locales(locale: str | None) -> list[str | None]:
    """Return a locale's name, and what programs derive from it: language and country."""
    base = re.split(r"[.@]", locale or "")[0]
    if base in UNTRANSLATED:
        return [locale, base, base, base, "en"]
    language = base.partition("_")[0]
    return [locale, base, base.replace("_", "-"), language, language]


def in_names(spot: Spot, pair: Pair, path: str = "") -> Iterator[Cause]:
    """Yield the facts that, alone or together, explain a spot completely; else nothing."""
    left, right = spot.text
    if left == right or OUT in left + right:
        return
    causes = []
    values = _values(pair[0]), _values(pair[1])
    for name, own in values[0].items():
        if left == right:
            break
        for ours, theirs in zip(own, values[1].get(name, []), strict=False):
            if ours == theirs or OUT in (ours, theirs):
                continue
            taken = _taken_out((left, right), (ours, theirs))
            if taken:
                left, right = taken
                weak = name == "cpu-count" and not _is_parallel(spot.text[0])
                evidence = f"{ours!r} in {pair[0].name}, {theirs!r} in {pair[1].name}"
                cause, _, factor = name.partition(" ")
                evidence = f"{factor}: {evidence}" if factor else evidence
                causes.append(Cause(cause, evidence, weak=weak))
                break
    if left == right:
        yield from causes
    elif derived := _from_cpus(path, spot.text, pair):
        yield derived


def _is_parallel(text: str) -> bool:
    """Return whether a text has a word for things of which there is one for each processor."""
    return any(word.lower().removesuffix("s") in PARALLEL for word in WORDS.findall(text))


def _from_cpus(path: str, sides: tuple[str, str], pair: Pair) -> Cause | None:
    """Find the numbers of processors, or numbers computed from them by adding or multiplying.

    Computed numbers need a related word in the line, or in the path for a weak guess.
    """
    cpus = [facts.cpus or "" for facts in pair]
    differing = differing_words(NUMBER, sides)
    if not differing or cpus[0] == cpus[1] or not all(map(str.isdigit, cpus)):
        return None
    named = _is_parallel(sides[0])
    evidence = f"{sides[0].strip()[:60]!r} and {sides[1].strip()[:60]!r}"
    if all(both == (cpus[0], cpus[1]) for both in differing):
        return Cause("cpu-count", f"{evidence} have the numbers of processors", weak=not named)
    ours, theirs = map(int, cpus)
    numbers = [(int(one), int(other)) for one, other in differing]
    if not all(_reckoned(both, (ours, theirs)) for both in numbers):
        return None
    if not named and not _is_parallel(path):
        return None
    evidence = f"{evidence} follow from {ours} and {theirs} processors"
    return Cause("cpu-count", evidence, weak=not named)


def _reckoned(numbers: tuple[int, int], cpus: tuple[int, int]) -> bool:
    """Return whether numbers are computed from the processors.

    They are n + k, n * k or n * k + 1, with n processors and the same k on both sides.
    """
    left, right = numbers
    if left - right == cpus[0] - cpus[1]:
        return True
    return 0 not in cpus and any(
        (left - more) * cpus[1] == (right - more) * cpus[0] and (left - more) % cpus[0] == 0
        for more in (0, 1)
    )


def _taken_out(sides: tuple[str, str], values: tuple[str, str]) -> tuple[str, str] | None:
    """Return both sides with their values replaced by OUT, or None if that does not help.

    If replacing one value by the other makes the sides equal, both are returned as OUT.
    """
    left, right = sides
    if (
        _replaced(left, values[0], values[1]) == right
        or _replaced(right, values[1], values[0]) == left
    ):
        return OUT, OUT
    taken = _replaced(left, values[0], OUT), _replaced(right, values[1], OUT)
    counts = taken[0].count(OUT), taken[1].count(OUT)
    return taken if counts[0] == counts[1] > left.count(OUT) else None


def _replaced(text: str, value: str, by: str) -> str:
    """Replace a value wherever it is a separate word."""
    before = BEFORE.get(value[:1], r"(?<!\w)")
    return re.sub(rf"{before}{re.escape(value)}(?!\w)", lambda _: by, text)
