# SPDX-License-Identifier: GPL-3.0-or-later
"""Name the usual causes of a difference, with the evidence for each; `docs/causes.md` lists them.

Contents and values come from hostile builds: they are read with limits, and only compared.
"""

import lzma
import re
import zlib
from collections.abc import Iterator, Sequence

from pipeline.documents.explanation import Cause
from pipeline.look.causes.accounts import in_accounts
from pipeline.look.causes.calendar import in_parts
from pipeline.look.causes.digests import in_digests
from pipeline.look.causes.drawn import in_random_bytes
from pipeline.look.causes.facts import Facts, Pair
from pipeline.look.causes.headers import in_headers
from pipeline.look.causes.identifiers import in_identifiers
from pipeline.look.causes.letters import in_letters, in_locale
from pipeline.look.causes.names import in_names
from pipeline.look.causes.order import in_order
from pipeline.look.causes.properties import (
    attributes,
    of_attributes,
    of_links,
    of_modes,
    of_names,
    of_times,
    of_types,
)
from pipeline.look.causes.running import in_columns, in_forms, in_values
from pipeline.look.causes.spots import Spot, find_spots, is_text
from pipeline.look.causes.tables import in_tables
from pipeline.look.causes.times import in_binary, in_text
from pipeline.look.causes.words import in_rest
from pipeline.look.causes.zones import in_zones

INNER_LIMIT = 16 * 1024 * 1024  # bytes of a decompressed content
MEMORY_LIMIT = 128 * 1024 * 1024  # bytes of memory for a decompressor
CAUSES_LIMIT = 8
PADDING = 4  # zeros on both sides of bytes that may be uninitialised
PADDED_LIMIT = 64
PADDING_SPOTS = 8  # if there are more places, they are numbers, not uninitialised memory

NAMES = frozenset(
    {
        *("file-time", "time-binary", "time-text", "time-zone", "shadow-day", "po-date", "pyc"),
        *("image-time", "gzip-time", "zip-time", "tar-time", "cpio-time", "ar-time", "png-time"),
        *("host-name", "user", "build-path", "locale", "kernel", "cpu-count", "machine"),
        *("umask", "owner", "uuid", "machine-id", "random-identifier", "build-id", "address"),
        *("hash-order", "directory-order", "job-order", "account-order", "uninitialised"),
        *("memory", "uptime", "process-id", "environment", "file-system", "duration"),
        *("temporary-name", "only-in-one", "set-time", "extended-attribute", "hard-link"),
        *("key", "changing-number", "changing-word", "set-mode", "file-type"),
    }
)

Contents = tuple[bytes, bytes]


def find_causes(path: str, contents: Contents, pair: Pair) -> tuple[Cause, ...]:
    """Return the likely causes of a difference between two contents of one path, guesses last.

    gzip and xz files are decompressed.
    """
    if contents[0] == contents[1]:
        return ()
    found = in_headers(path, contents, pair) + in_tables(contents)
    inner = tuple(_decompressed(content) for content in contents)
    if inner[0] is not None and inner[1] is not None:
        found += find_causes(path, (inner[0], inner[1]), pair) if inner[0] != inner[1] else ()
    else:
        known = bool(found)  # times in a known header need no further cause
        others = _in_content(path, contents, pair, known=known)
        found += [c for c in others if not known or c.name not in ("time-binary", "time-text")]
    return distinct(found)


def find_causes_of_values(
    kind: str, values: tuple[object, object], pair: Pair
) -> tuple[Cause, ...]:
    """Return the likely causes of a difference between two values of a property of a path.

    `kind` is one of a ledger's kinds, or "name". `values` are numbers for time and mode, anything
    for owner, links, type and device, and otherwise texts. Texts of other kinds, and names without
    a known cause, are examined like contents.
    """
    left, right = values
    match kind, left, right:
        case "time", int(), int():
            return of_times((left, right), pair)
        case "mode", int(), int():
            return of_modes((left, right), pair)
        case "owner", _, _:
            return (Cause("owner", f"{left} in {pair[0].name}, {right} in {pair[1].name}"),)
        case "links", _, _:
            return of_links((left, right), pair)
        case "type" | "device", _, _:
            return of_types(kind, (left, right), pair)
        case "xattr", str(), str():
            return _of_attributes((left, right), pair)
        case "name", str(), str() if found := of_names((left, right)):
            return found
        case _, str(), str():
            return find_causes("", (_bytes(left), _bytes(right)), pair)
    return ()


def _of_attributes(values: tuple[str, str], pair: Pair) -> tuple[Cause, ...]:
    """Return the certain causes in extended attributes; if there are none, what the values are."""
    known: list[Cause] = []
    differing = attributes(values)
    for _, left, right in differing:
        if left is not None and right is not None:
            known += [cause for cause in find_causes("", (left, right), pair) if not cause.weak]
    return distinct(known) or of_attributes(differing, pair)


def _bytes(text: str) -> bytes:
    return text.encode(errors="replace")


def _in_content(path: str, contents: Contents, pair: Pair, *, known: bool) -> Iterator[Cause]:
    """Yield the causes at the places where two contents differ."""
    text = is_text(contents[0]) and is_text(contents[1])
    if accounts := text and in_accounts(path, contents, pair):
        yield accounts
        return
    spots = find_spots(*contents)
    if text and (numbered := in_columns(contents, spots)):
        yield numbered
        return
    order = in_order(contents, spots, pair)
    explained = known or bool(order and order.cause)
    if order:
        if order.cause:
            yield order.cause
        contents, spots = order.rest, find_spots(*order.rest)
        if numbered := in_columns(contents, spots):
            yield numbered
            return
    for spot in spots:
        found = list(_in_spot(path, contents, spot, pair, text=text))
        explained = explained or bool(found)
        yield from found
    if explained:
        return
    if not text or not all(map(_is_utf8, contents)):
        yield from _uninitialised(contents, spots) or in_random_bytes(contents, spots)
    if text:
        yield from in_letters(contents, pair) or in_rest(contents, spots, pair)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _in_spot(
    path: str, contents: Contents, spot: Spot, pair: Pair, *, text: bool
) -> Iterator[Cause]:
    if text and _words_alone(spot) and (locale := in_locale(spot, pair)):
        yield locale
        return
    if text and (form := in_forms(spot)):
        cause, whole = form
        yield cause
        if whole:
            return
    found = in_text(spot, pair)
    found += [cause for cause in in_names(spot, pair, path) if not (found and cause.weak)]
    if not found:
        found = [cause for cause in (in_zones(spot, pair), in_parts(spot, pair)) if cause][:1]
    if text and (locale := in_locale(spot, pair)):
        found.append(locale)
    if not text and not found and (stamp := in_binary(contents, spot, pair)):
        found.append(stamp)
    if not found and (digest := in_digests(spot, pair)):
        found = [digest]
    if all(cause.weak for cause in found):
        found += [cause for cause in in_values(path, spot, pair) if not (found and cause.weak)]
    yield from found or in_identifiers(path, contents, spot, text=text)


def _words_alone(spot: Spot) -> bool:
    """Return whether both sides of a line have the same numbers, so that only words differ."""
    left, right = (re.findall(r"\d+", text) for text in spot.text)
    return left == right and bool(left)


def _uninitialised(contents: Contents, spots: Sequence[Spot]) -> list[Cause]:
    """Guess that a few bytes amid padding are uninitialised memory."""
    zeros = bytes(PADDING)
    if len(spots) > PADDING_SPOTS:
        return []
    for spot in spots:
        begin, end = spot.offsets[0], spot.offsets[0] + len(spot.left)
        same = spot.offsets[0] == spot.offsets[1] and len(spot.left) == len(spot.right)
        after = all(content[end : end + PADDING] == zeros for content in contents)
        before = all(content[max(0, begin - PADDING) : begin] == zeros for content in contents)
        blank = not any(spot.left) or not any(spot.right)
        if same and end - begin <= PADDED_LIMIT and ((before and after) or (blank and after)):
            evidence = f"{end - begin} bytes at byte {begin} stand amid zeros"
            return [Cause("uninitialised", f"{evidence} and follow no pattern", weak=True)]
    return []


def _decompressed(content: bytes) -> bytes | None:
    """Decompress a gzip or xz file, at most INNER_LIMIT bytes; return None if it is neither."""
    try:
        if content[:3] == b"\x1f\x8b\x08":
            return zlib.decompressobj(wbits=31).decompress(content, INNER_LIMIT)
        if content[:6] == b"\xfd7zXZ\0":
            unpack = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_LIMIT)
            return unpack.decompress(content, INNER_LIMIT)
    except (zlib.error, lzma.LZMAError):
        return None
    return None


def distinct(found: Sequence[Cause]) -> tuple[Cause, ...]:
    """Return the first cause of each name, guesses last, at most CAUSES_LIMIT."""
    first: dict[str, Cause] = {}
    for cause in sorted(found, key=lambda cause: cause.weak):
        first.setdefault(cause.name, cause)
    return tuple(first.values())[:CAUSES_LIMIT]


def known_factors(pair: Pair) -> list[str]:
    """Return the names, for people, of the factors in which two environments differ."""
    return [name for name, left, right in _factors(*pair) if left != right]


def _factors(left: Facts, right: Facts) -> Iterator[tuple[str, object, object]]:
    for name in (
        "host_name",
        "user",
        "build_path",
        "locale",
        "time_zone",
        "kernel",
        "cpus",
        "umask",
    ):
        yield name.replace("_", " "), getattr(left, name), getattr(right, name)
    yield "clock", left.clock or left.hours, right.clock or right.hours
    for name in {**left.others, **right.others}:
        yield name, left.others.get(name), right.others.get(name)
