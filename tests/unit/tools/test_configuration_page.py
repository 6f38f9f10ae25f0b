# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of all keys is the one that the models make."""

from tools.configuration_page import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run python3 -m tools.configuration_page"
