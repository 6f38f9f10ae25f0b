# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error of all readers of documents."""


class Malformed(ValueError):
    """A document does not keep to its format; the message names the field."""
