# SPDX-License-Identifier: GPL-3.0-or-later
"""The search for the factor that decides, with a fake build that knows."""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import BuildFailed, Differs, InfrastructureFailed
from pipeline.base.files import read_json
from pipeline.narrow import factors
from pipeline.narrow.factors import (
    HOST,
    Answer,
    Question,
    Seen,
    SeenPath,
    Taken,
    look,
    smallest,
    steps_before,
)

FACTORS = (
    *("machine_type", "cpu_model_tcg", "clock_offset_days", "time_zone", "locale", "host_name"),
    *("user", "build_path", "umask", "scratch_filesystem", "cpus", "memory_mib", HOST),
)
PATH = "etc/stamp"


def result(content: str) -> Seen:
    return {PATH: SeenPath("file", (("sha256", content * 64), ("size", 1)))}


A, B, C = result("a"), result("b"), result("c")


def question(factors: tuple[str, ...] = FACTORS) -> Question:
    values = {name: (f"{name} of alpha", f"{name} of beta") for name in factors}
    kinds = {PATH: ("content", "size")}
    return Question(("alpha", "beta"), "40-hooks/x", ("20-bootstrap",), kinds, (A, B), values)


class Farm:
    """Does the step as asked, and counts."""

    def __init__(self, makes: Callable[[Taken], Seen]) -> None:
        self._makes = makes
        self.trials: list[Taken] = []
        self.messages: list[str] = []

    def build(self, taken: Taken) -> Seen:
        assert taken not in self.trials, "the same trial twice"
        self.trials.append(taken)
        return self._makes(taken)

    def ask(self, asked: Question | None = None) -> Answer:
        return factors.narrow(asked or question(), self.build, self.messages.append)


@pytest.mark.parametrize("factor", [name for name in FACTORS if name != HOST])
def test_the_one_factor_is_found_without_the_other_host(factor: str) -> None:
    farm = Farm(lambda taken: B if factor in taken else A)
    answer = farm.ask()
    assert answer.factors == (factor,)
    assert answer.error() is None
    assert not any(HOST in taken for taken in farm.trials)
    assert len(farm.trials) <= 11


def test_the_answer_is_a_sentence() -> None:
    answer = Farm(lambda taken: B if "time_zone" in taken else A).ask()
    assert answer.sentence == (
        "time zone decides: with time_zone of alpha (as in alpha) etc/stamp has content"
        " aaaaaaaaaaaa…, size 1, with time_zone of beta (as in beta) etc/stamp has content"
        " bbbbbbbbbbbb…, size 1"
    )


@pytest.mark.parametrize("pair", [("locale", "umask"), ("machine_type", "memory_mib")])
def test_two_that_must_come_together(pair: tuple[str, str]) -> None:
    farm = Farm(lambda taken: B if set(pair) <= taken else A)
    answer = farm.ask()
    assert answer.factors == pair
    assert "decide together" in answer.sentence


def test_two_that_each_change_a_part() -> None:
    """One file with both: each alone makes a third result."""

    def makes(taken: Taken) -> Seen:
        both = {"host_name", "user"} & taken
        return B if len(both) == 2 else C if both else A

    assert Farm(makes).ask().factors == ("host_name", "user")


def test_one_of_two_that_suffice() -> None:
    answer = Farm(lambda taken: B if {"user", "host_name"} & taken else A).ask()
    assert answer.factors in {("user",), ("host_name",)}


def test_the_container_host_is_tried_last_and_found() -> None:
    farm = Farm(lambda taken: B if HOST in taken else A)
    assert farm.ask().factors == (HOST,)
    assert [HOST in taken for taken in farm.trials] == [False, False, True, True]


def test_the_container_host_together_with_another() -> None:
    answer = Farm(lambda taken: B if {HOST, "cpus"} <= taken else A).ask()
    assert answer.factors == ("cpus", HOST)


def test_what_is_not_repeatable_is_found_first() -> None:
    results = iter("abcdefgh")
    farm = Farm(lambda _: result(next(results).upper()))
    answer = farm.ask()
    assert farm.trials == [frozenset()]
    assert answer.factors == ()
    assert "alpha itself makes something else when it does 40-hooks/x once more" in answer.sentence
    assert PATH in answer.sentence
    assert isinstance(answer.error(), Differs)


def test_what_only_the_other_cannot_repeat() -> None:
    answer = Farm(lambda taken: C if HOST in taken else A).ask()
    assert answer.factors == ()
    assert "beta itself makes something else" in answer.sentence


def test_nothing_that_can_be_exchanged_decides() -> None:
    answer = Farm(lambda _: A).ask(question(("locale", "umask")))
    assert answer.factors == ()
    assert "what the machines run on" in answer.sentence
    assert Farm(lambda _: A).ask(question(())).factors == ()


def test_a_combination_that_breaks_is_not_the_answer() -> None:
    def makes(taken: Taken) -> Seen:
        if "cpu_model_tcg" in taken and "machine_type" not in taken:
            raise InfrastructureFailed("the machine panicked\n")
        return B if "locale" in taken else A

    answer = Farm(makes).ask()
    assert answer.factors == ("locale",)

    def always(taken: Taken) -> Seen:
        raise BuildFailed("hook x failed")

    with pytest.raises(BuildFailed):  # the very first: there is nothing to compare with
        Farm(always).ask()


def test_each_trial_is_reported() -> None:
    farm = Farm(lambda taken: B if "locale" in taken else A)
    answer = farm.ask()
    assert farm.messages[0] == "bisect: trial 1: nothing as in beta …"
    assert farm.messages[1] == "bisect: trial 1: like alpha"
    assert len(farm.messages) == 2 * len(answer.trials) == 2 * len(farm.trials)
    assert {tried.like for tried in answer.trials} == {"alpha", "beta"}


@given(st.sets(st.sampled_from(FACTORS), min_size=1))
def test_any_set_that_decides_is_found(wanted: set[str]) -> None:
    farm = Farm(lambda taken: B if wanted <= taken else A)
    assert set(farm.ask().factors) == wanted
    assert len(farm.trials) <= len(FACTORS) ** 2 + 3 * len(FACTORS)  # ddmin's worst case


@given(st.lists(st.sets(st.integers(0, 9), min_size=1), min_size=1))
def test_what_is_found_is_enough_and_nothing_of_it_is_too_much(enough: list[set[int]]) -> None:
    """Also where several sets would do, and where less is enough and more is not."""

    def is_enough(some: Any) -> bool:
        return any(wanted <= set(map(int, some)) for wanted in enough)

    everything = [str(number) for number in range(10)]
    found = smallest(everything, is_enough)
    assert is_enough(found)
    assert not any(is_enough([f for f in found if f != one]) for one in found)


def write_ledger(path: Path, *lines: Mapping[str, Any]) -> Path:
    path.write_bytes(gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in lines)))
    return path


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    entry = {"type": "file", "mode": 0o644, "uid": 0, "gid": 0, "mtime": 9, "size": 3}
    return write_ledger(
        tmp_path / "ledger.jsonl.gz",
        {"step": "20-bootstrap"},
        {**entry, "path": "etc/a", "sha256": "1" * 64},
        {"step": "40-hooks/x"},
        {**entry, "path": "etc/a", "sha256": "2" * 64, "xattrs": {"user.b": "", "user.a": ""}},
        {"path": "etc/gone", "type": "absent"},
        {"step": "85-iso"},
        {**entry, "path": "etc/a", "sha256": "3" * 64},
        {"artifact": "mini.iso", "sha256": "4" * 64, "size": 9},
    )


def test_a_ledger_is_looked_at_in_one_step_and_for_what_differs(ledger: Path) -> None:
    kinds = {"etc/a": ("content",), "etc/gone": ("only-in-beta",), "etc/other": ("mode",)}
    assert look(ledger, "40-hooks/x", kinds) == {
        "etc/a": SeenPath("file", (("sha256", "2" * 64),)),
        "etc/gone": SeenPath("absent"),
        "etc/other": SeenPath(""),
    }
    assert look(ledger, "40-hooks/x", {"etc/a": ("time", "xattr")}) == {
        "etc/a": SeenPath("file", (("mtime", 9), ("xattrs", (("user.a", ""), ("user.b", ""))))),
    }
    assert look(ledger, "85-iso", {"mini.iso": ("content",)}) == {
        "mini.iso": SeenPath("artifact", (("sha256", "4" * 64), ("size", 9)))
    }
    assert steps_before(ledger, "85-iso") == ("20-bootstrap", "40-hooks/x")


def test_a_hostile_ledger_is_refused(tmp_path: Path) -> None:
    bad = write_ledger(tmp_path / "x.gz", {"step": "s"}, {"path": "../x", "type": "file"})
    with pytest.raises(BuildFailed):
        look(bad, "s", {"a": ("content",)})


def test_the_answer_is_written(tmp_path: Path) -> None:
    answer = Farm(lambda taken: B if "locale" in taken else A).ask()
    factors.write(tmp_path / "bisect.json", question(), answer)
    document = read_json(tmp_path / "bisect.json", failure=BuildFailed)
    assert document["format"] == factors.FORMAT
    assert document["values"] == {"locale": ["locale of alpha", "locale of beta"]}
    assert document["trials"][0] == {"taken": [], "like": "alpha"}
    assert document["answer"] == answer.sentence
