# SPDX-License-Identifier: GPL-3.0-or-later
import pytest

from pipeline.cli import doctor


@pytest.mark.container
def test_the_engine_here_says_its_version() -> None:
    assert doctor.engine_version(None).startswith("Docker Engine ")
