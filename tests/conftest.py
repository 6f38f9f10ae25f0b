# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of all tests."""

import gc
import signal
from collections.abc import Iterator

import pytest

# A script's background job, and what it starts, ignores SIGINT; tests interrupt programs.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Let the garbage collector alone with the thousands of tests, which stay until the end.

    It took a third of the time of collecting them, and as much again in what tests parse.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
