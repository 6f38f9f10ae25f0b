# SPDX-License-Identifier: GPL-3.0-or-later
"""`twinbuild init`: a whole repository from nothing, again, and beside what somebody has."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

import tasks
from pipeline.base import places
from pipeline.base.display import Display
from pipeline.base.errors import UsageError
from pipeline.cli import begin, keys, parser
from pipeline.cli.new_image import new_image
from pipeline.cli.version import version
from pipeline.farm.config import Keys, load_image, parse_farm
from pipeline.farm.workspace import Workspace, open_workspace
from pipeline.inputs import image_lock
from tests.gpg_home import GpgHome, newcomers_home

ROOT = Path(__file__).parents[3]
CONTEXTS = {str(context.name): context for context in tasks.namespace.to_contexts()}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GpgHome]:
    """The gpg home of somebody who has nothing yet, on a machine without a network."""
    monkeypatch.setattr(image_lock, "lock_image", lock)
    with newcomers_home(tmp_path, monkeypatch) as made:
        yield made


def lock(workspace: Workspace, image: str, _notify: image_lock.Notify) -> Path:
    path = workspace.checkout / "images" / "live" / image / "lock"
    path.write_text("the packages of today\n")
    return path


def init(
    folder: Path, key: str | None = None, release: str | None = None
) -> tuple[keys.ToBackUp, list[str]]:
    output = StringIO()
    console = Console(file=output, soft_wrap=True)
    kept = begin.begin(folder, "kiosk", key, release, Display(console))
    return kept, output.getvalue().splitlines()


def snapshot(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Return all files, without git's own that a trial tag may touch."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.tools
def test_from_nothing_to_a_repository_and_again(home: GpgHome, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "kiosk"
    kept, _ = init(folder)
    farm = open_workspace(folder).farm
    assert farm.keys.release == kept.release == home.fingerprint("kiosk releases")
    assert set(farm.keys.environments) == set(farm.environments) == {"alpha", "beta"}
    assert (folder / "keys" / "release.asc").is_file()
    assert load_image(folder / "images/live/kiosk/image.yaml").volume_id == "KIOSK"
    names = [".git", ".gitignore", ".gitlab-ci.yml", "farm.yaml", "images", "keys"]
    names += ["requirements.txt", "tasks.py"]
    assert sorted(path.name for path in folder.iterdir()) == names
    before = snapshot(folder)
    again, shown = init(folder)
    assert (again, snapshot(folder)) == (kept, before)
    stays = [line for line in shown if line.endswith(": is there already, and stays")]
    assert len(stays) == len(begin.files("kiosk")) + 2


@pytest.mark.tools
def test_what_somebody_has_already_stays(home: GpgHome, tmp_path: Path) -> None:
    """Also where it is a symbolic link to nothing, and where the rest comes from."""
    texts = {"farm.yaml": (ROOT / "farm.yaml").read_text().replace("4096", "2048")}
    texts |= {"tasks.py": "", "images/live/kiosk/image.yaml": "mine\n"}
    for name, text in texts.items():
        (tmp_path / "farm" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "farm" / name).write_text(text)
    (tmp_path / "farm" / ".gitignore").symlink_to("nowhere")
    init(tmp_path / "farm", key="Kiosk <releases@example.org>")
    text = (tmp_path / "farm" / "farm.yaml").read_text()
    assert text.partition("keys:\n")[0] == texts.pop("farm.yaml").partition("keys:\n")[0]
    assert {name: (tmp_path / "farm" / name).read_text() for name in texts} == texts
    assert (tmp_path / "farm" / ".gitignore").is_symlink()
    assert not (tmp_path / "farm" / "nowhere").exists()
    assert home.fingerprint("Kiosk <releases@example.org>")


@pytest.mark.tools
def test_without_a_network_the_rest_is_made_and_the_next_time_ends_it(
    home: GpgHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any) -> Path:
        raise UsageError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(image_lock, "lock_image", offline)
        with pytest.raises(UsageError, match="no network"):
            init(tmp_path / "farm")
    kept, _ = init(tmp_path / "farm")
    assert home.fingerprint("kiosk releases") == kept.release
    assert (tmp_path / "farm/images/live/kiosk/lock").is_file()


@pytest.mark.tools
def test_a_folder_within_another_repository_is_refused(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    with pytest.raises(UsageError, match=f"is in the repository {tmp_path}; let --directory"):
        init(tmp_path / "inner")
    assert list((tmp_path / "inner").iterdir()) == []


def test_a_name_that_cannot_be_makes_nothing(tmp_path: Path) -> None:
    display = Display(Console(file=StringIO()))
    with pytest.raises(UsageError, match="cannot be the name of an image"):
        begin.begin(tmp_path / "farm", "../x", None, None, display)
    assert list(tmp_path.iterdir()) == []


def test_nobody_elses_keys_are_in_its_farm() -> None:
    """Twinbuild's own farm has keys once it is released; the rest of its file is kept."""
    own = (ROOT / "farm.yaml").read_text()
    pinned = own.replace("release: null", f"release: {'A' * 40}")
    pinned = pinned.replace("environments: {}", f"environments: {{alpha: {'b' * 64}}}")
    pinned = pinned.replace("signers: []", f"signers: [{'A' * 40}]")
    assert parse_farm(pinned.encode(), "pinned").keys.environments
    for text in (own, pinned):
        farm = parse_farm(begin.farm_text(text).encode(), "new")
        assert farm.keys == Keys()
        assert farm == parse_farm(own.encode(), "own").model_copy(update={"keys": farm.keys})


@pytest.fixture
def pipeline() -> dict[str, Any]:
    return dict(yaml.safe_load(begin.files("kiosk")[".gitlab-ci.yml"]))


def test_its_pipeline_is_twinbuilds_without_what_tests_twinbuild(pipeline: dict[str, Any]) -> None:
    own = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())
    assert set(own) - set(pipeline) == set(begin.OWN_JOBS)
    assert pipeline["variables"]["IMAGE"] == "kiosk"
    assert [stage for stage in own["stages"] if stage != "proof"] == pipeline["stages"]
    scripts = [j["script"] for n, j in pipeline.items() if isinstance(j, dict) and "script" in j]
    words = [re.sub(r'"\$\w+"', "x", script).split() for script in scripts if "twinbuild" in script]
    assert len(words) == 7
    for program, *call in words:
        assert program == "twinbuild"
        assert parser.parse(CONTEXTS, call)


@pytest.mark.tools
def test_its_pipeline_obeys_gitlabs_schema(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yml").write_text(begin.files("kiosk")[".gitlab-ci.yml"])
    program = Path(sys.executable).with_name("check-jsonschema")
    schema = ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
    argv = [str(program), *schema, "--regex-variant", "nonunicode", str(tmp_path / "pipeline.yml")]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("here", "status"), [(version(), 0), ("0.9.9", 2), (version()[:-1], 2), (version() + "1", 2)]
)
def test_a_job_refuses_another_version(
    here: str, status: int, tmp_path: Path, pipeline: dict[str, Any]
) -> None:
    """Every job has that line first, those with keys too."""
    (line,) = pipeline["default"]["before_script"]
    assert pipeline[".keys"]["before_script"][0] == line
    (tmp_path / "requirements.txt").write_text(begin.files("kiosk")["requirements.txt"])
    (tmp_path / "twinbuild").write_text(f"#!/bin/sh\necho twinbuild {here}\n")
    (tmp_path / "twinbuild").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=env, capture_output=True, check=False
    )
    assert done.returncode == status


def test_its_tasks_file_is_two_lines() -> None:
    assert begin.files("kiosk")["tasks.py"].count("\n") == 2


def test_an_image_begins_without_one_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Twinbuild's folder in a checkout; from the tar file of a wheel, it is the same."""
    from tools import wheel_backend

    first = new_image(tmp_path / "one" / "images", "kiosk")
    packed = tmp_path / "program" / "images" / "live" / "mini.tar"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(wheel_backend._pattern())
    monkeypatch.setattr(places, "PROGRAM", tmp_path / "program")
    second = new_image(tmp_path / "two" / "images", "kiosk")
    done = subprocess.run(["diff", "--no-dereference", "-r", first, second], check=False)
    assert done.returncode == 0
    link = "includes.chroot/etc/systemd/system/multi-user.target.wants/announce.service"
    assert (second / link).readlink() == (first / link).readlink()
    for image in (first, second):
        programs = [p.name for p in image.rglob("*") if p.is_file() and os.access(p, os.X_OK)]
        assert programs == ["announce"]
