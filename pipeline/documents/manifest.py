# SPDX-License-Identifier: GPL-3.0-or-later
"""`SHA256SUMS`, the manifest of a release: the SHA-256 of each of its files.

It has the form of sha256sum, so that `sha256sum -c` does as well: digest, two spaces, path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.documents.malformed import Malformed

NAMES_LIMIT = 10_000
PART = r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}"
NAME = re.compile(rf"{PART}(?:/{PART}){{0,3}}")
MANIFEST_LINE = re.compile(rf"([0-9a-f]{{64}})  ({NAME.pattern})")


@dataclass(frozen=True)
class Manifest:
    """The digests of a release's files, by their paths in it."""

    digests: Mapping[str, str]

    @classmethod
    def of(cls, content: bytes) -> Manifest:
        """Read a SHA256SUMS; raise Malformed if one line is not as expected, or names one twice."""
        digests: dict[str, str] = {}
        lines = content.decode("ascii", "replace").split("\n")
        if lines.pop() or not 0 < len(lines) <= NAMES_LIMIT:
            raise Malformed("the manifest is empty, too long or cut off")
        for line in lines:
            match = MANIFEST_LINE.fullmatch(line)
            if not match or match[2] in digests:
                raise Malformed(f"the manifest has a bad line: {line[:100]!r}")
            digests[match[2]] = match[1]
        return cls(digests)

    def content(self) -> bytes:
        """Return it as it is written and signed: sorted by path."""
        return "".join(f"{self.digests[name]}  {name}\n" for name in sorted(self.digests)).encode()
