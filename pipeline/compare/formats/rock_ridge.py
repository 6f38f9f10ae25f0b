"""Rock Ridge: names, modes, owners, times and links in a directory record's system use area.

Sources: IEEE P1281 (SUSP) and P1282 (RRIP).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.compare.formats.container import (
    LINK_LIMIT,
    PATH_LIMIT,
    Fact,
    file_type,
    name_of,
    owner_of,
)
from pipeline.compare.formats.source import Malformed, Source, Spool

SECTOR = 2048
CONTINUATIONS = 32  # areas that one record may go on in
BYTE_WORK = 128
SHORT_TIME = 7
LONG_TIME = 17
TIMES = ("creation", "modify", "access", "attributes", "backup", "expiration", "effective")
COMPONENTS = {2: b".", 4: b"..", 8: b""}


@dataclass(frozen=True)
class Extensions:
    """What a record says beyond ISO 9660: its long name, facts, and bytes to skip in others."""

    name: bytes = b""
    facts: dict[str, Fact] = field(default_factory=dict)
    skip: int = 0


def read_extensions(source: Source, area: bytes, spool: Spool) -> Extensions:
    """Read a system use area and those that it goes on in; raise Malformed if there is no end."""
    name, target, skip = b"", b"", 0
    separate = False  # whether a component of a link's target is complete
    facts: dict[str, Fact] = {}
    for signature, data in _fields(source, area, spool):
        if signature == b"SP" and len(data) >= 3:
            skip = data[2]
        elif signature == b"NM" and data and not data[0] & 6:
            name += data[1:]
        elif signature == b"SL" and data:
            for component, complete in _components(data[1:]):
                target += b"/" * separate + component
                separate = complete
        else:
            facts.update(_facts(signature, data))
        if len(name) > PATH_LIMIT or len(target) > LINK_LIMIT:
            raise Malformed("a name or a link's target has no end")
    if target:
        facts["target"] = name_of(target)
    return Extensions(name, facts, skip)


def _fields(source: Source, area: bytes, spool: Spool) -> Iterator[tuple[bytes, bytes]]:
    """Give signature and data of every field, those in further areas too."""
    areas = [area]
    for _ in range(CONTINUATIONS):
        if not areas:
            return
        area, at = areas.pop(), 0
        spool.spend(len(area) * BYTE_WORK)
        while at + 4 <= len(area):
            signature, length = area[at : at + 2], area[at + 2]
            if length < 4:
                break
            data = area[at + 4 : at + length]
            if signature == b"CE" and len(data) >= 24:
                block, offset, size = struct.unpack("<IxxxxIxxxxIxxxx", data[:24])
                areas.append(source.read(block * SECTOR + offset, min(size, SECTOR)))
            elif signature == b"ST":
                break
            yield signature, data
            at += length
    if areas:
        raise Malformed("a directory record goes on and on")


def _components(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Give the components of a link's target, and whether each is complete."""
    at = 0
    while at + 2 <= len(data):
        flags, length = data[at], data[at + 1]
        yield COMPONENTS.get(flags & 14, data[at + 2 : at + 2 + length]), not flags & 1
        at += 2 + length


def _facts(signature: bytes, data: bytes) -> dict[str, Fact]:
    """Return what one field says, by kind of difference."""
    if signature == b"PX" and len(data) >= 32:
        mode, links, uid, gid = struct.unpack("<IxxxxIxxxxIxxxxIxxxx", data[:32])
        facts: dict[str, Fact] = {"type": file_type(mode), "mode": mode & 0o7777}
        return {**facts, "links": links, "owner": owner_of(uid, gid)}
    if signature == b"PN" and len(data) >= 16:
        major, minor = struct.unpack("<IxxxxIxxxx", data[:16])
        return {"device": f"{major}:{minor}"}
    if signature == b"TF" and data:
        return _times(data)
    return {}


def _times(data: bytes) -> dict[str, Fact]:
    size, at = LONG_TIME if data[0] & 0x80 else SHORT_TIME, 1
    found = []
    for number, name in enumerate(TIMES):
        if data[0] >> number & 1 and at + size <= len(data):
            found.append((name, say_time(data[at : at + size])))
            at += size
    return {"time": tuple(found)}


def say_time(raw: bytes) -> str:
    """Return how people write a long or short time; its zone is in quarters of an hour."""
    zone = raw[-1] - 256 if raw[-1] > 127 else raw[-1]
    if len(raw) == LONG_TIME:
        return f"{name_of(raw[:16])}{zone / 4:+g}h"
    year, month, day, hour, minute, second = raw[:6]
    date = f"{1900 + year}-{month:02}-{day:02}"
    return f"{date} {hour:02}:{minute:02}:{second:02}{zone / 4:+g}h"
