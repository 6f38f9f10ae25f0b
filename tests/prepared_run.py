# SPDX-License-Identifier: GPL-3.0-or-later
"""A farm of its own with a run whose source and inputs are complete, made without any archive."""

import io
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from pipeline.base.files import write_json
from pipeline.documents.digest import sha256_file
from pipeline.farm.run import Request, Run, create
from pipeline.farm.workspace import Workspace, open_workspace

ROOT = Path(__file__).parents[1]
IMAGE = b"description: A test\nsuite: trixie\nvolume_id: TEST\n"
SOURCE = {"images/live/mini/image.yaml": IMAGE, "images/live/mini/lock": b"Format: x\n"}


def make_farm(folder: Path) -> Workspace:
    """Make a checkout with the hosts and the builder of this one."""
    for name in ("hosts", "builder"):
        shutil.copytree(ROOT / "images" / name, folder / "images" / name)
    shutil.copy(ROOT / "farm.yaml", folder)
    return open_workspace(folder)


def make_run(
    workspace: Workspace, *, tag: str | None = None, source: Mapping[str, bytes] = SOURCE
) -> Run:
    """Make a run of an image without packages."""
    asked = {"tag": tag, "vary": "all"} if tag else {}
    request = Request(image="mini", commit="HEAD", environments=("alpha", "beta"), **asked)
    run = create(workspace.runs, request)
    with tarfile.open(run.source_tar, "w") as tar:
        for name, content in source.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    document = {
        "format": "twinbuild-source/1",
        "ref": "HEAD",
        "tree": "7" * 40,
        "dirty": False,
        "repository": "https://example.org/mini.git",
        "commit": "c0ffee" * 6 + "cafe",
        "epoch": 1_766_400_000,
        "version": "3.3",
        "tag": None,
        "tar_sha256": sha256_file(run.source_tar),
    }
    write_json(run.source_json, document)
    index = workspace.store.add_bytes(b"")
    inputs: dict[str, object] = {"format": "twinbuild-inputs/1", "image": "mini"}
    inputs |= {"lock_sha256": "0" * 64, "index_sha256": index, "snapshot": None}
    inputs |= {"packages": [], "kits": [], "local": None}
    write_json(run.inputs_json, inputs)
    return run
