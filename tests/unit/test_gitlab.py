# SPDX-License-Identifier: GPL-3.0-or-later
"""What .gitlab-ci.yml says, and the pipeline that `init` begins; tests/gitlab/ runs both."""

import fnmatch
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli import begin
from pipeline.farm.config import load_farm

ROOT = Path(__file__).parents[2]
FILE = ROOT / ".gitlab-ci.yml"
HOW_TO = ROOT / "docs" / "how-to" / "gitlab.md"
KEYWORDS = {"workflow", "variables", "stages", "default"}
SWITCHES = {"TWINBUILD_PAGES": "yes", "TWINBUILD_RENEWAL": "yes", "CI_DEFAULT_BRANCH": "main"}
SOURCES = {
    "merge request": {"CI_PIPELINE_SOURCE": "merge_request_event"},
    "tag": {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_TAG": "3.3"},
    "schedule": {"CI_PIPELINE_SOURCE": "schedule", "CI_COMMIT_BRANCH": "main"},
    "branch": {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "main"},
}


@pytest.fixture(scope="module", params=["own", "begun"])
def text(request: pytest.FixtureRequest) -> str:
    """Twinbuild's own pipeline, then the one of a repository that `init` has begun."""
    return FILE.read_text() if request.param == "own" else begin.files("kiosk")[".gitlab-ci.yml"]


@pytest.fixture(scope="module")
def pipeline(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text))


@pytest.fixture(scope="module")
def program(text: str) -> str:
    return "./farm" if text == FILE.read_text() else "twinbuild"


@pytest.fixture(scope="module")
def jobs(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {n: j for n, j in pipeline.items() if n not in KEYWORDS and not n.startswith(".")}


def check(file: Path) -> int:
    program = Path(sys.executable).with_name("check-jsonschema")
    schema = ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
    argv = [str(program), *schema, "--regex-variant", "nonunicode", str(file)]
    return subprocess.run(argv, capture_output=True, check=False).returncode


def test_it_obeys_gitlabs_schema(text: str, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.yml", tmp_path / "wrong.yml"
    right.write_text(text)
    assert check(right) == 0
    wrong.write_text(text.replace("resource_group:", "resource_groups:"))
    assert check(wrong) == 1


def test_only_merge_requests_tags_and_schedules_have_pipelines(pipeline: dict[str, Any]) -> None:
    merge_request, tag, schedule, rest = pipeline["workflow"]["rules"]
    assert merge_request["if"] == '$CI_PIPELINE_SOURCE == "merge_request_event"'
    assert tag["if"] == "$CI_COMMIT_TAG"
    # On a tag it would release with the runners that review.
    assert schedule["if"] == '$CI_PIPELINE_SOURCE == "schedule" && $CI_COMMIT_BRANCH'
    assert rest == {"when": "never"}


def test_what_a_merge_request_brings_never_runs_where_releases_are_made(
    pipeline: dict[str, Any], jobs: dict[str, dict[str, Any]]
) -> None:
    pools = [rule["variables"]["POOL"] for rule in pipeline["workflow"]["rules"][:-1]]
    assert pools == ["review", "release", "review"]
    for name in jobs.keys() - {"renewal"}:
        assert "$POOL" in jobs[name].get("tags", pipeline["default"]["tags"]), name


def test_what_renews_runs_on_a_runner_of_its_own_and_takes_nothing_from_other_jobs(
    jobs: dict[str, dict[str, Any]], program: str
) -> None:
    """Who may push a branch for review has run code wherever a schedule proves and builds."""
    assert jobs["renewal"]["tags"] == ["twinbuild", "renewal"]
    assert jobs["renewal"]["needs"] == []
    assert jobs["renewal"]["script"] == f"{program} kit.renew"
    assert not [n for n in jobs.keys() - {"renewal"} if "renewal" in jobs[n].get("tags", [])]


def holds(condition: str, variables: dict[str, str]) -> bool:
    """Evaluate what this pipeline uses of GitLab's conditions: `$A`, `==` and `&&`."""

    def value(word: str) -> str:
        return variables.get(word[1:], "") if word.startswith("$") else word.strip('"')

    terms = [term.split(" == ") for term in condition.split(" && ")]
    return all(value(term[0]) == value(term[1]) if term[1:] else value(term[0]) for term in terms)


def environments(
    pipeline: dict[str, Any], jobs: dict[str, dict[str, Any]], given: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """Give each job that a pipeline has, and the environment that it names, empty if none."""
    rule = next(r for r in pipeline["workflow"]["rules"] if holds(r.get("if", '"yes"'), given))
    if rule.get("when") == "never":
        return
    variables = {**pipeline["variables"], **given, **rule["variables"]}
    for name, job in jobs.items():
        if not any(holds(rule["if"], variables) for rule in job.get("rules", [{"if": '"yes"'}])):
            continue
        for each in job.get("parallel", {}).get("matrix", [{}])[0].get("ENVIRONMENT", [""]):
            named = job.get("environment", {}).get("name", "")
            for variable, value in {**variables, "ENVIRONMENT": each}.items():
                named = named.replace(f"${variable}", value)
            yield f"{name} {each}".strip(), named


def table(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading of the how-to."""
    below = HOW_TO.read_text().split(f"\n## {heading}\n")[1]
    rows = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert rows
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[0].splitlines()]
    return cells[2:]


def test_who_can_see_which_key(pipeline: dict[str, Any], jobs: dict[str, dict[str, Any]]) -> None:
    """Whoever may run code in a job has its variables: a schedule's proofs, a tag's tests.

    What is read here are the scopes that the how-to tells people to set, and the pipeline; the
    how-to's own table of who sees what says the same.
    """
    scopes = {
        name: scope.strip("`")
        for names, scope, *_ in table("Variables")
        for name in re.findall(r"TWINBUILD_\w*KEY\w*|TWINBUILD_\w*PASSPHRASE\w*", names)
    }
    assert len(scopes) == 5
    assert "*" not in "".join(scopes.values())
    seen = {
        (source, job): {n for n, scope in scopes.items() if fnmatch.fnmatchcase(named, scope)}
        for source, given in SOURCES.items()
        for job, named in environments(pipeline, jobs, given | SWITCHES)
    }
    assert {where: names for where, names in seen.items() if names} == {
        ("tag", "build alpha"): {"TWINBUILD_KEY_ALPHA"},
        ("tag", "build beta"): {"TWINBUILD_KEY_BETA"},
        ("tag", "release"): {"TWINBUILD_RELEASE_KEY", "TWINBUILD_RELEASE_PASSPHRASE_FILE"},
        ("schedule", "renewal"): {"TWINBUILD_RENEWAL_KEY"},
    }
    assert {source for source, _ in seen} == {"merge request", "tag", "schedule"}
    documented = {
        (source, job.strip("`")): set(re.findall(r"TWINBUILD_\w+", names))
        for source, job, _, names in table("Who can see which key")
        if "TWINBUILD" in names
    }
    assert documented == {where: names for where, names in seen.items() if names}


def test_no_job_makes_a_deployment(jobs: dict[str, dict[str, Any]]) -> None:
    """GitLab refuses a deployment older than the last one: a fix of an old release, a retry."""
    named = {name: job["environment"] for name, job in jobs.items() if "environment" in job}
    assert named.keys() == {"build", "release", "renewal"}
    assert {entry["action"] for entry in named.values()} == {"prepare"}


def test_a_merge_request_may_be_interrupted_and_a_release_never(
    pipeline: dict[str, Any], jobs: dict[str, dict[str, Any]]
) -> None:
    assert pipeline["workflow"]["auto_cancel"] == {"on_new_commit": "interruptible"}
    assert pipeline["workflow"]["rules"][1]["auto_cancel"] == {"on_new_commit": "none"}
    assert pipeline["default"]["interruptible"] is True
    kept = {name for name, job in jobs.items() if job.get("interruptible") is False}
    only_on_tags = {n for n, j in jobs.items() if "$CI_COMMIT_TAG" in str(j.get("rules"))}
    assert only_on_tags == {"release", "pages"}
    assert kept == only_on_tags | {"renewal"}
    assert {jobs[name]["resource_group"] for name in kept} == {"release"}


def test_only_the_infrastructure_is_tried_again(
    pipeline: dict[str, Any], jobs: dict[str, dict[str, Any]]
) -> None:
    retry = pipeline["default"]["retry"]
    assert retry["exit_codes"] == [4]
    assert set(retry["when"]) == {
        "runner_system_failure",
        "stuck_or_timeout_failure",
        "scheduler_failure",
        "api_failure",
    }
    assert not [name for name, job in jobs.items() if "retry" in job]


def test_every_job_ends(pipeline: dict[str, Any], jobs: dict[str, dict[str, Any]]) -> None:
    assert pipeline["default"]["timeout"]
    assert jobs["build"]["timeout"] == "90 minutes"


def test_no_job_has_logic(jobs: dict[str, dict[str, Any]], program: str) -> None:
    for name, job in jobs.items():
        assert isinstance(job["script"], str), name
        assert "\n" not in job["script"], name
        assert job["script"].startswith(f"{program} ") or name == "pages"
        assert not job.keys() & {"before_script", "after_script"}, name


def test_there_is_a_build_for_each_environment(jobs: dict[str, dict[str, Any]]) -> None:
    matrix = jobs["build"]["parallel"]["matrix"]
    assert matrix == [{"ENVIRONMENT": list(load_farm(ROOT / "farm.yaml").environments)}]
    assert "$ENVIRONMENT" in jobs["build"]["tags"]


def test_logs_and_verdict_are_kept_whatever_happens(
    pipeline: dict[str, Any], jobs: dict[str, dict[str, Any]]
) -> None:
    assert pipeline[".run"]["artifacts"]["when"] == "always"
    assert pipeline[".run"]["artifacts"]["paths"] == ["runs/"]
    for name in ("source", "inputs", "build", "compare"):
        assert ".run" in jobs[name]["extends"], name
        assert jobs[name].get("artifacts", {}).keys() <= {"reports"}, name


def test_the_pictures_of_a_proof_are_kept() -> None:
    artifacts = yaml.safe_load(FILE.read_text())["proof"]["artifacts"]
    assert (artifacts["when"], artifacts["paths"]) == ("always", [".cache/pictures/"])


def test_the_docker_executors_umask_is_switched_off(pipeline: dict[str, Any]) -> None:
    assert pipeline["variables"]["FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR"] == "true"


def test_keys_are_made_private_before_they_are_read(
    pipeline: dict[str, Any], tmp_path: Path
) -> None:
    """GitLab writes variables of type File with mode 0644 or 0666."""
    files = [tmp_path / name for name in ("alpha", "release", "passphrase", "renewal")]
    for file in files:
        file.touch()
        file.chmod(0o666)
    names = ("KEY_ALPHA", "RELEASE_KEY", "RELEASE_PASSPHRASE_FILE", "RENEWAL_KEY")
    env = {f"TWINBUILD_{n}": str(f) for n, f in zip(names, files, strict=True)}
    *version, script = pipeline[".keys"]["before_script"]
    assert version == pipeline["default"].get("before_script", [])
    subprocess.run(["sh", "-eu", "-c", script], env=env, check=True)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    for name in ("build", "release", "renewal"):
        assert ".keys" in pipeline[name]["extends"], name
