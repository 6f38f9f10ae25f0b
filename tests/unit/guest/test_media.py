import os
import re
from pathlib import Path

import pytest

from pipeline.guest import media, protocol
from pipeline.guest.main import hand_over
from pipeline.guest.report import StepFailed


def menu(version: str, parameters: str = "") -> str:
    return media.GRUB_CFG.format(title=f"mini {version}", parameters=parameters)


@pytest.mark.parametrize("version", ["3.3", "0~abcdef123456", "3.3-rc1+really_3"])
def test_the_menu_boots_the_live_system(version: str) -> None:
    shown = menu(version, " quiet splash")
    assert f'menuentry "mini {version}" {{' in shown
    assert re.search(r"^    linux /live/vmlinuz boot=live .* quiet splash$", shown, re.MULTILINE)
    assert "{{" not in shown
    assert "ttyS0,115200" in shown


def test_modes_on_the_medium_do_not_show_the_umask(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "folder/file").write_text("x")
    (tmp_path / "folder/file").chmod(0o4751)
    (tmp_path / "link").symlink_to("/nowhere")
    media._settle_modes(tmp_path)
    found = {p.name: p.stat().st_mode & 0o7777 for p in (tmp_path, *tmp_path.glob("*/*"))}
    assert found == {tmp_path.name: 0o755, "file": 0o644}
    assert (tmp_path / "folder").stat().st_mode & 0o7777 == 0o755


def test_an_output_disk_that_is_full_is_told(tmp_path: Path) -> None:
    (tmp_path / "timings.json").write_bytes(os.urandom(100_000))
    with pytest.raises(StepFailed, match="the output disk is too small or broken") as caught:
        hand_over(Path("/dev/full"), tmp_path, ["timings.json"])
    assert caught.value.status == protocol.STATUS_INFRASTRUCTURE
