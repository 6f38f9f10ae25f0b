# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of all unit tests."""

import pytest
from hypothesis import settings

# How long an example takes says more about a busy machine than about the code. The fuzzers of
# `tests/fuzz/` look for longer; here an example costs time in every run of the tests.
settings.register_profile("unit", deadline=None, max_examples=50)
settings.load_profile("unit")


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, and no passwords of a netrc."""
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")
