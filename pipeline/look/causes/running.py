# SPDX-License-Identifier: GPL-3.0-or-later
"""Output about the running system: lines of known forms, and values of the machine.

A line is recognised by its form on both sides, regardless of its values: these would differ even
between two runs of one build on one machine.
"""

import re
from collections.abc import Iterator, Sequence

from pipeline.documents.explanation import Cause
from pipeline.look.causes.facts import MARGIN_S, Pair
from pipeline.look.causes.known_lines import FOLDER, FORMS, NUMBERS
from pipeline.look.causes.spots import Spot

SHOWN = 80  # characters of a line
COLUMN = re.compile(r"^ *(\d+)[ \t]+(\S*[^\W\d]\S*)$")
PATH = re.compile(r"^(?:\S*/\S+(?:[ :]+[\d.]+)+|(?:[\d.]+[ :]+)+\S*/\S+) *$")
WHOLE = re.compile(r"(?<![\d.])\d+(?![\d.])")
LISTED_LEAST, LISTED_SHARE = 3, 0.8  # least number and share of lines with another number
NEAR = 0.8  # the least share of a machine's memory that its kernel leaves to programs
NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)?(?![\w.]*\d)")
MEMORY_WORD = re.compile(r"(?i:mem|\bram\b|pages|total)|\d[KMG]i?B?\b")
COMMA = re.compile(r"(?<=\d),(?=\d)")
UPTIME = re.compile(r"\d+\.\d\d")
UPTIME_PATH = re.compile(r"(?i:uptime|boot(?!/)|(?:^|/)up\d*$)")
# Units of memory: their size in MiB, and the number that a memory size in them is a multiple of.
UNITS = {
    "bytes": (2**-20, 4096),
    "pages": (2**-8, 1),
    "KiB": (2**-10, 4),
    "MiB": (1.0, 1),
    "GiB": (2.0**10, 1),
}
# The names of file systems: the kernel's, that of `stat -f`, and their magic numbers.
FILE_SYSTEMS = {
    "ext4": ("ext4", "ext2/ext3", "ef53", "0xef53"),
    "xfs": ("xfs", "58465342", "0x58465342"),
    "btrfs": ("btrfs", "9123683e", "0x9123683e"),
    "tmpfs": ("tmpfs", "1021994", "01021994", "0x1021994"),
    "overlay": ("overlay", "overlayfs", "794c7630", "0x794c7630"),
}


def in_forms(spot: Spot) -> tuple[Cause, bool] | None:
    """Return the cause of a spot by the form of its lines, and whether that explains all of it.

    One side may lack the line.
    """
    there = [line for text in spot.text if (line := text.rstrip("\r\n"))]
    for form in FORMS:
        if there and all(map(form.pattern.search, there)):
            evidence = " and ".join(repr(line.strip()[:SHOWN]) for line in there)
            return Cause(form.cause, f"{form.what}: {evidence}"), not form.dated
    return None


def in_columns(contents: tuple[bytes, bytes], spots: Sequence[Spot]) -> Cause | None:
    """Find a list of names, most of which have other numbers next to them: inodes or blocks."""
    lines = min(content.count(b"\n") for content in contents)
    if len(spots) < LISTED_LEAST or len(spots) < LISTED_SHARE * lines:
        return None
    if not all(COLUMN.match(text) or PATH.match(text) for spot in spots for text in spot.text):
        return None
    bare = [[WHOLE.sub("", text).split() for text in spot.text] for spot in spots]
    if sum(left == right for left, right in bare) < LISTED_SHARE * lines:
        return None
    evidence = " and ".join(repr(text.strip()[:SHOWN]) for text in spots[0].text)
    what = f"{len(spots)} of {lines} lines have another number beside the same name"
    return Cause("file-system", f"{what}, as inodes or blocks: {evidence}")


def in_values(path: str, spot: Spot, pair: Pair) -> Iterator[Cause]:
    """Yield the causes of values that come from each side's machine, and of known numbers."""
    left, right = sides = (spot.text[0].rstrip("\r\n"), spot.text[1].rstrip("\r\n"))
    found = [_environment(sides, pair)]
    if left and right:
        found.append(_uptime(path, left, right, pair))
        found += [_file_system(sides, pair), _memory(sides, pair), _number(path, left, right)]
    yield from filter(None, found)


def _environment(sides: tuple[str, str], pair: Pair) -> Cause | None:
    """Find the variables that were chosen at random for one environment, as samples of any."""
    for text, both in zip(sides, (pair, pair[::-1]), strict=True):
        drawn, others = (set(one.others.get("environment variables", "").split()) for one in both)
        words = set(re.findall(r"\w+", text)) if drawn else set()
        for name in sorted(drawn - others):
            if name in words:
                return Cause("environment", f"{name} is a variable of {both[0].name} alone")
    return None


def _file_system(sides: tuple[str, str], pair: Pair) -> Cause | None:
    """Find the names of the scratch file systems, each on its own side only."""
    kinds = [facts.others.get("scratch filesystem", "") for facts in pair]
    if kinds[0] == kinds[1]:
        return None
    found = [_alias(text, kind) for text, kind in zip(sides, kinds, strict=True)]
    if not all(found) or _alias(sides[0], kinds[1]) or _alias(sides[1], kinds[0]):
        return None
    evidence = f"{found[0]!r} in {pair[0].name}, {found[1]!r} in {pair[1].name}"
    return Cause("file-system", f"{evidence}: the scratch file systems are {' and '.join(kinds)}")


def _alias(text: str, kind: str) -> str:
    words = re.findall(r"[\w/]+", text)
    return next((name for name in FILE_SYSTEMS.get(kind, (kind,)) if name in words), "")


def _uptime(path: str, left: str, right: str, pair: Pair) -> Cause | None:
    """Guess that numbers with two decimals are uptimes: by the path or the builds' durations."""
    if not all(UPTIME.fullmatch(text.strip()) for text in (left, right)):
        return None
    if UPTIME_PATH.search(path):
        evidence = f"{left.strip()} and {right.strip()}, and the path speaks of an uptime"
        return Cause("uptime", evidence, weak=True)
    for text, facts in zip((left, right), pair, strict=True):
        long_s = facts.hours[1] - facts.hours[0] + MARGIN_S if facts.hours else 0
        if float(text) > long_s:
            return None
    evidence = f"{left.strip()} and {right.strip()} are no more seconds than the builds took"
    return Cause("uptime", evidence, weak=True)


def _memory(sides: tuple[str, str], pair: Pair) -> Cause | None:
    """Find numbers that are each machine's memory, minus the part that its kernel reserves."""
    sizes = [facts.others.get("memory", "") for facts in pair]
    numbers = [NUMBER.findall(text) for text in sides]
    if not all(size.isdigit() for size in sizes) or len(numbers[0]) != len(numbers[1]):
        return None
    named = bool(MEMORY_WORD.search(sides[0]))
    for left, right in zip(*numbers, strict=True):
        values = [float(text.replace(",", ".")) for text in (left, right)]
        for unit, (scale, multiple) in UNITS.items():
            shares = [v * scale / int(size) for v, size in zip(values, sizes, strict=True)]
            near = all(NEAR <= share <= 1 for share in shares) and abs(shares[0] - shares[1]) < 0.1
            known = named or (multiple > 1 and not any(v % multiple for v in values))
            if near and known and left != right:
                evidence = f"{left} and {right} {unit} are {shares[0]:.0%} and {shares[1]:.0%} of"
                evidence = f"{evidence} the {sizes[0]} and {sizes[1]} MiB of the machines"
                return Cause("memory", evidence, weak=not named)
    return None


def _number(path: str, left: str, right: str) -> Cause | None:
    """Return the cause of lines that are equal except for numbers of a known kind."""
    evidence = f"{left.strip()[:SHOWN]!r} and {right.strip()[:SHOWN]!r}"
    folders = FOLDER.match(left), FOLDER.match(right)
    if folders[0] and folders[1] and folders[0].groups() == folders[1].groups():
        return Cause("file-system", f"the size of a folder, by ls: {evidence}")
    ours, theirs = (COMMA.sub(".", text) for text in (left, right))  # decimal commas of locales
    for form in NUMBERS:
        bare = form.pattern.sub("\0", ours)
        if bare != ours and bare == form.pattern.sub("\0", theirs):
            return Cause(form.cause, f"{form.what}: {evidence}")
    if path.endswith(".pid") and left.strip().isdigit() and right.strip().isdigit():
        return Cause("process-id", f"{evidence} in a file *.pid")
    return None
