# SPDX-License-Identifier: GPL-3.0-or-later
import gc
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.base.errors import ExitStatus, InfrastructureFailed
from pipeline.machines import engine

# The SDK leaves a socket that did not connect to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()  # its warnings belong to this test


def refused(address: str) -> None:
    with (
        pytest.raises(InfrastructureFailed, match="no Docker Engine answers") as caught,
        engine.connect(address),
    ):
        pytest.fail("it connected")
    assert caught.value.status == ExitStatus.INFRASTRUCTURE
    assert address in caught.value.what
    assert "farm.yaml" in caught.value.remedy


def test_no_engine_at_a_socket(tmp_path: Path) -> None:
    refused(f"unix://{tmp_path}/none.sock")


def test_no_engine_at_a_port() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused(f"tcp://127.0.0.1:{unused.getsockname()[1]}")


@pytest.mark.parametrize("address", ["nonsense://x", "http://[", "tcp://127.0.0.1:99999"])
def test_no_engine_at_what_is_no_address(address: str) -> None:
    refused(address)


def test_the_default_engine_may_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/none.sock")
    with pytest.raises(InfrastructureFailed, match="at the default address"), engine.connect(None):
        pytest.fail("it connected")
