"""Files that are one content, compressed: gzip (RFC 1952), xz, zstd, bzip2."""

import struct
from collections.abc import Callable
from functools import partial

from pipeline.compare.formats import compression
from pipeline.compare.formats.container import Container, Entry, Format, Structure, name_of
from pipeline.compare.formats.source import Source, Spool, pieces

GZIP_EXTRA, GZIP_NAME, GZIP_COMMENT = 4, 8, 16
HEADER_LIMIT = 4096

Header = Callable[[bytes], list[Structure]]


def _gzip_header(raw: bytes) -> list[Structure]:
    """Return what a gzip header says beside its content."""
    (time,) = struct.unpack_from("<I", raw, 4)
    found = [
        Structure("header time", (4, 8), raw[4:8], "time", str(time)),
        Structure("header flags", (3, 4), raw[3:4]),
        Structure("header level", (8, 9), raw[8:9]),
        Structure("header system", (9, 10), raw[9:10]),
    ]
    at = 10
    if raw[3] & GZIP_EXTRA:
        end = at + 2 + int.from_bytes(raw[at : at + 2], "little")
        found.append(Structure("header extra field", (at, end), raw[at:end]))
        at = end
    for flag, name in ((GZIP_NAME, "header name"), (GZIP_COMMENT, "header comment")):
        if raw[3] & flag:
            text = raw[at:].partition(b"\0")[0]
            span = (at, at + len(text) + 1)
            found.append(Structure(name, span, text, "structure", name_of(text)))
            at = span[1]
    return found


def _xz_header(raw: bytes) -> list[Structure]:
    return [Structure("stream flags", (6, 8), raw[6:8])]


def _bzip2_header(raw: bytes) -> list[Structure]:
    return [Structure("block size", (3, 4), raw[3:4])]


def _no_header(_: bytes) -> list[Structure]:
    return []


def _read(
    new: Callable[[], compression.Unpacker],
    magic: bytes,
    header: Header,
    source: Source,
    spool: Spool,
) -> Container:
    content = spool.keep(compression.unpack_stream(new, pieces(source), magic))
    structures = header(source.read(0, min(source.size, HEADER_LIMIT)))
    return Container(structures, lambda: iter([Entry("content", {}, content)]))


def _matches(magic: bytes, source: Source) -> bool:
    return source.size >= 18 and source.read(0, len(magic)) == magic


def _format(
    name: str, magic: bytes, new: Callable[[], compression.Unpacker], header: Header
) -> Format:
    read = partial(_read, new, magic, header)
    return Format(name, partial(_matches, magic), read, packs=True)


PACKED = (
    _format("gzip", b"\x1f\x8b\x08", compression.new_gzip, _gzip_header),
    _format("xz", b"\xfd7zXZ\0", compression.new_xz, _xz_header),
    _format("zstd", b"\x28\xb5\x2f\xfd", compression.new_zstd, _no_header),
    _format("bzip2", b"BZh", compression.new_bzip2, _bzip2_header),
)
