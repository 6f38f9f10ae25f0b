# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests of facts of the environments, recognised by computing them again."""

import hashlib
import re
from functools import lru_cache

from pipeline.documents.explanation import Cause
from pipeline.look.causes.facts import Facts, Pair
from pipeline.look.causes.spots import Spot

HEX = re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F][0-9a-fA-F-]{6,}[0-9a-fA-F](?![0-9A-Za-z])")
KINDS = ("md5", "sha1", "sha256", "sha512")
ENDS = ("", "\n")


def in_digests(spot: Spot, pair: Pair) -> Cause | None:
    """Find complete or shortened digests of a fact in which the environments differ."""
    words = [[word.replace("-", "").lower() for word in HEX.findall(text)] for text in spot.text]
    for left, right in zip(*words, strict=False):
        if left == right:
            continue
        for name, ours, theirs in _facts(*pair):
            for number, kind in enumerate(KINDS * len(ENDS)):
                if left in _digests(ours)[number] and right in _digests(theirs)[number]:
                    evidence = f"{left[:16]} and {right[:16]} are of the {kind} of"
                    return Cause(name, f"{evidence} {ours!r} in {pair[0].name} and {theirs!r}")
    return None


def _facts(left: Facts, right: Facts) -> list[tuple[str, str, str]]:
    both = (
        ("host-name", left.host_name, right.host_name),
        ("user", left.user, right.user),
        ("build-path", left.build_path, right.build_path),
        ("kernel", left.kernel, right.kernel),
        ("time-zone", left.time_zone, right.time_zone),
        ("locale", left.locale, right.locale),
        ("cpu-count", left.cpus, right.cpus),
    )
    return [(name, one, other) for name, one, other in both if one and other and one != other]


@lru_cache(maxsize=64)
def _digests(value: str) -> tuple[str, ...]:
    """Return the hexadecimal digests of a value: all KINDS without, then with a newline."""
    contents = [f"{value}{end}".encode(errors="replace") for end in ENDS]
    return tuple(
        hashlib.new(kind, content, usedforsecurity=False).hexdigest()
        for content in contents
        for kind in KINDS
    )
