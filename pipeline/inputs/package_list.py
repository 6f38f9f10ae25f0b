# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of a build: one `Packages` file with exactly the locked packages.

Its paragraphs are made from the verified packages themselves, so that any machine with the lock and
the packages makes the same index, even if the archive's own indices are gone.
"""

from collections.abc import Iterable

from pipeline.base.errors import InputsUnverified
from pipeline.base.store import Store
from pipeline.documents.lock import Package, in_lock_order
from pipeline.inputs.deb_control import read_control
from pipeline.inputs.unpacked import Unreadable

# The fields that the index adds; fields of these names in the package itself are dropped.
ADDED = ("Filename", "Size", "SHA256")


def build_index(store: Store, packages: Iterable[Package]) -> bytes:
    """Return the index of `packages`, all of which are in the store; `Filename` is `pool/<file>`.

    Raise InputsUnverified if a package is not what the lock says it is.
    """
    ordered = in_lock_order(packages)
    return "\n".join(_paragraph(store, package) for package in ordered).encode()


def _paragraph(store: Store, package: Package) -> str:
    path = store.path(package.sha256)
    try:
        fields = read_control(path)
    except Unreadable as error:
        raise InputsUnverified(f"{package.file_name} cannot be read: {error}") from error
    stated = (fields.get("Package"), fields.get("Version"), fields.get("Architecture"))
    if stated != (package.name, package.version, package.architecture):
        raise InputsUnverified(f"{package.file_name} says that it is {stated}")
    for key in ADDED:
        fields.pop(key, None)
    fields["Filename"] = f"pool/{package.file_name}"
    fields["Size"] = str(package.size)
    fields["SHA256"] = package.sha256
    return str(fields.dump())
