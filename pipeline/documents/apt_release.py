# SPDX-License-Identifier: GPL-3.0-or-later
"""The `Release` file of an apt archive without a signature: its packages were hashed before."""

from collections.abc import Mapping


def release_file(suite: str, architecture: str, indices: Mapping[str, tuple[str, int]]) -> str:
    """Return the file that names these indices: each path, its SHA-256 and its size in bytes.

    The paths begin with their component: `main/binary-amd64/Packages`.
    """
    components = dict.fromkeys(path.partition("/")[0] for path in indices)
    lines = [f" {sha256} {size} {path}\n" for path, (sha256, size) in indices.items()]
    return (
        f"Suite: {suite}\nCodename: {suite}\nArchitectures: {architecture}\n"
        f"Components: {' '.join(components)}\n"
        "Date: Thu, 01 Jan 1970 00:00:00 UTC\n"  # apt wants one; no clock is behind it
        f"SHA256:\n{''.join(lines)}"
    )
