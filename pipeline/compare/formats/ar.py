"""ar archives, which Debian packages are."""

from collections.abc import Iterator

from pipeline.compare.formats.container import Container, Entry, Fact, Format, listed
from pipeline.compare.formats.source import Extents, Malformed, Source, Spool

MAGIC = b"!<arch>\n"
HEADER = 60
NAMES_LIMIT = 1024 * 1024


def _matches(source: Source) -> bool:
    return source.size >= len(MAGIC) and source.read(0, len(MAGIC)) == MAGIC


def _read(source: Source, spool: Spool) -> Container:
    ordered, order = listed(_entries(source))
    return Container(entries=lambda: iter(ordered), order=order)


AR = Format("ar", _matches, _read)


def _entries(source: Source) -> Iterator[Entry]:
    at, names = len(MAGIC), b""
    while at < source.size:
        raw = source.read(at, HEADER)
        if raw[58:] != b"`\n":
            raise Malformed("a member's header is none")
        fields = (raw[16:28], raw[28:34], raw[34:40])
        time, uid, gid = (field.strip().decode("latin-1") for field in fields)
        mode, size = _number(raw[40:48], 8), _number(raw[48:58], 10)
        start, name = at + HEADER, raw[:16].rstrip(b" ")
        content = Extents(source, [(start, start + size)])
        if name == b"//":
            if size > NAMES_LIMIT:
                raise Malformed(f"its names have over {NAMES_LIMIT} bytes")
            names = content.read(0, size)
        facts: dict[str, Fact] = {"time": time, "owner": f"{uid}:{gid}", "mode": mode & 0o7777}
        yield Entry(_name(name, names), facts, content, (at, start))
        at = start + size + size % 2


def _number(digits: bytes, base: int) -> int:
    """Return the number that a header's field says; an empty one is 0."""
    text = digits.strip()
    if not set(text) <= set(b"0123456789"[:base]):
        raise Malformed(f"{digits!r} is no number")
    return int(text or b"0", base)


def _name(name: bytes, names: bytes) -> str:
    """Return a member's name; a long one stands among `names`."""
    if name.startswith(b"/") and name[1:].isdigit():
        name = names[int(name[1:]) :].partition(b"\n")[0]
    if name not in (b"/", b"//"):
        name = name.removesuffix(b"/")
    return name.decode("utf-8", "surrogateescape")
