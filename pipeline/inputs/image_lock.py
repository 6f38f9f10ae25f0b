# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes and checks the lock of an image, writes its tagged snapshot, and proves it from that.

The image is in a working tree, or in a tag of a repository; that repository is the farm's own
unless a `source` is named.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.base import git
from pipeline.base.errors import UsageError
from pipeline.documents.lock import Lock
from pipeline.farm.tag import check_name
from pipeline.farm.workspace import Workspace
from pipeline.inputs import locking
from pipeline.inputs.debian_source import Binary
from pipeline.inputs.lock_file import load
from pipeline.inputs.proof import Proof, prove
from pipeline.inputs.request import read_local_of, with_own_archives
from pipeline.inputs.snapshot import write_snapshot
from pipeline.inputs.source_files import take_out

Notify = Callable[[str], None]


def lock_image(
    workspace: Workspace, image: str, notify: Notify, *, tree: Path | None = None
) -> Path:
    """Write the lock of an image from today's archives; return its path.

    `tree` is the working tree of another repository that holds the image. Raise what
    `locking.make_lock` raises.
    """
    made = locking.make_lock(
        tree or workspace.checkout,
        image,
        workspace.farm,
        workspace.store,
        workspace.cache,
        workspace.builder / "package-lists",
        notify,
    )
    return locking.write_lock(tree or workspace.checkout, made)


def check_lock(
    workspace: Workspace, image: str, notify: Notify, *, tree: Path | None = None
) -> int:
    """Check that a lock is current and its packages are available; return their number.

    Raise what `locking.check_lock` raises.
    """
    checked = locking.check_lock(
        tree or workspace.checkout,
        image,
        workspace.farm,
        workspace.store,
        workspace.builder / "package-lists",
        notify,
    )
    return len(checked.packages)


def write_tagged_snapshot(
    workspace: Workspace, tag: str, image: str, *, source: str | None = None
) -> Path:
    """Write the snapshot of an image as it was tagged; return its folder.

    Raise UsageError if the tag does not hold the image with its lock.
    """
    lock = _tagged_lock(workspace, tag, image, source)
    with _tagged_tree(workspace, tag, image, source) as tree:
        farm = with_own_archives(tree, lock, workspace.farm)
        return write_snapshot(workspace.snapshots, tag, lock, farm, workspace.store)


def prove_tagged_lock(
    workspace: Workspace, tag: str, image: str, *, source: str | None = None
) -> Proof:
    """Prove from the tagged snapshot alone that the archives had what a tag's lock names.

    Raise UsageError if the tag does not hold the image with its lock, or has no snapshot;
    InputsUnverified if anything is missing from the snapshot or contradicts the lock.
    """
    lock = _tagged_lock(workspace, tag, image, source)
    with _tagged_tree(workspace, tag, image, source) as tree:
        farm = with_own_archives(tree, lock, workspace.farm)
        return prove(lock, workspace.snapshots / tag, farm.archives)


def own_packages(
    workspace: Workspace, image: str, *, tag: str | None = None, source: str | None = None
) -> tuple[Binary, ...]:
    """Return the packages that an image brings itself, in a tag or in a working tree.

    With a `tag`, `source` is the address of the repository that has it; without one, it is the
    working tree that holds the image. Raise UsageError if the tag does not hold the image.
    """
    if tag is None:
        tree = Path(source) if source else workspace.checkout
        return read_local_of(tree, image).binaries
    with _tagged_tree(workspace, tag, image, source) as tree:
        return read_local_of(tree, image).binaries


@contextmanager
def _tagged_tree(workspace: Workspace, tag: str, image: str, source: str | None) -> Iterator[Path]:
    """Yield a temporary folder with those files of a tagged image that decide its inputs."""
    path = f"images/live/{image}"
    archive = ("archive", "--format=tar", f"--prefix={path}/")
    with TemporaryDirectory(prefix="twinbuild-") as folder:
        exported = Path(folder, "image.tar")
        exported.write_bytes(_ask_tag(workspace, tag, path, source, archive))
        take_out(exported, image, Path(folder))
        yield Path(folder)


def _tagged_lock(workspace: Workspace, tag: str, image: str, source: str | None) -> Lock:
    path = f"images/live/{image}/lock"
    return load(_ask_tag(workspace, tag, path, source, ("cat-file", "blob")), image)


def _ask_tag(
    workspace: Workspace, tag: str, path: str, source: str | None, question: Sequence[str]
) -> bytes:
    """Return the output of the git command `question` for a path in a tag."""
    check_name(tag)
    repository = (
        git.fetch(source, workspace.cache / "git")
        if source
        else git.open_checkout(workspace.checkout)
    )
    with git.opened(repository) as reader:
        answer = git.git(reader, *question, f"refs/tags/{tag}:{path}", accept=range(256))
    if answer.status:
        remedy = "git tag lists the tags, and --image names an image of that one"
        raise UsageError(f"there is no {path} in a tag {tag!r}", remedy=remedy, detail=answer.tail)
    return answer.stdout
