# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that an image's own packages never change once published, except with a new version.

What has been published is read from the releases themselves, each verified first.
"""

from collections.abc import Mapping

from pipeline.base.errors import InputsUnverified
from pipeline.documents.job import Local
from pipeline.published.published import Location

NOTHING: Mapping[str, str] = {}


def refuse_changed(
    location: Location,
    tag: str,
    local: Local,
    files: Mapping[str, str] = NOTHING,
) -> None:
    """Raise InputsUnverified if another release than `tag` has one of these with other content.

    `local` is the job's part about the image's own packages. `files` has the SHA-256 of the built
    ones, by name; before the build, their sources are compared instead. Raise what `Location.open`
    raises.
    """
    ours = _contents(local, files)
    for listed in location.releases():
        if listed.tag == tag:
            continue
        release = location.open(listed.tag)
        theirs = _contents(release.job.own, release.files)
        for name in sorted(ours.keys() & theirs.keys()):
            if ours[name] != theirs[name]:
                raise InputsUnverified(
                    f"{name} is published in {listed.tag} with other content",
                    remedy="raise the version in debian/changelog",
                )


def _contents(local: Local, files: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of each source package, and of each binary package if known already."""
    found = {f"the source {one.name} {one.version}": one.sha256 for one in local.sources}
    for package in local.packages:
        if sha256 := package.sha256 or files.get(package.file_name):
            found[package.file_name] = sha256
    return found
