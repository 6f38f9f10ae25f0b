# SPDX-License-Identifier: GPL-3.0-or-later
"""Rock Ridge: names, modes, owners, times and links in a directory record's system use area.

Sources: IEEE P1281 (SUSP) and P1282 (RRIP); for attributes, libisofs' susp_aaip_2_0.txt.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.look.formats.container import (
    LINK_LIMIT,
    PATH_LIMIT,
    Fact,
    file_type,
    name_of,
    owner_of,
)
from pipeline.look.formats.ranges import Span
from pipeline.look.formats.source import BadFormat, ByteSource, Spool

SECTOR = 2048
CONTINUATIONS = 32  # system use areas of one record
BYTE_WORK = 128
SHORT_TIME = 7
LONG_TIME = 17
TIMES = ("creation", "modify", "access", "attributes", "backup", "expiration", "effective")
XATTRS_LIMIT = 65_536  # bytes of one file's attributes
# The abbreviations of namespaces of extended attributes in libisofs' AAIP.
NAMESPACES = {
    b"\2": "system.",
    b"\3": "user.",
    b"\4": "isofs.",
    b"\5": "trusted.",
    b"\6": "security.",
}
COMPONENTS = {2: b".", 4: b"..", 8: b""}
SPECIAL = 14  # mask of these flags


@dataclass(frozen=True)
class Extensions:
    """The Rock Ridge fields of a record: its long name and facts.

    `skip` is the number of bytes to skip in other records' system use areas. `areas` are the spans
    of continuation areas; `rest` are the bytes that are not name or facts.
    """

    name: bytes = b""
    facts: dict[str, Fact] = field(default_factory=dict)
    skip: int = 0
    areas: tuple[Span, ...] = ()
    rest: bytes = b""


def read_extensions(source: ByteSource, area: bytes, spool: Spool) -> Extensions:
    """Parse a system use area and its continuations; raise BadFormat if they exceed limits."""
    name, target, skip = b"", b"", 0
    separate = False  # whether a component of a link's target is complete
    facts: dict[str, Fact] = {}
    attributes, areas, rest = bytearray(), list[Span](), bytearray()
    for signature, head, data in _fields(source, area, spool, areas):
        rest += signature + head
        if signature == b"SP" and len(data) >= 3:
            skip = data[2]
            rest += data
        elif signature == b"NM" and data and not data[0] & 6:
            name += data[1:]
            rest += data[:1]
        elif signature == b"SL" and data:
            rest += data[:1] + _odd_components(data[1:])
            for component, flags in _components(data[1:]):
                target += b"/" * separate + COMPONENTS.get(flags & SPECIAL, component)
                separate = not flags & 1
        elif signature == b"AL" and data:
            attributes += data[1:]
            rest += data[:1] + _odd_components(data[1:])
        else:
            found, more = _facts(signature, data)
            facts.update(found)
            rest += more if found else len(data).to_bytes(2, "little") + more
        if len(name) > PATH_LIMIT or len(target) > LINK_LIMIT or len(attributes) > XATTRS_LIMIT:
            raise BadFormat("a name, a link's target or the attributes of a file have no end")
    if target:
        facts["target"] = name_of(target)
    if attributes:
        facts["xattr"] = _attributes(bytes(attributes))
    return Extensions(name, facts, skip, tuple(areas), bytes(rest))


def _fields(
    source: ByteSource, area: bytes, spool: Spool, areas: list[Span]
) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield signature, version and data of every field, including those in continuation areas.

    Append the spans of continuation areas to `areas`. Bytes after the fields of an area are yielded
    with an empty signature.
    """
    waiting = [area]
    for _ in range(CONTINUATIONS):
        if not waiting:
            return
        area, at = waiting.pop(), 0
        spool.spend(len(area) * BYTE_WORK)
        while at + 4 <= len(area):
            signature, length = area[at : at + 2], area[at + 2]
            if length < 4:
                break
            data = area[at + 4 : at + length]
            if signature == b"CE" and len(data) >= 24:
                block, offset, size = struct.unpack("<IxxxxIxxxxIxxxx", data[:24])
                start, size = block * SECTOR + offset, min(size, SECTOR)
                waiting.append(source.read(start, size))
                areas.append((start, start + size))
            beyond = at + length > len(area)  # the field's length exceeds the area
            yield signature, area[at + 2 + (not beyond) : at + 4], data
            at += length
            if signature == b"ST":
                break
        tail = area[at:]  # a single zero pads the area to an even length
        yield b"", b"", tail if len(tail) > 1 else tail.strip(b"\0")
    if waiting:
        raise BadFormat("a directory record goes on and on")


def _components(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the components of a link's target or of extended attributes, with their flags."""
    at = 0
    while at + 2 <= len(data):
        flags, length = data[at], data[at + 1]
        yield data[at + 2 : at + 2 + length], flags
        at += 2 + length


def _odd_components(data: bytes) -> bytes:
    """Return the components with unknown flags or unused data, and the bytes after the last."""
    at, odd = 0, b""
    while at + 2 <= len(data):
        flags, end = data[at], at + 2 + data[at + 1]
        special = flags & SPECIAL
        if flags & ~(SPECIAL | 1) or (special and (special not in COMPONENTS or data[at + 1])):
            odd += data[at:end]
        at = end
    return odd + data[at:] + bytes(max(0, at - len(data)))


def _attributes(data: bytes) -> tuple[tuple[str, str], ...]:
    """Parse extended attributes in AAIP's form: a name, its value, the next name, and so on."""
    texts, complete = [b""], False
    for component, flags in _components(data):
        if complete:
            texts.append(b"")
        texts[-1] += component
        complete = not flags & 1
    found = []
    for number in range(0, len(texts), 2):
        name, value = texts[number], b"".join(texts[number + 1 : number + 2])
        space = NAMESPACES.get(name[:1])
        attribute = (space or "") + name_of(name[1:] if space is not None else name)
        found.append((attribute, value.hex()))
    return tuple(sorted(found))


def both_orders(data: bytes) -> int | None:
    """Return a number that is stored in both byte orders, or None if the two contradict."""
    half = len(data) // 2
    number = int.from_bytes(data[:half], "little")
    return number if number == int.from_bytes(data[half:], "big") else None


def _facts(signature: bytes, data: bytes) -> tuple[dict[str, Fact], bytes]:
    """Return the facts of one field, by kind of difference, and its other bytes."""
    numbers = [data[at : at + 8] for at in range(0, len(data), 8)]
    rest = b"".join(number for number in numbers if both_orders(number) is None)
    if signature == b"PX" and len(data) >= 32:
        mode, links, uid, gid = struct.unpack("<IxxxxIxxxxIxxxxIxxxx", data[:32])
        facts: dict[str, Fact] = {"type": file_type(mode), "mode": mode & 0o7777}
        return {**facts, "links": links, "owner": owner_of(uid, gid)}, rest + data[32:]
    if signature == b"PN" and len(data) >= 16:
        major, minor = struct.unpack("<IxxxxIxxxx", data[:16])
        return {"device": f"{major}:{minor}"}, rest + data[16:]
    if signature == b"CE" and len(data) >= 24:
        return {}, rest + data[24:]
    if signature == b"TF" and data:
        facts, read = _times(data)
        return facts, data[:1] + data[read:]
    return {}, data


def _times(data: bytes) -> tuple[dict[str, Fact], int]:
    """Return the times in a TF field, and the number of bytes of these and the flags."""
    size, at = LONG_TIME if data[0] & 0x80 else SHORT_TIME, 1
    found = []
    for number, name in enumerate(TIMES):
        if data[0] >> number & 1 and at + size <= len(data):
            found.append((name, say_time(data[at : at + size])))
            at += size
    return {"time": tuple(found)}, at


def say_time(raw: bytes) -> str:
    """Format a long or short time for people; its time zone is stored in quarters of an hour."""
    zone = raw[-1] - 256 if raw[-1] > 127 else raw[-1]
    if len(raw) == LONG_TIME:
        return f"{name_of(raw[:16])}{zone / 4:+g}h"
    year, month, day, hour, minute, second = raw[:6]
    date = f"{1900 + year}-{month:02}-{day:02}"
    return f"{date} {hour:02}:{minute:02}:{second:02}{zone / 4:+g}h"
