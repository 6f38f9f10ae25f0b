# SPDX-License-Identifier: GPL-3.0-or-later
"""The image's `squashfs.sort`: the files that come first in the SquashFS, as a boot reads them.

A line is a path from the root and a priority, as for `mksquashfs -sort`: the highest comes first,
and files that are not listed have 0. White space, quotes and backslashes in a path are escaped by a
backslash.
"""

import os
import re
from collections.abc import Mapping

from pipeline.documents.image_folder import PRIORITIES, SORT_FILE, sort_line
from pipeline.documents.progress import STATUS_BUILD_FAILED
from pipeline.guest.job import GuestJob
from pipeline.guest.serial_port import Report, StepFailed

LINE = re.compile(r'[ \t]*((?:[^\s"\\]|\\.)+)[ \t]+(-?[0-9]{1,5})[ \t]*', re.DOTALL)


def options(job: GuestJob, report: Report) -> list[str]:
    """Return mksquashfs's options for the order of files; none if the image has no such file.

    A path that is not in the tree is logged, as it may be obsolete. Raise StepFailed for a
    malformed line.
    """
    name, lines = f"images/live/{job.image_folder.name}/{SORT_FILE}", read(job)
    if not lines:
        return []
    present = {path: n for path, n in lines.items() if os.path.lexists(job.tree / path)}
    for path in lines:
        if path not in present:
            report.log(f"{name}: {path!a} is not in the tree")
    report.log(f"{name}: {len(present)} of {len(lines)} paths are in the tree")
    # Written again in one form, so that mksquashfs reads each line as we did.
    sort_file = job.work / SORT_FILE
    text = "".join(sort_line(*line) for line in present.items())
    sort_file.write_bytes(text.encode("utf-8", "surrogateescape"))
    return ["-sort", os.fspath(sort_file)]


def read(job: GuestJob) -> Mapping[str, int]:
    """Return the priorities in the image's `squashfs.sort`, none if it has no such file."""
    listed = job.image_folder / SORT_FILE
    if not listed.is_file():
        return {}
    text = listed.read_bytes().decode("utf-8", "surrogateescape")
    return parse(text, f"images/live/{job.image_folder.name}/{SORT_FILE}")


def parse(text: str, name: str) -> Mapping[str, int]:
    """Return the priorities by path; errors name the file as `name`, and the line."""
    priorities: dict[str, int] = {}
    least, most = PRIORITIES[0], PRIORITIES[-1]
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = LINE.fullmatch(line)
        path = re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL) if found else ""
        why = ""
        if not found:
            why = "give a path and a number, with a backslash before spaces in the path"
        elif {"", ".", ".."} & set(path.split("/")):
            why = "give the path from the root, as usr/bin/env"
        elif int(found[2]) not in PRIORITIES:
            why = f"a priority is from {least} to {most}"
        elif path in priorities:
            why = "this path is there before"
        if why or not found:
            what = f"{name}:{number}: {line!a} orders nothing: {why}"
            raise StepFailed(STATUS_BUILD_FAILED, what)
        priorities[path] = int(found[2])
    return priorities
