# SPDX-License-Identifier: GPL-3.0-or-later
"""The header of a gzip stream, with all its fields and cut off."""

import zlib

import pytest

from pipeline.look.formats.gzip_header import GzipHeader, read_header
from pipeline.look.formats.source import BadFormat

FIXED = b"\x1f\x8b\x08\x1e\x07\0\0\0\x02\x03"
FIELDS = b"\x04\0ABCD" + b"name\0" + b"comment\0" + b"\x12\x34"
DEFLATED = zlib.compress(b"content", wbits=-15)


def test_every_field_is_read() -> None:
    header = read_header(FIXED + FIELDS + DEFLATED)
    assert header == GzipHeader(7, 0x1E, (10, 16), (16, 21), (21, 29), 31)


def test_a_header_without_further_fields_has_ten_bytes() -> None:
    header = read_header(FIXED[:3] + b"\0" + FIXED[4:] + DEFLATED)
    assert header == GzipHeader(7, 0, None, None, None, 10)


@pytest.mark.parametrize("length", [0, 3, 9, 12, 17, 25])
def test_a_header_that_is_cut_off_is_malformed(length: int) -> None:
    with pytest.raises(BadFormat):
        read_header((FIXED + FIELDS)[:length])
