import os
from pathlib import Path

import pytest

from pipeline.guest import protocol
from pipeline.guest.main import hand_over
from pipeline.guest.report import StepFailed


def test_an_output_disk_that_is_full_is_told(tmp_path: Path) -> None:
    (tmp_path / "timings.json").write_bytes(os.urandom(100_000))
    with pytest.raises(StepFailed, match="the output disk is too small or broken") as caught:
        hand_over(Path("/dev/full"), tmp_path, ["timings.json"])
    assert caught.value.status == protocol.STATUS_INFRASTRUCTURE
