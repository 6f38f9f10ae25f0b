# SPDX-License-Identifier: GPL-3.0-or-later
"""What nothing known explains: bytes, words, numbers, lines, permissions and types that differ.

A guess is marked as one, is made only where nothing else was found, and says no more than it sees.
"""

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compare.folders import Folders
from pipeline.guest.ledger import Ledger
from pipeline.look.causes.classify import find_causes, find_causes_of_values
from pipeline.look.causes.facts import Pair
from pipeline.look.causes.inside import find_causes_of_place
from pipeline.look.places import Place
from tests.unit.look.test_causes import ALPHA, BETA, NOISE, PAIR, around

CALM = bytes(range(65, 91)) * 3


def named(
    left: bytes, right: bytes, *, path: str = "x", pair: Pair = PAIR
) -> list[tuple[str, bool]]:
    found = find_causes(path, (left, right), pair)
    mirrored = find_causes(path, (right, left), (pair[1], pair[0]))
    assert {cause.name for cause in found} == {cause.name for cause in mirrored}
    return [(cause.name, cause.weak) for cause in found]


def island(at: int, size: int, calm: bytes = CALM + b"\1") -> bytes:
    return calm + NOISE[at : at + size] + calm


@pytest.mark.parametrize("size", [6, 20, 200])
def test_an_island_of_random_bytes(size: int) -> None:
    sides = island(1000, size), island(2000, size)
    assert named(*sides) == [("random-identifier", True)]


def test_random_bytes_behind_a_header_and_of_any_size() -> None:
    salted = (b"Salted__" + NOISE[at : at + 40] for at in (100, 900))
    assert named(*salted) == [("random-identifier", True)]
    large = (NOISE[:2048] * 200, NOISE[2048:] * 200)
    assert named(*large) == [("random-identifier", True)]


def test_random_bytes_in_a_small_file() -> None:
    left, right = (
        b"KEYS" + b"".join(b"slot" + NOISE[k : k + 16] for k in (n, n + 40, n + 80))
        for n in (0, 99)
    )
    assert named(left, right) == [("random-identifier", True)]


def test_random_bytes_that_are_no_utf_8_are_none_of_a_text() -> None:
    left, right = (bytes(128 + b % 128 for b in NOISE[at : at + 40]) for at in (0, 400))
    assert named(left, right) == [("random-identifier", True)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (around(NOISE[500:540]), around(NOISE[700:740])),  # in noise any change is noise
        (island(0, 3), island(700, 3)),
        (island(0, 40), island(0, 39) + b"\1"),
        (CALM + b"\1" + b"ab" * 20 + CALM, CALM + b"\1" + b"cd" * 20 + CALM),
        (island(0, 40), island(700, 41)),
    ],
)
def test_what_only_looks_like_random_bytes(left: bytes, right: bytes) -> None:
    assert "random-identifier" not in dict(named(left, right))


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        ("changing-number", b"port = 4711 # tcp\n", b"port = 815 # tcp\n"),
        ("changing-number", b"5 3 * * * root\n", b"58 3 * * * root\n"),
        ("changing-number", b"43:2975228\n", b"61:10692\n"),
        ("changing-number", b"-6078308118316538570\n", b"5122442020520117178\n"),
        ("changing-number", b"0,9697\n", b"0.39828\n"),
        ("changing-word", b"image=larch.png\n", b"image=tarn.png\n"),
        ("changing-word", b"a blue 51\n", b"a black 95\n"),
        ("changing-number", b"[0.77, 0.15, 0.60, 0.09]\n", b"[0.28, 0.60, 0.68, 0.11]\n"),
        ("changing-number", b"<a name=x195>\n", b"<a name=x1450>\n"),
        ("changing-number", CALM + b"\1\0\2" + CALM, CALM + b"\7\5\3" + CALM),
        ("only-in-one", b"a\nb\nc\n", b"a\nc\n"),
        ("only-in-one", b"tick\n" * 9, b"tick\n" * 4),
        ("only-in-one", b"a\n", b""),
    ],
)
def test_what_differs_alone(name: str, left: bytes, right: bytes) -> None:
    assert named(left, right) == [(name, True)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (b"on 2020-01-02\n", b"on 2020-03-04\n"),  # a date that nobody built at is no number
        (b"at 03:58:01\n", b"at 03:03:59\n"),
        (b"one two three four\n", b"five six seven eight\n"),
        (b"a=1, b\n", b"a=1 b c\n"),
        (b"a\nb\n", b"a\nc\nd\n"),
    ],
)
def test_what_is_not_guessed_of(left: bytes, right: bytes) -> None:
    guesses = {"changing-number", "changing-word", "only-in-one"}
    assert not guesses & dict(named(left, right)).keys()


def test_a_guess_gives_way_to_what_is_known() -> None:
    assert named(b"alpha-host 7\n", b"b 7\n") == [("host-name", False)]
    assert named(b"x 7 \nalpha-host\n", b"x 8 \nb\n") == [("host-name", False)]


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256", "sha512"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_digests_of_facts(kind: str, end: str) -> None:
    sides = [hashlib.new(kind, f"{facts.host_name}{end}".encode()).hexdigest() for facts in PAIR]
    assert named(*(f"id={text}\n".encode() for text in sides)) == [("host-name", False)]
    assert named(*(f"id={text[8:18]}\n".encode() for text in sides)) == [("host-name", False)]
    other = sides[0], hashlib.new(kind, b"another").hexdigest()
    assert "host-name" not in dict(named(*(f"id={text}\n".encode() for text in other)))


def test_parts_of_a_list_of_files() -> None:
    left, right = b"/u/l/c.py\n/u/l/a.py\n/u/l/x.py\n", b"/u/l/y.py\n/u/l/b.py\n/u/l/c.py\n"
    assert named(left, right) == [("directory-order", True)]
    for other in (b"/u/l/a\n/u/l/b\n/u/l/c\n", b"/u/y.py\n/u/l/b.py\n/v/c.py\n", b"y\nb\nc\n"):
        assert "directory-order" not in dict(named(left, other))


def test_digits_in_groups_and_in_base32_are_drawn() -> None:
    for left, right in (
        (b"f45d:8325:78fb:ca40\n", b"2fb6:09c7:3f7a:6462\n"),
        (b"VAYEFVRY2AVITB7E\n", b"MULPRUF3BPESDB5N\n"),
    ):
        assert named(left, right) == [("random-identifier", False)]
    assert named(b"VERSION2OFTHISTEXT\n", b"VERSION3OFTHATTEXT\n") == [("changing-word", True)]


def test_capitals_without_vowels_are_drawn() -> None:
    left, right = b'"RXJKAHBMSETRVDXNFSXDERKIIK"\n', b'"DHNTBOLZYOODPMDNJMMKLDYYXH"\n'
    assert named(left, right) == [("random-identifier", False)]
    words = b"ALONGCONSTANTOFTHEPROGRAM\n", b"ANOTHERCONSTANTOFTHEOTHER\n"
    assert named(*words) == [("changing-word", True)]


def test_a_hash_of_a_password() -> None:
    hashes = b"x:$6$aWGgkLuS$OfMxVOarzVYw/eepZIf:1\n", b"x:$6$b.0/aaaa$PgNxVPbrzWZw.ffqAJg:1\n"
    assert named(*hashes) == [("random-identifier", False)]
    kinds = b"x:$6$aWGgkLuS$aaaaaaaa:1\n", b"x:$1$aWGgkLuT$aaaaaaaa:1\n"
    assert "random-identifier" not in dict(named(*kinds))


@pytest.mark.parametrize(
    "number",
    ["06082a8648ce3d030107", "06052b81040022", "06032b6570", "06092a864886f70d010101"],
)
def test_keys_in_der(number: str) -> None:
    bodies = [bytes.fromhex(number) + NOISE[at : at + 32] for at in (0, 400)]
    sides = [bytes([0x30, len(body)]) + body for body in bodies]
    assert named(sides[0], sides[1]) == [("key", False)]
    assert "key" not in dict(named(sides[0] + b"\0", sides[1] + b"\0"))


@pytest.mark.parametrize(
    "begin",
    [
        b"\x99\x01\x0d\x04\x65",
        b"\0\0\0\x20\1\1\0\2KBXf",
        b"\xfe\xed\xfe\xed\0\0\0\2",
        b"LUKS\xba\xbe",
    ],
)
def test_files_of_keys(begin: bytes) -> None:
    sides = [begin + bytes(4) + NOISE[at : at + 90] for at in (0, 400)]
    assert named(sides[0], sides[1])[:1] == [("key", False)]
    assert "key" not in dict(named(*(b"\0" + side for side in sides)))


def aux_cache(*inodes: int) -> bytes:
    entries = (struct.pack("<4Q16x", inode, 7, 8, 39) for inode in inodes)
    return b"glibc-ld.so.auxcache-1.0" + struct.pack("<II", len(inodes), 0) + b"".join(entries)


def git_index(*inodes: int) -> bytes:
    entries = (struct.pack(">6I36xH", 1, 2, 3, 4, 39, i, 3) + b"abc" + bytes(7) for i in inodes)
    return b"DIRC" + struct.pack(">II", 2, len(inodes)) + b"".join(entries)


def extended_git_index(*inodes: int, changed: int = 4) -> bytes:
    """As after `git add --intent-to-add`: each entry has two bytes of flags more."""
    numbers = ((1, 2, 3, changed, 39, inode) for inode in inodes)
    entries = (
        struct.pack(">6I36xHH", *n, 0x4008, 0x2000) + b"8 letter" + bytes(8) for n in numbers
    )
    return b"DIRC" + struct.pack(">II", 3, len(inodes)) + b"".join(entries)


@pytest.mark.parametrize("made", [aux_cache, git_index, extended_git_index])
def test_inodes_in_a_table(made: object) -> None:
    assert callable(made)
    assert named(made(7, 9, 11), made(7, 900, 1100))[:1] == [("file-system", False)]
    assert named(made(7, 9), made(7, 9, 11))[:1] == [("file-system", False)]
    assert "file-system" not in dict(named(made(7, 9) + b"1", made(7, 9) + b"2"))
    assert "file-system" not in dict(named(made(7, 9)[:40], made(7, 8)[:41]))


def test_other_times_in_an_extended_index_are_no_inodes() -> None:
    pair = extended_git_index(7, 9), extended_git_index(7, 9, changed=5)
    assert "file-system" not in dict(named(*pair))


def test_inodes_of_a_cpio() -> None:
    place = Place("gzip content > cpio", "[numbers of entries]", "layout")
    assert [c.name for c in find_causes_of_place(place, None, "x", PAIR)] == ["file-system"]
    assert find_causes_of_place(replace(place, where="squashfs"), None, "x", PAIR) == ()


def test_numbers_at_many_places_are_no_padding() -> None:
    left, right = (
        b"".join(bytes(12) + NOISE[n + k : n + k + 4] for k in range(0, 80, 4)) for n in (0, 99)
    )
    assert "uninitialised" not in dict(named(left + bytes(8), right + bytes(8)))


def test_the_processors_in_a_version_or_reckoned() -> None:
    assert named(b"2.1.2\n", b"2.1.1\n") == [("cpu-count", True)]
    none = replace(PAIR[0], cpus="0"), replace(PAIR[1], cpus="8")
    assert "cpu-count" not in dict(named(b"threads = 1\n", b"threads = 4\n", pair=none))
    assert named(b"6\n", b"5\n", path="etc/workers") == [("cpu-count", True)]
    assert named(b"maxThreads=6\n", b"maxThreads=5\n") == [("cpu-count", False)]
    assert named(b"processed 6 files\n", b"processed 5 files\n") == [("changing-number", True)]
    assert named(b"workers = 5\n", b"workers = 3\n") == [("cpu-count", False)]
    assert "cpu-count" not in dict(named(b"2.1.3\n", b"2.1.1\n"))
    assert "cpu-count" not in dict(named(b"workers = 7\n", b"workers = 3\n"))


def test_an_uptime_by_its_path() -> None:
    assert named(b"15083.22\n", b"15049.40\n", path="var/lib/booted-for") == [("uptime", True)]
    assert "uptime" not in dict(named(b"15083.22\n", b"15049.40\n", path="boot/sizes"))


def test_the_size_of_a_folder_by_ls() -> None:
    left = b"drwxr-xr-x 59 root root 4096 Nov 29  2020 /etc\n"
    right = b"drwxr-xr-x 59 root root  240 Nov 28  2020 /etc\n"
    assert named(left, right)[:1] == [("file-system", False)]
    for other in (b"drwxr-xr-x 59 root root 240 Nov 28  2020 /usr\n", b"-" + right[1:]):
        assert "file-system" not in dict(named(left, other))


def test_lines_in_another_order_with_other_numbers() -> None:
    files = [f"usr/lib/{word}.so" for word in ("zoo", "ant", "cat", "dog", "bee")]
    left, right = (
        "".join(f"{base + n * 3 % 5} {file}\n" for n, file in enumerate(side)).encode()
        for base, side in ((100, files), (700, files[::-1]))
    )
    assert named(left, right) == [("directory-order", False), ("file-system", False)]


def test_lines_sorted_by_numbers_that_differ_are_in_no_order_of_hashes() -> None:
    names = ["mnt", "pid", "uts", "ipc", "net"]
    left, right = (
        "".join(f"{base + n} {name} of it\n" for n, name in enumerate(side)).encode()
        for base, side in ((4026, names), (8102, names[::-1]))
    )
    assert named(left, right) == [("changing-number", True)]


def test_names_of_files_that_the_tree_lacks(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc/p").mkdir(parents=True)
    names = ["zoo", "ant", "cat", "dog", "bee"]
    for name in names:
        (tree / "etc/p" / name).touch()
    ledger = Ledger(tree, tmp_path / "ledger", lambda _: 0)
    ledger.record("20-bootstrap")
    ledger.close()
    folders = Folders(tmp_path / "ledger")
    assert folders.lacks(frozenset(["/etc/q/zoo", "/opt", "/etc/p/ant"]))
    assert not folders.lacks(frozenset(["/etc/q/zoo", "/etc/p/ant"]))
    assert not folders.lacks(frozenset(["/etc/p/"]))
    assert folders.lacks(frozenset(["5.1", "5.2", "org.a.b"]))
    assert not folders.lacks(frozenset(["etc/q/zoo", "./ant", "map"]))
    assert not Folders(tmp_path / "none").lacks(frozenset(["x"]))
    pair = replace(ALPHA, lacks=folders.lacks), replace(BETA, lacks=folders.lacks)
    for form, cause in (
        ("map:/etc/p/{}", "directory-order"),
        ("map:/etc/q/{}", "hash-order"),
        ("./{}", "directory-order"),
        ("org.x.{}", "hash-order"),
        ('<enum id="{}"/>', "hash-order"),
    ):
        left = [form.format(name) + "\n" for name in names]
        sides = "".join(left).encode(), "".join(left[::-1]).encode()
        assert named(*sides, pair=pair) == [(cause, False)]


def test_permissions_types_and_devices() -> None:
    def of(kind: str, left: object, right: object) -> list[str]:
        return [cause.evidence for cause in find_causes_of_values(kind, (left, right), PAIR)]

    (evidence,) = of("mode", 0o644, 0o600)
    assert (
        evidence
        == "0644 in alpha, 0600 in beta: the umasks 0022 and 0027 do not leave that, so it was set"
    )
    assert of("mode", 0o100644, 0o644) == []
    assert of("type", "dir", "file") == ["dir in alpha, file in beta"]
    assert of("device", "10:66", "10:97") == ["a device 10:66 in alpha, a device 10:97 in beta"]


def test_an_attribute_that_nothing_surely_explains_is_shown_as_it_is() -> None:
    values = '{"user.x": "N2E="}', '{"user.x": "OGI="}'
    assert [c.name for c in find_causes_of_values("xattr", values, PAIR)] == ["extended-attribute"]


ONE_CPU = (replace(ALPHA, cpus="2"), replace(BETA, cpus="1"))


@pytest.mark.parametrize(
    ("several", "alone"),
    [
        ("1 2 4 3 6 7 5 8", "1 2 3 4 5 6 7 8"),
        ("lexer parser codegen linker", "parser lexer codegen linker"),
        ("b a d c f e", "a b c d e f"),
    ],
)
def test_lines_out_of_turn_beside_one_processor_are_of_jobs(several: str, alone: str) -> None:
    left, right = (
        "".join(f"built {word}\n" for word in words.split()).encode() for words in (several, alone)
    )
    assert named(left, right, pair=ONE_CPU) == [("job-order", True)]


def test_lines_out_of_turn_where_there_was_one_processor_are_not_of_jobs() -> None:
    left, right = (
        "".join(f"built {number}\n" for number in numbers).encode()
        for numbers in ("12345678", "12436758")
    )
    assert named(left, right, pair=ONE_CPU) == [("hash-order", False)]


def test_three_words_of_a_set_are_not_of_jobs() -> None:
    sides = b"red\ngreen\nblue\n", b"blue\nred\ngreen\n"
    assert named(*sides, pair=ONE_CPU) == [("hash-order", False)]


@pytest.mark.parametrize("size", [2, 3, 10])
def test_lines_that_stay_together_are_of_files(size: int) -> None:
    """`find -exec cat`: what stands in a file does so in the bundle, too."""
    texts = ["".join(f"line {n} of {name}\n" for n in range(size)) for name in "abcdefgh"]
    left, right = "".join(texts), "".join(texts[i] for i in (3, 7, 0, 5, 2, 6, 1, 4))
    assert named(left.encode(), right.encode()) == [("directory-order", True)]
