# SPDX-License-Identifier: GPL-3.0-or-later
"""An image's own packages never change once published: a change needs another version.

What was published is read from the releases themselves, each verified first.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from pipeline.base.errors import InputsUnverified
from pipeline.documents.artifact_names import deb_name
from pipeline.published.published import Location, OwnPackages

NOTHING: Mapping[str, str] = {}


def refuse_changed(
    location: Location,
    tag: str,
    local: Mapping[str, Any],
    files: Mapping[str, str] = NOTHING,
) -> None:
    """Raise InputsUnverified if a release other than `tag` has one of these with other content.

    `local` is the job's part about the image's own packages, `files` has the SHA-256 of those that
    are built, by name; before the build their sources stand for them. Raise what `Location.open`
    raises.
    """
    ours = _contents(local, files)
    for listed in location.releases():
        if listed.tag == tag:
            continue
        release = location.open(listed.tag)
        theirs = _contents(release.job.get("local") or {}, release.files)
        for name in sorted(ours.keys() & theirs.keys()):
            if ours[name] != theirs[name]:
                raise InputsUnverified(
                    f"{name} is published in {listed.tag} with other content",
                    remedy="raise the version in debian/changelog",
                )


def _contents(local: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of each source package, and of each package that is known already."""
    try:
        own = OwnPackages.model_validate(local)
    except ValidationError as error:
        raise InputsUnverified("what the job says of the image's packages is malformed") from error
    found = {f"the source {source.name} {source.version}": source.sha256 for source in own.sources}
    for package in own.packages:
        name = deb_name(package.name, package.version, package.architecture)
        if sha256 := package.sha256 or files.get(name):
            found[name] = sha256
    return found
