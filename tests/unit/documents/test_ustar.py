# SPDX-License-Identifier: GPL-3.0-or-later
"""The headers of a kit's members: their bytes never change, as kits are compared bit for bit."""

import hashlib
import tarfile

import pytest

from pipeline.documents.malformed import Malformed
from pipeline.documents.ustar import BLOCK, ustar_header

EPOCH = 1_700_000_000


@pytest.mark.parametrize(
    ("name", "size", "epoch", "sha256"),
    [
        ("FORMAT", 16, EPOCH, "81781b87ac45b7cc172b3d84d6935eeccf479734f029380499297cc0559245c9"),
        ("a" * 100, 12345, 0, "6398a70137870ff7c593b698ddb830958e899d544c210b8d92f56fdbee1fe3e0"),
        (
            "b" * 100 + "/" + "a" * 100,
            0,
            2**32 - 1,
            "a2dbc7e0ab06e463333919e7623b8665df2768d86212351ea156fca02cf670d0",
        ),
        (
            "d/" * 70 + "file",
            2**32 - 1,
            EPOCH,
            "bf0f7e624170aed75e822b215c8a64b943e2edbca2839272cd3e69e9bbe32d1b",
        ),
    ],
)
def test_the_bytes_of_a_header_stay(name: str, size: int, epoch: int, sha256: str) -> None:
    header = ustar_header(name, size, epoch)
    assert len(header) == BLOCK
    assert hashlib.sha256(header).hexdigest() == sha256
    read = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    assert (read.name, read.size, read.mtime, read.mode) == (name, size, epoch, 0o644)


@pytest.mark.parametrize(
    ("name", "size", "epoch"),
    [
        ("", 0, 0),
        ("a" * 101, 0, 0),
        ("p" * 156 + "/" + "a" * 100, 0, 0),
        ("d" * 101 + "/", 0, 0),
        ("é", 0, 0),
        ("a", -1, 0),
        ("a", 8**11, 0),
        ("a", 0, -1),
        ("a", 0, 8**11),
    ],
)
def test_what_no_header_holds_is_refused(name: str, size: int, epoch: int) -> None:
    with pytest.raises(Malformed, match="header holds"):
        ustar_header(name, size, epoch)
