"""The account of every byte: what an attacker hides beside a legitimate change is told.

In every test the attacker holds one of the two files and can write to it what they like; the other
is honest. A file inside has changed for a good reason, and people expect to be told of it.
"""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compare.account import Account
from pipeline.compare.formats.source import Memory, Spool
from pipeline.compare.images import locate_contents
from tests import tampered
from tests.tampered import MAKERS

Pair = tuple[bytes, bytes]
Told = set[tuple[str, str, str]]


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """Give a function that makes a pair of a kind, once."""
    made: dict[str, Pair] = {}

    def make(name: str) -> Pair:
        if name not in made:
            made[name] = tampered.make_pair(name, tmp_path_factory.mktemp("pair") / "it")
        return made[name]

    return make


def told(first: bytes, second: bytes) -> Told:
    compared = locate_contents((Memory(first), Memory(second)), work=tampered.WORK)
    return {(place.where, place.path, place.kind) for place in compared.places}


@pytest.mark.parametrize("name", MAKERS)
def test_the_parts_are_the_whole_file(name: str, pair: Callable[[str], Pair]) -> None:
    for content in pair(name):
        with Spool([tampered.WORK]).nested() as spool:
            source = Memory(content)
            parts = list(Account(tampered.read(source, spool), source).parts())
        ends = [0, *(part.span[1] for part in parts)]
        assert [part.span[0] for part in parts] == ends[:-1]
        assert ends[-1] == len(content)


@pytest.mark.parametrize("name", MAKERS)
def test_a_change_alone_is_told_alone(name: str, pair: Callable[[str], Pair]) -> None:
    changes = {(path.removeprefix("it/").lower(), kind) for _, path, kind in told(*pair(name))}
    follows = {(tampered.CHANGED, "structure")} if name == "zip" else set()  # packed, now
    assert changes - follows == {(tampered.CHANGED, "content")}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("hidden", [b"EVIL", b"\0", bytes(512), bytes(10240)])
def test_appended_bytes_are_told(name: str, hidden: bytes, pair: Callable[[str], Pair]) -> None:
    first, second = pair(name)
    assert told(first, second + hidden) - told(first, second)


IN_AN_ISO = {"system area": (600, 1000, 20_000), "padding": (-1, -5000, -300_000)}


@pytest.mark.parametrize("offset", [*IN_AN_ISO["system area"], *IN_AN_ISO["padding"]])
def test_bytes_of_an_iso_that_belong_to_no_file(offset: int, pair: Callable[[str], Pair]) -> None:
    first, second = pair("iso, padded")
    changed = bytearray(second)
    changed[offset % len(second)] ^= 1
    region = "[system area]" if offset > 0 else "[unused space]"
    assert told(first, bytes(changed)) - told(first, second) == {("iso9660", region, "layout")}


@pytest.mark.parametrize("name", MAKERS)
@given(seed=st.integers(0, 2**64))
@settings(max_examples=25)
def test_whatever_is_done_beside_a_change_is_told(
    name: str, seed: int, pair: Callable[[str], Pair]
) -> None:
    first, second = pair(name)
    at, changed = tampered.tamper(second, random.Random(seed))
    if changed in (first, second):
        return
    if not told(first, changed) - told(first, second):
        # nothing but what the changed file holds now, of which people are told
        assert len(changed) == len(second)
        assert any(start <= at < end for start, end in tampered.of_the_change(second))
