# SPDX-License-Identifier: GPL-3.0-or-later
"""The Release file of an archive that needs no signature."""

from pipeline.documents.apt_release import release_file


def test_it_names_every_index_and_each_component_once() -> None:
    paths = ("build/binary-amd64/Packages", "main/binary-amd64/Packages", "main/source/Sources")
    text = release_file("trixie", "amd64", dict.fromkeys(paths, ("0" * 64, 7)))
    assert text == (
        "Suite: trixie\nCodename: trixie\nArchitectures: amd64\nComponents: build main\n"
        "Date: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n"
        + "".join(f" {'0' * 64} 7 {path}\n" for path in paths)
    )
