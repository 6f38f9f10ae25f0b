# SPDX-License-Identifier: GPL-3.0-or-later
"""The locale of the environment: its data are made in the machine, and lent to programs in a tree.

Debian's C, C.UTF-8 and POSIX need no data. For any other locale the machine runs localedef(1) on
the sources in the builder's package `locales`. While a program runs in a tree, LOCPATH points to
the result at /run/locale; it never becomes part of the tree. With LOCPATH set, glibc does not read
a locale-archive, so the locales in the tree's own archive are made, too.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pipeline.documents.progress import STATUS_INFRASTRUCTURE
from pipeline.guest.serial_port import StepFailed

BUILT_IN = frozenset({"C", "C.UTF-8", "POSIX"})
DATA = Path("/usr/lib/locale")
SOURCES = Path("/usr/share/i18n/locales")
INSIDE = "/run/locale"  # in a tree
ARCHIVE = "usr/lib/locale/locale-archive"
NAME = re.compile(r"[a-z]{2,3}_[A-Z]{2}\.(?:UTF-8|utf8)")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
LIMIT_S = 600.0
NO_SOURCES = "none: the builder has no package locales"


def make(name: str) -> str:
    """Make the data of a locale, if it needs any; return a description of them, for the record.

    If the builder has no sources, none are made, and programs fall back to C. Raise StepFailed if
    localedef fails, or if the machine's own programs do not accept its output.
    """
    if name in BUILT_IN:
        return "built in"
    if not _has_sources(name):
        return NO_SOURCES
    _define(name)
    charmap = _run(["locale", "charmap"], {"LC_ALL": name}).strip()
    if charmap != "UTF-8":
        what = f"the machine cannot use its data of the locale {name}: it says {charmap}"
        raise StepFailed(STATUS_INFRASTRUCTURE, what)
    return _run(["localedef", "--version"], {}).partition("\n")[0]


def _define(name: str) -> None:
    language, _, codeset = name.partition(".")
    target = DATA / f"{language}.{codeset.lower().replace('-', '')}"
    if not target.is_dir():
        DATA.mkdir(exist_ok=True)
        _run(["localedef", "--no-archive", "-i", language, "-f", "UTF-8", f"{target}"], {})


def lent(tree: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a program in a tree, with LOCPATH if locale data are lent.

    Raise StepFailed if the data of a locale in the tree's own archive cannot be made.
    """
    if not are_lent(env.get("LC_ALL", "C")):
        return dict(env)
    for own in _own(tree):
        _define(own)
    return {**env, "LOCPATH": f"{DATA}:{INSIDE}"}


def are_lent(name: str) -> bool:
    """Tell whether programs in a tree are lent the data of a locale."""
    return name not in BUILT_IN and _has_sources(name)


def _own(tree: Path) -> list[str]:
    """Return the locales in a tree's own archive for which the machine has sources."""
    archive = tree / ARCHIVE
    if archive.is_symlink() or not archive.is_file():
        return []
    try:
        names = _run(["localedef", "--list-archive", f"{archive}"], {}).split()
    except StepFailed:
        return []  # an archive of another libc version, or a damaged one
    return [name for name in names if NAME.fullmatch(name) and _has_sources(name)]


def _has_sources(name: str) -> bool:
    return (SOURCES / name.partition(".")[0]).is_file()


def _run(argv: list[str], variables: Mapping[str, str]) -> str:
    done = subprocess.run(
        argv, capture_output=True, env={**ENVIRONMENT, **variables}, check=False, timeout=LIMIT_S
    )
    if done.returncode != 0:
        detail = (done.stdout + done.stderr).decode(errors="replace")
        what = f"{' '.join(argv[:4])} failed in the machine"
        raise StepFailed(STATUS_INFRASTRUCTURE, what, detail)
    return done.stdout.decode(errors="replace")
