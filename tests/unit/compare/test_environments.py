# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of the environments from their statements."""

import gzip

import pytest

from pipeline.compare.environments import read_facts
from pipeline.look.causes.classify import find_causes, known_factors
from pipeline.look.causes.facts import Facts

EPOCH = 1795372707


def test_nothing_is_known_of_an_environment_that_says_nothing() -> None:
    unknown = read_facts("alpha", EPOCH, {"buildDefinition": [], "runDetails": {"metadata": 7}})
    assert unknown == Facts("alpha", EPOCH)
    contents = gzip.compress(b"x", mtime=1), gzip.compress(b"x", mtime=1813776000)
    assert find_causes("x", contents, (unknown, Facts("beta", EPOCH, host_name="b"))) == ()
    assert known_factors((unknown, unknown)) == []


def test_facts_are_read_from_a_statement() -> None:
    machine = {
        "clock": "2027-06-23T18:39:25",
        "cpus": 2,
        "facts": {"kernel": "6.12"},
        "varied": {"host_name": "alpha-host", "umask": "0027", "machine_type": "q35"},
    }
    times = {"startedOn": "2026-11-22T18:39:25Z", "finishedOn": "2026-11-22T18:48:12Z"}
    predicate = {
        "buildDefinition": {"internalParameters": {"machine": machine}},
        "runDetails": {"metadata": times},
    }
    facts = read_facts("alpha", EPOCH, predicate)
    assert facts.hours == (1813775965, 1813775965 + 527)
    assert (facts.cpus, facts.kernel, facts.umask) == ("2", "6.12", 0o27)
    assert facts.others == {"machine type": "q35"}
    assert known_factors((facts, Facts("beta", EPOCH)))[0] == "host name"


def facts_of(varied: dict[str, object], **machine: object) -> Facts:
    internal = {"machine": {**machine, "varied": varied}}
    predicate = {"buildDefinition": {"internalParameters": internal}}
    return read_facts("alpha", EPOCH, predicate)


@pytest.mark.parametrize(
    ("factor", "left", "right"),
    [
        ("clock", {"clock_offset_days": 3}, {"clock_offset_days": -3}),
        (
            "clock",
            {"clock_offset_days": 3},
            {"clock_offset_days": 3, "clock_offset_minutes": 60},
        ),
        ("directory order", {"directory_seed": "1"}, {"directory_seed": "2"}),
        ("open files", {"open_files": 1024}, {"open_files": 4096}),
        ("processes", {"processes": 1024}, {"processes": 4096}),
        ("randomized addresses", {"randomized_addresses": True}, {"randomized_addresses": False}),
        ("environment variables", {"environment_variables": {"A": "x"}}, {}),
        ("scratch filesystem", {"scratch_filesystem": "xfs"}, {"scratch_filesystem": "ext4"}),
    ],
)
def test_every_factor_that_differs_is_known(
    factor: str, left: dict[str, object], right: dict[str, object]
) -> None:
    assert known_factors((facts_of(left), facts_of(right))) == [factor]
    assert known_factors((facts_of(left), facts_of(left))) == []


def test_what_comes_with_the_container_host_is_known() -> None:
    pair = (
        facts_of({}, builder={"qemu": "QEMU 10.0"}, accelerator="kvm"),
        facts_of({}, builder={"qemu": "QEMU 7.2"}, accelerator="tcg"),
    )
    assert known_factors(pair) == ["accelerator", "qemu"]


@pytest.mark.parametrize("odd", [None, 3, ["A"], {"A": ["x"] * 99}, "A" * 1000])
def test_odd_factors_do_no_harm(odd: object) -> None:
    odd_ones = ("clock_offset_days", "clock_offset_minutes", "environment_variables", "processes")
    facts = facts_of(dict.fromkeys(odd_ones, odd), builder=odd)
    assert known_factors((facts, facts)) == []
