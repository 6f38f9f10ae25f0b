# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line as people and pipelines see it: one line, and the exit status of the design."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

import tasks
import verify
from pipeline import flow
from pipeline.base import places
from pipeline.base.errors import MEANINGS, ExitStatus, TwinbuildError, UsageError
from pipeline.cli import image_tasks, parser, release_tasks, stage_tasks
from pipeline.cli.task import farm_task
from pipeline.farm.run import Request
from pipeline.farm.workspace import Workspace

ROOT = Path(__file__).parents[3]
ERRORS = [kind for kind in TwinbuildError.__subclasses__() if hasattr(kind, "status")]


CONTEXTS = {str(context.name): context for context in tasks.namespace.to_contexts()}
Typed = Callable[..., tuple[int, str]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type a command line in a folder; return its status and what it writes to standard error."""

    def typed(*words: str, cwd: Path) -> tuple[int, str]:
        monkeypatch.chdir(cwd)
        return parser.main(tasks.namespace, words), capsys.readouterr().err

    return typed


def test_every_task_explains_itself() -> None:
    for name in tasks.namespace.task_names:
        assert tasks.namespace[name].__doc__, name


def test_every_task_lists_its_exit_statuses() -> None:
    for name in tasks.namespace.task_names:
        assert "Exit status:" in str(tasks.namespace[name].__doc__), name


def test_the_help_has_the_meanings_of_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "exit-status.md").read_text()
    for status in ExitStatus:
        assert f"| {int(status)} | {MEANINGS[status]}" in page
    shown = parser.task_help(tasks.namespace, CONTEXTS["locate"])
    assert "  1  the builds, or the files and the manifest, differ\n" in shown
    assert "  6  " not in shown


def test_an_unknown_run_is_wrong_usage_in_one_line() -> None:
    argv = [sys.executable, "-m", "invoke", "--search-root", str(ROOT), "show", "--run=nonsense"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == ExitStatus.USAGE
    assert done.stderr.count("\n") == 1
    assert "there is no run 'nonsense'; ./farm runs lists them" in done.stderr


def test_an_environment_that_is_not_there_is_wrong_usage(typed: Typed, tmp_path: Path) -> None:
    status, output = typed("build", "--environment=gamma", cwd=tmp_path)
    assert status == ExitStatus.USAGE
    assert "there is no environment 'gamma'; farm.yaml has alpha, beta" in output


@pytest.mark.parametrize("kind", ERRORS)
def test_each_error_has_its_status(kind: type[TwinbuildError]) -> None:
    @farm_task()
    def fails(_c: Context) -> None:
        raise kind("it broke", remedy="mend it", detail="the log's last lines")

    with pytest.raises(Exit) as caught:
        fails(Context())
    assert caught.value.code == kind.status
    assert str(caught.value) == "the log's last lines\ntwinbuild: it broke; mend it"


@pytest.mark.parametrize(
    ("typed", "means"),
    [
        ("../kiosk", "kiosk"),
        ("../farm/../kiosk/", "kiosk"),
        ("~/kiosk", "kiosk"),
        ("https://example.org/kiosk.git", None),
        ("git@example.org:kiosk.git", None),
        ("../nothing", None),
    ],
)
def test_a_folder_given_as_source_is_one_wherever_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, means: str | None
) -> None:
    for name in ("farm", "kiosk"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "farm")
    monkeypatch.setenv("HOME", str(tmp_path))
    given = []

    @farm_task()
    def builds(_c: Context, source: str | None = None) -> None:
        given.append(source)

    builds(Context(), source=typed)
    builds(Context(), source=None)
    assert given == [str(tmp_path / means) if means else typed, None]


def test_a_relative_source_is_locked_and_snapshotted_alike(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find the repository, and that it has no such tag."""
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "cache"))
    kiosk = tmp_path / "kiosk"
    subprocess.run(["git", "init", "--quiet", kiosk], check=True)
    (tmp_path / "here").mkdir()
    for arguments in (("snapshot", "--tag=3.3"), ("lock", "--check", "--tag=3.3")):
        status, output = typed(*arguments, "--source=../kiosk", cwd=tmp_path / "here")
        assert status == ExitStatus.USAGE, output
        assert "git repository" not in output


def test_a_full_disk_is_the_infrastructures_fault() -> None:
    @farm_task()
    def fills(_c: Context) -> None:
        with open("/dev/full", "wb", buffering=0) as file:  # noqa: PTH123
            file.write(b"x")

    with pytest.raises(Exit) as caught:
        fills(Context())
    assert caught.value.code == ExitStatus.INFRASTRUCTURE
    assert "No space left on device" in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well(number: signal.Signals) -> None:
    @farm_task()
    def waits(_c: Context) -> None:
        os.kill(os.getpid(), number)

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    try:
        with pytest.raises(Exit) as caught:
            waits(Context())
    finally:
        for n, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(n, handler)
    assert caught.value.code == 130


def test_a_background_job_can_be_ended() -> None:
    @farm_task()
    def waits(_c: Context) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for `invoke … &` in a script
    try:
        with pytest.raises(Exit) as caught:
            waits(Context())
    finally:
        for n, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(n, handler)
    assert caught.value.code == 130


@pytest.mark.parametrize(
    "words",
    [
        "build --image nope",
        "build --commit nope",
        "build --source nowhere",
        "stage.source --image nope",
        "stage.source --tag 9.9",
    ],
)
def test_a_usage_error_leaves_no_run(
    words: str, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a farm of its own, whose repository holds an image without a lock."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    monkeypatch.setattr(places, "farm", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TWINBUILD_CACHE", str(tmp_path / "cache"))
    shutil.copy(ROOT / "farm.yaml", tmp_path)
    shutil.copytree(ROOT / "images" / "hosts", tmp_path / "images" / "hosts")
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "images", "farm.yaml"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "begin"], check=True)
    status, output = typed(*words.split(), cwd=tmp_path)
    assert status == ExitStatus.USAGE, output
    assert list((tmp_path / "runs").glob("*")) == []


def test_verify_passes_on_whatever_verify_py_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    (context,) = [c for c in tasks.namespace.to_contexts() if c.name == "verify"]
    known = {option for option in verify._parser()._option_string_actions if option[:2] == "--"}
    assert {option for option in context.flags if option[:2] == "--"} == known - {"--help"}
    key = "alpha=" + "0" * 64
    words = ["--url", "https://example.org", "--tag", "3.3", "--keyring", "KEY.asc", "--all"]
    words += ["--fingerprint", "A" * 40, "--repository", "https://example.org/a b.git"]
    words += ["--image", "mini", "--file", "a.iso", "--file", "b c.iso", "--download", "x"]
    words += ["--directory", "there", "--environment-key", key, "--timeout", "7", "--json"]
    passed: list[list[str]] = []

    def differs(argv: list[str]) -> int:
        passed.append(argv)
        return 1

    monkeypatch.setattr(verify, "main", differs)
    assert parser.main(tasks.namespace, ["verify", *words]) == 1
    assert verify.parse(passed[0]) == verify.parse(words)


def test_verify_trusts_the_key_that_the_checkout_pins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lists: dict[str, list[str]] = {"file": [], "download": [], "environment_key": []}
    arguments: dict[str, Any] = {"url": tmp_path.as_uri(), "tag": "3.3", **lists}
    monkeypatch.setattr(release_tasks, "pinned_key", lambda: tmp_path / "release.asc")
    with pytest.raises(Exit) as caught:
        release_tasks.verify(Context(), **arguments)
    assert caught.value.code == ExitStatus.SIGNATURE
    assert "no keyring" in capsys.readouterr().out
    (tmp_path / "release.asc").write_text("no key at all")
    with pytest.raises(Exit) as caught:
        release_tasks.verify(Context(), **arguments)
    assert caught.value.code != ExitStatus.DONE
    assert "release.asc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "options", "vary"),
    [
        (release_tasks.release, {"tag": "3.3"}, "all"),
        (stage_tasks.source, {"tag": "3.3"}, "all"),
        (stage_tasks.source, {}, "default"),
        (image_tasks.build, {}, "default"),
        (image_tasks.build, {"vary": "none"}, "none"),
    ],
)
def test_a_release_varies_all_that_can_be(
    task: Any, options: dict[str, str], vary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []

    def start(_: Workspace, request: Request) -> None:
        asked.append(request)
        raise UsageError("seen")

    monkeypatch.setattr(flow, "start", start)
    monkeypatch.setattr(flow, "check_release", lambda *_, **__: None)
    with pytest.raises(Exit, match="seen"):
        task(Context(), **options)
    assert [(request.vary, request.tag) for request in asked] == [(vary, options.get("tag"))]


def test_a_level_that_is_not_there_is_wrong_usage(typed: Typed) -> None:
    status, output = typed("build", "--vary=everything", cwd=ROOT)
    assert status == ExitStatus.USAGE
    assert "vary: Input should be 'none', 'default' or 'all'" in output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["keygen", "--environment=gamma"], "has no environment 'gamma'; it has alpha, beta"),
        (["keys", "--release=ABCD"], "a key id is not enough"),
    ],
)
def test_keys_are_made_only_for_what_there_is(
    arguments: list[str],
    error: str,
    typed: Typed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    status, output = typed(*arguments, cwd=ROOT)
    assert status == ExitStatus.USAGE
    assert error in output
    assert list(tmp_path.iterdir()) == []
