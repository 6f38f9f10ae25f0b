# SPDX-License-Identifier: GPL-3.0-or-later
"""What a locale of people leaves in a content is named: languages, letters, and sorted lists."""

from dataclasses import replace

import pytest

from pipeline.look.causes.classify import find_causes
from pipeline.look.causes.facts import Pair
from pipeline.look.causes.languages import LANGUAGES, number_of
from tests.unit.look.test_causes import ALPHA, BETA

GERMAN = replace(ALPHA, locale="de_DE.UTF-8")
PAIR = GERMAN, BETA
EQUAL = replace(GERMAN, locale="C"), BETA


def named(left: str, right: str, pair: Pair = PAIR) -> list[tuple[str, bool]]:
    found = find_causes("x", (left.encode(), right.encode()), pair)
    mirrored = find_causes("x", (right.encode(), left.encode()), (pair[1], pair[0]))
    assert {cause.name for cause in found} == {cause.name for cause in mirrored}
    return [(cause.name, cause.weak) for cause in found]


def lines(items: str) -> str:
    return "".join(f"{item}\n" for item in items.split())


BY_LOCALE = [
    # messages, from the catalogues of coreutils, bash, Python and tar
    (
        "ls: Zugriff auf '/x' nicht möglich: Datei oder Verzeichnis nicht gefunden\n",
        "ls: cannot access '/x': No such file or directory\n",
    ),
    ("bash: cd: /x: Keine Berechtigung\n", "bash: cd: /x: Permission denied\n"),
    ("insgesamt 4\nx\n", "total 4\nx\n"),
    ("Aufruf: date [OPTION]… [+FORMAT]\n", "Usage: date [OPTION]... [+FORMAT]\n"),
    ("12 Datensätze gelesen\n", "12 records read\n"),
    ("Mittwoch Dezember 31.12.1969\n", "Wednesday December 12/31/69\n"),
    # what the locale lacks
    ("Straße\n", "Stra\ne\n"),
    ("ÄÖÜ X\n", "äöü X\n"),
    # what its characters are called
    ("encoding: UTF-8, strict\n", "encoding: ANSI_X3.4-1968, strict\n"),
    ("utf-8 UTF-8 utf-8\n", "utf-8 ascii utf-8\n"),
    # what programs make of its name
    ('<html lang="de">\n', '<html lang="C">\n'),
    ("locale: de-DE\n", "locale: C\n"),
    ("LANG=de_DE\n", "LANG=C\n"),
    # parts of lists: `sort | head`, `sort | tail`
    (lines("apple Bear cat Dog egg"), lines("Bear Dog Fox Zoo apple")),
    ("apple Bear cat Dog egg\n", "Bear Dog Fox Zoo apple\n"),
    # sorted in both ways where all letters are small
    ("adduser.conf alternatives apt at bash\n", "X11 adduser.conf alternatives apt at\n"),
    # lists in marks, of a glob
    (
        "<li>9-a</li>\n<li>apfel</li>\n<li>apfel 1</li>\n<li>Birne</li>\n<li>_d</li>\n<li>Z</li>\n",
        "<li>9-a</li>\n<li>Birne</li>\n<li>Z</li>\n<li>_d</li>\n<li>apfel</li>\n<li>apfel 1</li>\n",
    ),
]


@pytest.mark.parametrize(("left", "right"), BY_LOCALE)
def test_a_locale_is_named(left: str, right: str) -> None:
    assert named(left, right)[:1] == [("locale", False)]


@pytest.mark.parametrize(("left", "right"), BY_LOCALE[:-1])
def test_no_locale_is_named_where_both_have_the_same(left: str, right: str) -> None:
    assert "locale" not in dict(named(left, right, EQUAL))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        # the languages are those of the other side, or of neither
        ("ls: cannot access 'x': No such file\n", "ls: Zugriff auf 'x' nicht möglich\n"),
        ("Fichier introuvable\n", "No such file\n"),
        ("die Datei und mehr\n", "die Datei\n"),
        ("the file and more\n", "the file is here\n"),
        # other words, and sorted on no side, or by bytes on both
        ("Haus\n", "house\n"),
        ("Stra\n", "Stroh\n"),
        (lines("apple Bear cat Dog egg"), lines("Fox Bear Zoo apple Dog")),
        (lines("Bear Dog apple cat egg"), lines("Bear Dog Fox Zoo apple")),
        # sorted by a dictionary where the locale is C
        (lines("Bear Dog Fox Zoo apple"), lines("apple Bear cat Dog egg")),
        ("utf-8 strict\n", "utf-8 lenient\n"),
    ],
)
def test_what_only_looks_like_a_locale(left: str, right: str) -> None:
    assert ("locale", False) not in named(left, right)


def test_few_items_of_a_list_are_a_guess() -> None:
    assert named(lines("apple Bear cat"), lines("Bear Dog Fox")) == [("locale", True)]


def test_names_of_months_and_days_in_every_language() -> None:
    for language in LANGUAGES.values():
        assert (len(language.months), len(language.days)) == (12, 7)
    assert number_of("Mittwoch", "day") == number_of("wed", "day") == 2
    assert number_of("März", "month") == number_of("march", "month") == 2
    assert number_of("Marsch", "month") is None


def test_an_equal_locale_explains_nothing() -> None:
    assert "locale" in dict(named("name: Müller\n", "name: M?ller\n"))
    alike = replace(GERMAN, locale=BETA.locale), BETA
    assert "locale" not in dict(named("name: Müller\n", "name: M?ller\n", alike))
