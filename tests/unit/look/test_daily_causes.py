# SPDX-License-Identifier: GPL-3.0-or-later
"""What hooks of everyday kinds leave in a tree is named; what only looks like it is not.

The pairs are what two machines wrote: from real runs, or from the manual of the program.
"""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compare.folders import Folders
from pipeline.guest.ledger import Ledger
from pipeline.look.causes.classify import find_causes, find_causes_of_values
from pipeline.look.causes.ext4_order import half_md4, in_order_of_hashes
from pipeline.look.causes.facts import Facts
from pipeline.look.twins import find_twins
from tests.unit.look.test_causes import ALPHA, BETA, NOISE, PAIR, UUIDS

SEED = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
MAPS = """\
55d0c0a00000-55d0c0a02000 r--p 00000000 fe:00 1234                       /usr/bin/cat
7ffc2b1e1000-7ffc2b202000 rw-p 00000000 00:00 0                          [stack]
"""
OTHER_MAPS = """\
563ab9c45000-563ab9c47000 r--p 00000000 fe:00 1234                       /usr/bin/cat
7ffd1a9e3000-7ffd1aa04000 rw-p 00000000 00:00 0                          [stack]
"""
PASSWD = "root:x:0:0::/root:/bin/sh\none:x:{}:{}::/:/bin/sh\ntwo:x:{}:{}::/:/bin/sh\n"
FOUND = ["./etc", "./etc/a", "./etc/b", "./etc/c.d", "./etc/c.d/x", "./etc/c.d/y", "./usr/z"]
FOUND_OTHERWISE = [FOUND[n] for n in (6, 0, 3, 5, 4, 2, 1)]
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty"]
JOBS = [f"item {number}" for number in range(40)]
JOBS_OTHERWISE = [JOBS[number ^ 1] for number in range(40)]


def lines(items: list[str]) -> str:
    return "".join(f"{item}\n" for item in items)


# By cause: contents of one path.
CONTENTS = (
    ("directory-order", "x", lines(FOUND), lines(FOUND_OTHERWISE)),
    (
        "directory-order",
        "x",
        lines([f"{FOUND.index(f):>064x}  {f}" for f in FOUND]),
        lines([f"{FOUND.index(f):>064x}  {f}" for f in FOUND_OTHERWISE]),
    ),
    ("directory-order", "x", lines(FOUND), lines([*FOUND_OTHERWISE, "./usr/new"])),
    ("job-order", "x", lines(JOBS), lines(JOBS_OTHERWISE)),
    ("hash-order", "x", lines(WORDS), lines(WORDS[5:] + WORDS[:5][::-1])),
    ("address", "x", MAPS, OTHER_MAPS),
    ("address", "x", "140012345678901\n", "139698765432109\n"),
    ("address", "x", "ffffffffa0e00000 T _text\n", "ffffffff8be00000 T _text\n"),
    ("address", "x", "at 7f12a4b5c6d7\n", "at 7fa0b1c2d3e4\n"),
    ("memory", "x", "MemTotal:        4015004 kB\n", "MemTotal:        3006128 kB\n"),
    ("memory", "x", "Mem:   3920  120  3650   1  150  3700\n", "Mem: 2935 118 2668 1 148 2700\n"),
    ("memory", "x", "heap size in MiB: 3920 mem\n", "heap size in MiB: 2935 mem\n"),
    ("uptime", "x", "184.21 160.07\n", "97.50 88.31\n"),
    ("uptime", "x", " 04:01:10 up 3 min,  0 users\n", " 17:24:59 up 1 min,  0 users\n"),
    ("uptime", "x", "0.71 0.32 0.12 2/91 814\n", "0.55 0.21 0.08 3/90 804\n"),
    ("uptime", "x", "   TIMER:    133910     7898\n", "   TIMER:    133166     7857\n"),
    ("uptime", "x", "[    1,504129] x\n", "[    2.113377] x\n"),
    ("uptime", "x", "[    1.504129] x\n", "[    2.113377] x\n"),
    ("process-id", "x", "Pid:\t914\n", "Pid:\t877\n"),
    ("process-id", "run/x.pid", "914\n", "877\n"),
    ("process-id", "x", "setup[914]: started\n", "setup[877]: started\n"),
    ("duration", "x", "done in 0.21 s\n", "done in 0.34 s\n"),
    ("duration", "x", "real\t0m1.021s\n", "real\t0m1.833s\n"),
    ("file-system", "x", "ext2/ext3\n", "xfs\n"),
    ("file-system", "x", "/dev/vdb / ext4 rw,noatime 0 0\n", "/dev/vdb / xfs rw,attr2 0 0\n"),
    (
        "file-system",
        "x",
        "/dev/vdb  20466256 1402 19398156  8% /\n",
        "/dev/vdb  20961280 1844 19116784  9% /\n",
    ),
    ("file-system", "x", "4\tetc/x\n", "0\tetc/x\n"),
    ("file-system", "x", "12 a\n13 b\n14 c\n", "131 a\n132 b\n133 c\n"),
    ("file-system", "x", "Device: 254,16\tInode: 12  Links: 1\n", "Device: 8,16\tInode: 131\n"),
    ("machine", "x", "model name\t: QEMU Virtual CPU\n", "model name\t: Intel Core i7 9xx\n"),
    ("machine", "x", "Standard PC (Q35 + ICH9, 2009)\n", "Standard PC (i440FX + PIIX, 1996)\n"),
    ("account-order", "etc/passwd", PASSWD.format(1, 2, 3, 4), PASSWD.format(3, 4, 1, 2)),
    (
        "account-order",
        "etc/shadow",
        "one:*:1::::::\ntwo:*:1::::::\n",
        "two:*:1::::::\none:*:1::::::\n",
    ),
    ("account-order", "etc/gshadow-", "one:!::\ntwo:!::a,b\n", "two:!::b,a\none:!::\n"),
    ("account-order", "etc/group", "one:x:998:\ntwo:x:997:\n", "one:x:997:\ntwo:x:998:\n"),
    ("temporary-name", "x", "in /tmp/tmp.Xk29fQaZ01\n", "in /tmp/tmp.p0Lm4RtYcc\n"),
    ("key", "x", "ssh-ed25519 AAAAC3NzaC1l one@a\n", "ssh-ed25519 AAAAC3NzaC9x one@b\n"),
    ("key", "x", "-----BEGIN PRIVATE KEY-----\nMIIa\n", "-----BEGIN PRIVATE KEY-----\nMIIb\n"),
    ("random-identifier", "x", "q7Jv0KpZ2mXw9RtB4sLd\n", "Zc8NfY3hUe1VgQ6oTi5W\n"),
    ("random-identifier", "x", "2b9e43a53599\n", "4392a6c74098\n"),
    ("random-identifier", "x", "52:54:00:99:b8:d7\n", "52:54:00:87:b4:f4\n"),
    ("random-identifier", "x", "psk=jvqh5rdfmr8r05lb3urh\n", "psk=kbd4zd8i5x7ngck02ba3\n"),
    ("uuid", "x.db", f"\0U{UUIDS[0]}", f"\0U{UUIDS[1]}"),
    ("cpu-count", "x", "MAKEFLAGS=-j3\n", "MAKEFLAGS=-j2\n"),
    ("cpu-count", "x", "threads = 8\n", "threads = 4\n"),
    (
        "uptime",
        "x",
        " 254       0 vda" + " 38282" * 17 + "\n",
        " 254       0 vda" + " 3598" * 17 + "\n",
    ),
    ("duration", "x", "copied, 0,0227 s, 2,3 GB/s\n", "copied, 0,0346 s, 1,5 GB/s\n"),
    (
        "file-system",
        "x",
        "/a 39 200 8\n/b 39 201 8\n/c 39 202 8\n",
        "/a 8 1 8\n/b 8 2 8\n/c 8 3 8\n",
    ),
    ("changing-number", "x", "salt=1203419870\n", "salt=2771102993\n"),
    ("time-text", "x", "2027174\n", "2027359\n"),
    ("time-text", "x", "Week 25 of 2027\n", "Week 51 of 2027\n"),
    ("time-text", "x", "Wednesday, the 23rd of June\n", "Saturday, the 25th of December\n"),
    ("time-text", "x", "Mi 23. Jun 18:40:01 UTC 2027\n", "Sat Dec 25 18:40:01 UTC 2027\n"),
    ("time-text", "x", "23 juin 2027\n", "25 décembre 2027\n"),
    ("time-text", "x", "Wed 23 Jun 2027 06:40 PM\n", "Samstag 25 Dez 2027 18:40\n"),
    ("time-text", "x", "1.0+git270623\n", "1.0+git271225\n"),
    ("time-text", "x", "run.1813776000\n", "run.1829760000\n"),
    ("time-zone", "x", "+14\n", "AKST\n"),
    ("time-zone", "x", "UTC+14:00\n", "UTC-09:00\n"),
)


def name(path: str, left: str, right: str, pair: tuple[Facts, Facts] = PAIR) -> list[str]:
    return [cause.name for cause in find_causes(path, (left.encode(), right.encode()), pair)]


@pytest.mark.parametrize(("cause", "path", "left", "right"), CONTENTS)
def test_a_content_is_named(cause: str, path: str, left: str, right: str) -> None:
    assert name(path, left, right)[:1] == [cause]
    assert name(path, right, left, (BETA, ALPHA))[:1] == [cause]


@pytest.mark.parametrize(
    ("wrong", "path", "left", "right"),
    [
        ("file-system", "x", "12 files\n", "13 files\n"),
        ("file-system", "x", "1.5\t2027-06-23\n", "1.5\t2027-06-24\n"),
        ("file-system", "x", "12 a\n13 b\n14 c\n15 d\n16 e\n", "12 a\n99 b\n14 c\n15 d\n16 e\n"),
        ("memory", "x", "release 4096\n", "release 3072\n"),
        ("memory", "x", "3.8\n", "2.9\n"),
        ("uptime", "x", "price 12.50\n", "price 13.50\n"),
        ("account-order", "etc/passwd", PASSWD.format(1, 2, 3, 4), PASSWD.format(1, 2, 3, 4) * 2),
        ("account-order", "opt/passwd", PASSWD.format(1, 2, 3, 4), PASSWD.format(3, 4, 1, 2)),
        (
            "hash-order",
            "etc/shadow",
            "one:*:1:::::\ntwo:*:1:::::\n",
            "two:*:1:::::\none:*:1:::::\n",
        ),
        ("job-order", "x", lines(FOUND), lines(FOUND_OTHERWISE)),
        ("directory-order", "x", lines(WORDS), lines(WORDS[::-1])),
        ("address", "x", "sum 7f12a4b5c6d7e8\n", "sum 7fa0b1c2d3e4f5\n"),
        ("address", "x", "1400123456789012\n", "1396987654321098\n"),
        ("temporary-name", "x", "/tmp/words\n", "/tmp/lines\n"),
        ("random-identifier", "x", "deadbeef\n", "facefeed\n"),
        ("random-identifier", "x", "20270623\n", "20271225\n"),
        ("random-identifier", "x", "averyLongWordWithoutDigits\n", "anotherLongWordWithoutDigi\n"),
        ("changing-number", "x", "version 1234 of this\n", "version 1235 of that\n"),
        ("environment", "x", "PATH=/bin\n", "PATH=/usr/bin\n"),
        ("time-text", "x", "23 lines 2020\n", "25 lines 2021\n"),
        ("time-zone", "x", "-3\n", "+4\n"),
        ("locale", "x", "1,5\n", "1.6\n"),
        ("cpu-count", "x", "threads = 9\n", "threads = 4\n"),
        ("cpu-count", "x", "lines = 3\n", "lines = 2\n"),
        ("hash-order", "x", "Size: 8\nA: 1\n" * 9 + "B: 2\n", "A: 1\nSize: 8\n" * 9 + "B: 2\n"),
        ("random-identifier", "x", "10 20 30 40\n", "10 20 30 50\n"),
    ],
)
def test_a_content_is_not_called_so(wrong: str, path: str, left: str, right: str) -> None:
    assert wrong not in name(path, left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1,5\n", "1.5\n"),
        ("1.234,50 in all\n", "1234.50 in all\n"),
        (lines(["a", "B", "c", "É", "f"]), lines(["B", "a", "c", "f", "É"])),
        (lines(["10", "ab", ".c", "_x", "Z"]), lines([".c", "10", "Z", "_x", "ab"])),
    ],
)
def test_a_locale_of_people_is_named(left: str, right: str) -> None:
    german = replace(ALPHA, locale="de_DE.UTF-8")
    assert name("x", left, right, (german, BETA)) == ["locale"]


def test_variables_that_were_drawn_tell_of_the_environment() -> None:
    pair = [
        replace(f, others={"environment variables": n})
        for f, n in ((ALPHA, "QZA QX"), (BETA, "QX"))
    ]
    assert name("x", "A=1\nQZA=7\n", "A=1\n", (pair[0], pair[1])) == ["environment"]
    assert name("x", "A=1\nQX=7\n", "A=1\nQX=8\n", (pair[0], pair[1])) == ["changing-number"]


def test_a_large_list_is_compared_as_a_whole() -> None:
    """Of 2,000 lines more differ than are looked at one by one."""
    files = [f"/usr/share/{n % 100}/{n}" for n in range(2000)]
    by_folder = sorted(files, key=lambda path: (int(path.split("/")[3]) * 37 % 101, path[::-1]))
    other = sorted(files, key=lambda path: (int(path.split("/")[3]) * 53 % 101, path[::-1]))
    assert name("x", lines(by_folder), lines(other)) == ["directory-order"]


@pytest.mark.parametrize(
    ("kind", "left", "right", "cause", "evidence"),
    [
        ("time", 1_500_000_000, 1_500_000_009, "set-time", "2017-07-14 02:40:00 in alpha"),
        ("links", None, "etc/a", "hard-link", "a file of its own in alpha and one file with etc/a"),
        ("xattr", '{"user.x": "YQ=="}', '{"user.x": "Yg=="}', "extended-attribute", "'a' in alpha"),
        ("xattr", "{}", '{"user.x": "/wA="}', "extended-attribute", "none in alpha, ff00 in beta"),
        (
            "xattr",
            '{"user.x": "YWxwaGEtaG9zdA=="}',
            '{"user.x": "Yg=="}',
            "host-name",
            "alpha-host",
        ),
        ("name", "opt/job.pJPXdU", "opt/job.Zk3vQa", "temporary-name", "alike but for 6"),
        ("name", "opt/s-LecperxX/file", "opt/s-LmQ01zWt/file", "temporary-name", "mktemp"),
    ],
)
def test_a_property_is_named(
    kind: str, left: object, right: object, cause: str, evidence: str
) -> None:
    (found,) = find_causes_of_values(kind, (left, right), PAIR)
    assert found.name == cause
    assert evidence in found.evidence


@pytest.mark.parametrize(
    ("left", "right"),
    [("opt/one.conf", "opt/two.conf"), ("opt/a-1234", "opt/a-5678"), ("opt/x.abc", "opt/x.abcd")],
)
def test_a_name_is_not_temporary(left: str, right: str) -> None:
    found = find_causes_of_values("name", (left, right), PAIR)
    assert "temporary-name" not in {cause.name for cause in found}


def test_odd_attributes_do_no_harm() -> None:
    for value in ("", "[]", "{", '{"a": 7}', '{"a": "%"}', "[" * 9999):
        assert len(find_causes_of_values("xattr", (value, "{}"), PAIR)) <= 1


def test_what_is_only_on_one_side_has_its_twin() -> None:
    ours = ["opt/build-a", "opt/j.A1b2C3", "opt/s-Xx1/file", "opt/s-Xx1", "etc/flag"]
    theirs = ["opt/build-b", "opt/j.D4e5F6", "opt/s-Yy2/file", "opt/s-Yy2"]
    twins = find_twins(ours, theirs)
    assert [twins[path] for path in ours[:4]] == theirs
    assert twins["opt/s-Yy2/file"] == "opt/s-Xx1/file"
    assert "etc/flag" not in twins


def test_the_hash_of_ext4_is_that_of_e2fsprogs() -> None:
    names = ["zoo", "ant", "cat", "dog", "bee", "a-much-longer-name-than-fits-into-one-block.txt"]
    hashes = {}
    for one in names:
        done = subprocess.run(
            ["debugfs", "-R", f"dx_hash -h half_md4 -s {SEED} {one}"],
            env={"PATH": "/usr/sbin:/sbin"},
            capture_output=True,
            text=True,
            check=True,
        )
        hashes[one] = int(done.stdout.partition(" is ")[2].split()[0], 16)
    names.sort(key=lambda one: hashes[one])
    assert in_order_of_hashes(names, SEED)
    assert not in_order_of_hashes(names[::-1], SEED)
    assert not in_order_of_hashes(names, "no seed")


def test_names_in_the_order_of_ext4s_hashes_are_those_of_a_folder() -> None:
    """Plain words, of a folder that is there no longer."""
    others = {"scratch filesystem": "ext4", "directory order": SEED}
    hashed = replace(ALPHA, others=others)
    order = sorted(WORDS, key=lambda one: half_md4(one.encode(), words_of(SEED)))
    assert name("x", lines(order), lines(WORDS[5:] + WORDS[:5]), (hashed, BETA)) == [
        "directory-order"
    ]


def words_of(seed: str) -> tuple[int, ...]:
    raw = bytes.fromhex(seed.replace("-", ""))
    return tuple(int.from_bytes(raw[at : at + 4], "little") for at in range(0, 16, 4))


def test_names_that_are_what_a_folder_holds(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "opt/x").mkdir(parents=True)
    (tree / "opt/y").mkdir()
    for word in WORDS:
        (tree / "opt/x" / word).touch()
    many = [f"n{number}" for number in range(60)]
    for word in many:
        (tree / "opt/y" / word).touch()
    ledger = Ledger(tree, tmp_path / "ledger", lambda _: 0)
    ledger.record("20-bootstrap")
    ledger.close()
    folders = Folders(tmp_path / "ledger")
    assert folders.holding(frozenset(WORDS)) == "opt/x"
    assert folders.holding(frozenset(WORDS[:5])) == ""
    assert folders.holding(frozenset(many[:20])) == "opt/y"
    assert folders.holding(frozenset(many[:19])) == ""
    assert folders.holding(frozenset([*WORDS, "other"])) == ""
    assert Folders(tmp_path / "none").holding(frozenset(WORDS)) == ""
    pair = replace(ALPHA, holds=folders.holding), BETA
    assert name("x", lines(WORDS), lines(WORDS[5:] + WORDS[:5]), pair) == ["directory-order"]
    dated = [f"7.5 {word}" for word in WORDS]
    assert name("x", lines(dated), lines(dated[5:] + dated[:5]), pair) == ["directory-order"]


def test_keys_in_der_and_bytes_that_are_drawn() -> None:
    number = bytes.fromhex("302a300506032b6570032100")
    left, right = (number + bytes([n] * 32) for n in (7, 9))
    assert [c.name for c in find_causes("x", (left, right), PAIR)] == ["key"]
    left, right = NOISE[:512], NOISE[512:1024]
    assert [(c.name, c.weak) for c in find_causes("x", (left, right), PAIR)] == [
        ("random-identifier", True)
    ]


def test_the_time_of_a_pickle() -> None:
    left, right = (
        b"\x80\x04C\n" + bytes.fromhex(f) + b"\1\2\3" for f in ("07eb0617122801", "07eb0c19122801")
    )
    assert [c.name for c in find_causes("x", (left, right), PAIR)] == ["time-binary"]
