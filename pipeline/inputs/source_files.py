"""The few files of the source that decide the inputs, taken out of `source.tar` with care.

Only plain files with the names below leave the archive, each as bytes under a size limit; links,
devices and paths that climb have no way out.
"""

import re
import tarfile
from pathlib import Path

from pipeline.errors import InputsUnverified, UsageError

MEMBERS = r"images/live/{image}/(?:lock|image\.yaml|(?:package-lists|preferences)/[\w.+-]+)"
BUILDER_MEMBERS = r"images/builder/package-lists/[\w.+-]+"
MEMBER_LIMIT = 64 * 1024 * 1024


def take_out(source_tar: Path, image: str, folder: Path) -> None:
    """Write what concerns the inputs of `image` from `source_tar` below `folder`.

    Raise UsageError if one of these is no plain file or absurdly large, InputsUnverified if the
    archive cannot be read.
    """
    wanted = re.compile(f"{MEMBERS.format(image=re.escape(image))}|{BUILDER_MEMBERS}")
    try:
        with tarfile.open(source_tar, "r|") as tar:
            for member in tar:
                if wanted.fullmatch(member.name):
                    _write(tar, member, folder / member.name)
    except (tarfile.TarError, EOFError) as error:
        raise InputsUnverified(f"{source_tar} cannot be read: {error}") from error


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    file = tar.extractfile(member) if member.isreg() and member.size <= MEMBER_LIMIT else None
    if file is None:
        raise UsageError(f"{member.name} is not a plain file of at most {MEMBER_LIMIT} bytes")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.read())
