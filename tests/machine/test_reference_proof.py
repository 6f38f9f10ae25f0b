# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole proof of the image `reference`: it is built twice, and its desktop is looked at.

It takes an hour and a half without KVM. `./farm test --level proof` runs it; no other level does.
The pictures of the screen stay in `.cache/pictures/`.
"""

import os
from pathlib import Path

import pytest

from pipeline import flow
from pipeline.base.errors import UsageError
from pipeline.base.files import read_json
from pipeline.farm.run import Request, Run
from pipeline.farm.workspace import Workspace
from pipeline.machines.boot import Firmware
from tests.machine.conftest import CHECKOUT, display
from tests.screen import Picture, booted

pytestmark = [pytest.mark.proof, pytest.mark.machine, pytest.mark.timeout(9000)]

IMAGE = "reference"
HEADER = (0x7A, 0x1F, 0xA2)  # of the website that the browser shows
PICTURES = CHECKOUT / ".cache" / "pictures"
BOOT_S = 1200.0


@pytest.fixture(scope="module")
def run(workspace: Workspace) -> Run:
    """The last commit, built in both environments with all that a release varies, from nothing."""
    request = Request(
        image=IMAGE,
        commit="HEAD",
        source=os.fspath(CHECKOUT),
        vary="all",
        environments=tuple(workspace.farm.environments),
    )
    made = flow.start(workspace, request)
    flow.build(workspace, made, display(), fresh=True)
    return made


def test_both_builds_are_the_same(run: Run) -> None:
    verdict = read_json(run.verdict_json, failure=UsageError)
    assert verdict["verdict"] == "match"
    assert {artifact["name"].rpartition(".")[2] for artifact in verdict["artifacts"]} >= {
        *("iso", "img", "packages", "partition", "gz")
    }


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_it_boots_to_a_browser_with_the_website(
    firmware: Firmware, run: Run, tmp_path: Path
) -> None:
    (iso,) = (run.environment("alpha") / "artifacts").glob("*.iso")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with booted(iso, tmp_path, firmware) as screen:
        found = screen.wait_until(shows_the_website, BOOT_S)
        screen.keep(PICTURES / f"{IMAGE}-{firmware}.png")
    assert found, f"see {PICTURES} and {tmp_path / 'console.log'}"


def shows_the_website(picture: Picture) -> bool:
    """Tell whether the header fills a band, as it does in the browser and nowhere else."""
    width, height, share = picture.filled(HEADER)
    return width >= 400 and height >= 30 and share >= 0.6
