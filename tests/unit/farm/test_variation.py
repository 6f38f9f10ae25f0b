# SPDX-License-Identifier: GPL-3.0-or-later
"""What the environments vary: at each level, and drawn for each run."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.base.errors import UsageError
from pipeline.compare.environments import read_facts
from pipeline.documents.statement import DRAWN
from pipeline.farm.config import Farm, Variation, load_environment, load_farm
from pipeline.farm.run import Request
from pipeline.farm.variation import VARIABLES, Choice, choose, same, summary
from pipeline.guest import programs
from pipeline.look.causes.classify import known_factors

ROOT = Path(__file__).parents[3]
HOSTS = ROOT / "images/hosts"
RUN = "20261122T180000Z-mini-0a1b"
# These are compared as one: the offset of the clock.
OF_ALL = {"clock_offset_minutes", "open_files", "processes", "randomized_addresses"}


@pytest.fixture(scope="module")
def farm() -> Farm:
    return load_farm(ROOT / "farm.yaml")


def choices(farm: Farm, vary: str, run_id: str = RUN, **changes: Any) -> dict[str, Choice]:
    request = {"image": "mini", "commit": "HEAD", "vary": vary, "environments": ["alpha", "beta"]}
    return choose(farm, HOSTS, run_id, Request.of(request | changes))


def test_under_all_every_factor_differs(farm: Farm) -> None:
    made = choices(farm, "all")
    assert same(made.values()) == []
    count = len(Variation.model_fields) + 1  # CPUs and memory too, the description not
    text = summary(made.values())
    assert text == f"the environments differ in {count} of {count} factors"


def test_the_comparison_knows_every_factor(farm: Farm) -> None:
    """Which alone differs; the CPU model and the entry's factors are stated beside `varied`."""
    alpha, beta = (choice.variation.model_dump() for choice in choices(farm, "all").values())
    for name in alpha.keys() - {"description", "cpu_model_tcg", "cpu_model_kvm"}:
        sides = (alpha, {**alpha, name: beta[name]})
        machines = [
            {"buildDefinition": {"internalParameters": {"machine": {"varied": side}}}}
            for side in sides
        ]
        left, right = (read_facts("alpha", 0, machine) for machine in machines)
        assert len(known_factors((left, right))) == 1, name


def test_under_all_the_clocks_differ_in_both_directions_and_in_the_time_of_day(farm: Farm) -> None:
    offsets = sorted(
        c.variation.clock_offset_days * 1440 + c.variation.clock_offset_minutes
        for c in choices(farm, "all").values()
    )
    assert offsets[0] < -60 * 1440
    assert offsets[1] > 60 * 1440
    assert 120 < abs(offsets[0] - offsets[1]) % 1440 < 1320


def test_under_none_only_the_container_hosts_differ(farm: Farm) -> None:
    made = choices(farm, "none")
    alpha, beta = made.values()
    assert {n for n in alpha.factors if alpha.factors[n] != beta.factors[n]} == {"suite"}
    assert summary(made.values()) == "the environments differ only in suite"
    assert alpha.entry.memory_mib == min(e.memory_mib for e in farm.environments.values())
    assert alpha.variation.clock_offset_days == 0
    assert alpha.variation.environment_variables == {}


def test_by_default_the_described_factors_differ(farm: Farm) -> None:
    made = choices(farm, "default")
    assert set(same(made.values())) == OF_ALL | {"environment_variables"}
    assert "not in clock offset minutes, open files" in summary(made.values())


def test_an_environment_is_the_same_alone(farm: Farm) -> None:
    alone = choices(farm, "all", environments=["beta"])
    assert alone == {"beta": choices(farm, "all")["beta"]}


@pytest.mark.parametrize("vary", ["default", "all"])
def test_what_is_drawn_is_drawn_again_for_the_same_run_alone(farm: Farm, vary: str) -> None:
    assert choices(farm, vary) == choices(farm, vary)
    other = choices(farm, vary, "20261122T180000Z-mini-0a1c")
    for name, choice in choices(farm, vary).items():
        changed = {n for n in choice.factors if choice.factors[n] != other[name].factors[n]}
        assert changed == (DRAWN if vary == "all" else {"directory_seed"})


def test_the_variables_mean_nothing_and_do_no_harm(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "makedirs", lambda *_, **__: None)
    for number in range(50):
        for choice in choices(farm, "all", f"run-{number}").values():
            variables = choice.variation.environment_variables
            assert len(variables) == VARIABLES
            assert all(re.fullmatch("[A-Z]{8,24}", name) for name in variables)
            machine = replace(choice.variation.factors(), user="ada")
            environment = programs.environment(machine, 1)
            assert environment.items() >= variables.items()
            assert environment["PATH"].startswith("/usr/local/sbin")


def test_an_environment_that_is_not_there_is_named(farm: Farm) -> None:
    with pytest.raises(UsageError, match="there is no environment 'gamma'"):
        choices(farm, "none", environments=["alpha", "gamma"])


def test_a_level_that_is_not_there_is_refused(farm: Farm) -> None:
    with pytest.raises(UsageError, match="vary: Input should be 'none', 'default' or 'all'"):
        choices(farm, "everything")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"all": {"suite": "sid"}}, "suite cannot be set in all"),
        ({"all": {"description": "x"}}, "description cannot be set in all"),
        ({"all": {"all": {}}}, "all cannot be set in all"),
        ({"all": {"environment_variables": {}}}, "environment_variables cannot be set"),
        ({"directory_seed": "0" * 36}, "directory_seed"),
        ({"directory_seed": "0" * 8 + "-0000" * 3 + "-" + "0" * 12}, "directory_seed cannot be"),
        ({"all": {"umask": "777"}}, "umask"),
        ({"all": {"clock": 3}}, "clock"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"time_zone": "/etc/passwd"}, "time_zone"),
        ({"time_zone": "Pacific/Kiritimatti"}, "not a time zone of the tz database"),
        ({"time_zone": "Pacific"}, "not a time zone of the tz database"),
        ({"build_path": "/work;reboot"}, "build_path"),
        ({"clock_offset_days": 40000}, "clock_offset_days"),
        ({"clock_offset_minutes": 1440}, "clock_offset_minutes"),
        ({"open_files": 3}, "open_files"),
        ({"scratch_filesystem": "ntfs"}, "scratch_filesystem"),
    ],
)
def test_mistakes_in_an_environment_are_named(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    document = yaml.safe_load((HOSTS / "alpha/environment.yaml").read_text())
    path = tmp_path / "environment.yaml"
    path.write_text(yaml.safe_dump(document | change))
    with pytest.raises(UsageError, match=message):
        load_environment(path)
