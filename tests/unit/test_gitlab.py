"""What .gitlab-ci.yml says; tests/gitlab/ runs it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import load_farm

ROOT = Path(__file__).parents[2]
FILE = ROOT / ".gitlab-ci.yml"
KEYWORDS = {"workflow", "variables", "stages", "default"}


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


@pytest.fixture(scope="module")
def jobs(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {n: j for n, j in pipeline.items() if n not in KEYWORDS and not n.startswith(".")}


def check(file: Path) -> int:
    program = Path(sys.executable).with_name("check-jsonschema")
    schema = ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
    argv = [program, *schema, "--regex-variant", "nonunicode", file]
    return subprocess.run(argv, capture_output=True, check=False).returncode


def test_it_obeys_gitlabs_schema(tmp_path: Path) -> None:
    assert check(FILE) == 0
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(FILE.read_text().replace("resource_group:", "resource_groups:"))
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
    for name, job in jobs.items():
        assert "$POOL" in job.get("tags", pipeline["default"]["tags"]), name


def test_a_merge_request_may_be_interrupted_and_a_release_never(
    pipeline: dict[str, Any], jobs: dict[str, dict[str, Any]]
) -> None:
    assert pipeline["workflow"]["auto_cancel"] == {"on_new_commit": "interruptible"}
    assert pipeline["workflow"]["rules"][1]["auto_cancel"] == {"on_new_commit": "none"}
    assert pipeline["default"]["interruptible"] is True
    kept = {name for name, job in jobs.items() if job.get("interruptible") is False}
    only_on_tags = {n for n, j in jobs.items() if "$CI_COMMIT_TAG" in str(j.get("rules"))}
    assert kept == only_on_tags == {"release", "pages"}
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


def test_no_job_has_logic(jobs: dict[str, dict[str, Any]]) -> None:
    for name, job in jobs.items():
        assert isinstance(job["script"], str), name
        assert "\n" not in job["script"], name
        assert job["script"].startswith("./farm ") or name == "pages"
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


def test_the_pictures_of_a_proof_are_kept(jobs: dict[str, dict[str, Any]]) -> None:
    artifacts = jobs["proof"]["artifacts"]
    assert (artifacts["when"], artifacts["paths"]) == ("always", [".cache/pictures/"])


def test_the_docker_executors_umask_is_switched_off(pipeline: dict[str, Any]) -> None:
    assert pipeline["variables"]["FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR"] == "true"


def test_keys_are_made_private_before_they_are_read(
    pipeline: dict[str, Any], tmp_path: Path
) -> None:
    """GitLab writes variables of type File with mode 0644 or 0666."""
    files = [tmp_path / name for name in ("alpha", "release", "passphrase")]
    for file in files:
        file.touch()
        file.chmod(0o666)
    names = ("KEY_ALPHA", "RELEASE_KEY", "RELEASE_PASSPHRASE_FILE")
    env = {f"TWINBUILD_{n}": str(f) for n, f in zip(names, files, strict=True)}
    (script,) = pipeline[".keys"]["before_script"]
    subprocess.run(["sh", "-eu", "-c", script], env=env, check=True)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    for name in ("build", "release"):
        assert ".keys" in pipeline[name]["extends"], name
