# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes Twinbuild's wheel and source archive, with Python's standard library alone.

This is a build backend according to PEP 517: pip finds it through `pyproject.toml` and calls
`build_wheel`. The wheel has all of Twinbuild in one folder, `twinbuild/`, laid out as in a
checkout. The bytes depend on the checkout and on SOURCE_DATE_EPOCH, the time of all files, which
defaults to 1980-01-01. Nothing is compressed, so the version of zlib does not matter.
`docs/decisions/0015-wheel.md` explains why.
"""

import base64
import gzip
import hashlib
import io
import os
import stat
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# What the installed program needs; `tasks.py`, the tests and most pages are left out.
CARRIED = (
    ".gitlab-ci.yml",
    "docs/causes.md",
    "farm.yaml",
    "hooks",
    "images/builder",
    "images/hosts",
    "pipeline",
    "tools",
    "verify.py",
)
PATTERN = "images/live/mini"  # as a tar file, since it has a symbolic link and a wheel cannot
PACKAGE = "tools/installed.py"  # becomes `twinbuild/__init__.py`
MANUAL = "docs/reference/twinbuild.1"
NEEDED = (
    "LICENSE",
    "README.md",
    "pyproject.toml",
    MANUAL,
)  # to make the wheel, besides what it carries
ZIP_EPOCH = 315532800  # 1980-01-01, the earliest time in a zip file
WHEEL = "Wheel-Version: 1.0\nGenerator: twinbuild\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

Settings = dict[str, Any] | None


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Write the wheel to a folder; return its name."""
    project = _project()
    stem = f"{project['name']}-{project['version']}"
    info = f"{stem}.dist-info"
    name = f"{stem}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(Path(wheel_directory, name), "w") as archive:
        for path, content, executable in [*_program(), *_manual(stem), *_about(project, info)]:
            _add(archive, path, content, executable=executable)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            record.append(f"{path},sha256={digest},{len(content)}\n")
        record.append(f"{info}/RECORD,,\n")
        _add(archive, f"{info}/RECORD", "".join(record).encode())
    return name


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """Write the source archive, a tar file of what the wheel is made from; return its name."""
    project = _project()
    stem = f"{project['name']}-{project['version']}"
    with (
        Path(sdist_directory, f"{stem}.tar.gz").open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=_epoch()) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in _files((*CARRIED, PATTERN, *NEEDED)):
            archive.addfile(*_member(path, f"{stem}/{path.relative_to(ROOT).as_posix()}"))
        about = _metadata(project)
        header = _header(f"{stem}/PKG-INFO", 0o644)
        header.size = len(about)
        archive.addfile(header, io.BytesIO(about))
    return f"{stem}.tar.gz"


def _project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def _epoch() -> int:
    return max(int(os.environ.get("SOURCE_DATE_EPOCH") or 0), ZIP_EPOCH)


def _files(names: Iterable[str]) -> list[Path]:
    """Return all files and symbolic links, sorted, without those that Python and editors leave."""
    found = []
    for path in (ROOT / name for name in names):
        found += [path] if path.is_file() else [p for p in path.rglob("*") if not _is_folder(p)]
    left = (path for path in found if "__pycache__" not in path.parts)
    return sorted(path for path in left if not path.name.endswith((".pyc", "~", ".swp")))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _program() -> Iterator[tuple[str, bytes, bool]]:
    """Yield the path in the wheel, the content and whether it is executable, for each carried file.

    Raise ValueError for a symbolic link, as a wheel cannot have one.
    """
    yield "twinbuild/__init__.py", (ROOT / PACKAGE).read_bytes(), False
    for path in _files(CARRIED):
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link, and a wheel can have none")
        name = f"twinbuild/{path.relative_to(ROOT).as_posix()}"
        yield name, path.read_bytes(), os.access(path, os.X_OK)
    yield f"twinbuild/{PATTERN}.tar", _pattern(), False


def _manual(stem: str) -> Iterator[tuple[str, bytes, bool]]:
    """Yield the manual page, which is installed to the environment's `share/man`."""
    yield (
        f"{stem}.data/data/share/man/man1/{Path(MANUAL).name}",
        (ROOT / MANUAL).read_bytes(),
        False,
    )


def _pattern() -> bytes:
    """Return the template of new images as a tar file, without the lock: each gets its own."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in _files([PATTERN]):
            if path.name == "lock":
                continue
            archive.addfile(*_member(path, path.relative_to(ROOT / PATTERN).as_posix()))
    return written.getvalue()


def _member(path: Path, name: str) -> tuple[tarfile.TarInfo, io.BytesIO | None]:
    """Return a file or symbolic link as a member of a tar file."""
    header = _header(name, 0o755 if os.access(path, os.X_OK) else 0o644)
    if path.is_symlink():
        header.type, header.mode = tarfile.SYMTYPE, 0o777
        header.linkname = os.fspath(path.readlink())
        return header, None
    content = path.read_bytes()
    header.size = len(content)
    return header, io.BytesIO(content)


def _header(name: str, mode: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.mode, header.mtime = mode, _epoch()
    return header


def _about(project: dict[str, Any], info: str) -> Iterator[tuple[str, bytes, bool]]:
    """Yield the files of the wheel's `.dist-info`, as the specification requires."""
    scripts = "".join(f"{name} = {what}\n" for name, what in project["scripts"].items())
    yield f"{info}/METADATA", _metadata(project), False
    yield f"{info}/WHEEL", WHEEL.encode(), False
    yield f"{info}/entry_points.txt", f"[console_scripts]\n{scripts}".encode(), False
    for name in project["license-files"]:
        yield f"{info}/licenses/{name}", (ROOT / name).read_bytes(), False


def _metadata(project: dict[str, Any]) -> bytes:
    """Return the core metadata, version 2.4: the fields of `pyproject.toml`, then the README."""
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        *(f"License-File: {name}" for name in project["license-files"]),
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {requirement}" for requirement in project["dependencies"]),
        "Description-Content-Type: text/markdown",
    ]
    return "\n".join([*lines, "", (ROOT / project["readme"]).read_text()]).encode()


def _add(archive: zipfile.ZipFile, path: str, content: bytes, *, executable: bool = False) -> None:
    entry = zipfile.ZipInfo(path, time.gmtime(_epoch())[:6])
    entry.create_system = 3  # Unix, so that the mode is used
    entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
    archive.writestr(entry, content)
