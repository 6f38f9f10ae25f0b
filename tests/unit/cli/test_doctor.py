# SPDX-License-Identifier: GPL-3.0-or-later
import gc
from pathlib import Path

import pytest

from pipeline.base.errors import ExitStatus, InfrastructureFailed, UsageError
from pipeline.cli import doctor
from pipeline.cli.doctor import Finding
from pipeline.farm.config import Archive, EnvironmentEntry, Farm
from tests.archive_server import archive_server
from tests.hostile_repository import git

ARCHIVE = Archive(suites=["trixie", "trixie-updates"], components=["main"], keyring=Path("/none"))
FARM = Farm(
    environments={
        "alpha": EnvironmentEntry(memory_mib=2048, cpus=1),
        "beta": EnvironmentEntry(memory_mib=1024, cpus=1),
        "gamma": EnvironmentEntry(memory_mib=65536, cpus=1, engine="tcp://192.0.2.1:2376"),
    },
    archives={"debian": ARCHIVE},
)


def test_findings_are_one_line_each_and_decide_the_exit_status() -> None:
    fine = Finding("disk", ok=True, text="plenty")
    retry = Finding("engine", False, "none answers", "start one", ExitStatus.INFRASTRUCTURE)
    wrong = Finding("key alpha", False, "missing", "make one", ExitStatus.SIGNATURE)
    assert str(fine).split() == ["disk", "OK", "plenty"]
    assert str(retry).endswith("none answers; start one")
    assert doctor.exit_status([fine]) == 0
    assert doctor.exit_status([fine, retry]) == 4
    assert doctor.exit_status([retry, wrong]) == 2


def test_a_broken_farm_yaml_is_the_only_finding(tmp_path: Path) -> None:
    (tmp_path / "farm.yaml").write_text("environments: 3\n")
    (finding,) = doctor.examine(tmp_path)
    assert not finding.ok
    assert finding.status == 2
    assert "environments" in finding.text


def test_without_a_farm_yaml_it_says_what_begins_a_farm(tmp_path: Path) -> None:
    (finding,) = doctor.examine(tmp_path)
    assert finding.status == 2
    assert "init NAME begins one" in finding.remedy


# The docker library leaves the socket open that could not connect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(InfrastructureFailed, match="no Docker Engine answers"):
        doctor.engine_version(None)
    gc.collect()  # its complaint belongs to this test


def test_the_accelerator_must_open(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    assert "TCG" in doctor.accelerator(device)
    device.touch()
    assert "KVM present" in doctor.accelerator(device)


def test_memory_is_that_of_the_environments_on_this_machine(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 99999999 kB\nMemAvailable: 3145728 kB\n")
    assert doctor.memory(FARM, meminfo) == "3072 MiB available, 3072 for the environments here"
    meminfo.write_text("MemTotal: 99999999 kB\nMemAvailable: 3145727 kB\n")
    with pytest.raises(InfrastructureFailed, match="3071 MiB"):
        doctor.memory(FARM, meminfo)


def test_the_repository_and_whether_its_tree_is_what_would_be_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not the top of a git repository"):
        doctor.repository(tmp_path)
    git(tmp_path, "init", "--quiet")
    with pytest.raises(UsageError, match="no commit"):
        doctor.repository(tmp_path)
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "first")
    assert doctor.repository(tmp_path).endswith("clean")
    (tmp_path / "new").touch()
    assert "no build sees" in doctor.repository(tmp_path)


def test_an_archive_answers_for_every_suite(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for suite in ARCHIVE.suites:
        (tmp_path / "dists" / suite).mkdir(parents=True)
        (tmp_path / "dists" / suite / "InRelease").write_text("signed\n")
    with archive_server(tmp_path) as server:
        monkeypatch.setenv("TWINBUILD_MIRROR_DEBIAN", server.url)
        assert server.url in doctor.reach("debian", ARCHIVE, {})
        server.faults["trixie-updates/InRelease"] = "404"
        with pytest.raises(InfrastructureFailed, match="trixie-updates/InRelease"):
            doctor.reach("debian", ARCHIVE, {})
    with pytest.raises(InfrastructureFailed, match="InRelease"):
        doctor.reach("debian", ARCHIVE, {})  # nobody listens there any more
