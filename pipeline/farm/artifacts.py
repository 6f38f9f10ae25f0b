# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of a build's artifacts."""

import os
from pathlib import Path

from pipeline.base.errors import InfrastructureFailed
from pipeline.base.plain import plain

ARTIFACT_LIMIT = 1000


def list_artifacts(folder: Path) -> tuple[str, ...]:
    """Return the names in an artifacts folder, sorted.

    Raise InfrastructureFailed for anything in it that is not a plain file, and for an empty or
    missing folder: two builds without artifacts do not match.
    """
    names = []
    try:
        if folder.is_symlink():
            raise InfrastructureFailed(f"{folder} is a symbolic link")
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_file(follow_symlinks=False):
                    raise InfrastructureFailed(
                        f"the artifact {plain(entry.name)} in {folder} is not a plain file"
                    )
                names.append(entry.name)
                if len(names) > ARTIFACT_LIMIT:
                    raise InfrastructureFailed(f"{folder} has over {ARTIFACT_LIMIT} artifacts")
    except OSError as error:
        raise InfrastructureFailed(f"cannot read {folder}: {error.strerror}") from error
    if not names:
        raise InfrastructureFailed(f"there are no artifacts in {folder}")
    return tuple(sorted(names))
