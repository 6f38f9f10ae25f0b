# SPDX-License-Identifier: GPL-3.0-or-later
"""`debian/control` and `debian/changelog`: as packages of Debian have them, and otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import UsageError
from pipeline.inputs.debian_source import SourcePackage, names_in, read_source, relations

CHANGELOG = b"""greeter (1:1.2-3) unstable; urgency=medium

  * A change.

 -- Test <test@example.org>  Tue, 14 Nov 2023 22:13:20 +0000

greeter (1.0) unstable; urgency=medium

  * Begun.

 -- Test <test@example.org>  Tue, 14 Nov 2000 22:13:20 +0000
"""
CONTROL = b"""# a comment
Source: greeter
Section: misc
Maintainer: Test <test@example.org>
Build-Depends: debhelper-compat (= 13),
# why
 libfoo-dev (>= 2) | libbar-dev <!nocheck>, only-arm [arm64], only-docs <docs>
Build-Depends-Indep: ikiwiki
Standards-Version: 4.7.0

Package: greeter
Architecture: any
Multi-Arch: foreign
Depends: ${shlibs:Depends}, ${misc:Depends}, greeter-data (= ${source:Version}),
 python3 | ${python3:Depends}, dash [!amd64]
Provides: welcome (= ${binary:Version})
Description: greets
 at length

Package: greeter-data
Architecture: all
Description: data

Package: greeter-arm
Architecture: arm64
Description: elsewhere

Package: greeter-udeb
Package-Type: udeb
Architecture: any
Description: in the installer

Package: greeter-staged
Build-Profiles: <stage1>
Architecture: any
Description: not usually
"""


def read(control: bytes = CONTROL, changelog: bytes = CHANGELOG) -> SourcePackage:
    return read_source(control, changelog, "amd64", "mini/packages/greeter")


def test_what_a_source_package_says() -> None:
    source = read()
    assert (source.name, source.version, source.epoch) == ("greeter", "1:1.2-3", 1_700_000_000)
    assert [(need.relation, need.line) for need in source.needs] == [
        ("debhelper-compat (= 13)", 5),
        ("libfoo-dev (>= 2) | libbar-dev", 7),
        ("ikiwiki", 8),
    ]
    assert [(b.name, b.architecture) for b in source.binaries] == [
        ("greeter", "amd64"),
        ("greeter-data", "all"),
    ]


def test_apt_learns_what_is_known_before_the_build() -> None:
    lines = read().binaries[0].stanza.splitlines()
    assert "Version: 1:1.2-3" in lines
    assert "Depends: greeter-data (= 1:1.2-3), python3" in lines
    assert "Provides: welcome (= 1:1.2-3)" in lines
    assert "Multi-Arch: foreign" in lines


@pytest.mark.parametrize(
    ("field", "kept"),
    [
        ("aa, bb (<< 2) [amd64], cc:any", ["aa", "bb (<< 2)", "cc:any"]),
        ("aa [amd64 arm64]", ["aa"]),
        ("aa [!amd64] | bb [linux-any]", ["bb"]),
        ("aa <!nocheck !cross>, bb <nocheck>, cc <x> <!y>", ["aa", "cc"]),
        ("aa (= ${source:Upstream-Version})", ["aa (= ${source:Upstream-Version})"]),
        ("${shlibs:Depends}, aa (= ${other:Version})", []),
        ("", []),
        (" aa ,, ", ["aa"]),
    ],
)
def test_relations_are_reduced_as_dpkg_does(field: str, kept: list[str]) -> None:
    assert relations(field, "amd64") == kept


def test_the_names_in_a_relation() -> None:
    assert names_in("a:any (>= 1) | b(<< 2) | c") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("control", "changelog", "what"),
    [
        (CONTROL.replace(b"Source: greeter", b"Source: other"), CHANGELOG, "is of the source"),
        (CONTROL, b"", "does not begin with an entry"),
        (CONTROL, CHANGELOG.replace(b"1:1.2-3", b"$(id)"), "does not begin with an entry"),
        (CONTROL, CHANGELOG.replace(b"Tue, 14 Nov", b"some day"), "has no date"),
        (CONTROL, CHANGELOG.replace(b"2023", b"1066"), "has no date"),
        (b"", CHANGELOG, "is empty"),
        (b"\xff", CHANGELOG, "is not UTF-8"),
        (CONTROL.partition(b"Package:")[0], CHANGELOG, "names 0 packages for amd64"),
        (CONTROL.replace(b"Package: greeter\n", b"Package: ../x\n"), CHANGELOG, "names a package"),
        (CONTROL.replace(b"ikiwiki", b"iki;wiki"), CHANGELOG, "Build-Depends-Indep: 'iki;wiki'"),
        (CONTROL, b" " * 5_000_000, "is larger than"),
    ],
)
def test_what_is_wrong_is_reported_with_its_file(
    control: bytes, changelog: bytes, what: str
) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        read(control, changelog)
    assert "mini/packages/greeter/debian/" in str(caught.value)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_stands_there_is_read_or_refused(control: bytes, changelog: bytes) -> None:
    for texts in ((CONTROL + control, CHANGELOG), (CONTROL, changelog + CHANGELOG)):
        try:
            source = read(*texts)
        except UsageError:
            continue
        for binary in source.binaries:
            assert binary.stanza.count("\n\n") == 0


@given(st.text(alphabet="ab\n <>[]()!|,:${} =.", max_size=60))
def test_no_relation_breaks_out_of_its_line(text: str) -> None:
    try:
        found = relations(text, "amd64")
    except ValueError:
        return
    assert all("\n" not in relation and "[" not in relation for relation in found)
