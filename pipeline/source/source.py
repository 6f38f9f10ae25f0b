# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage 1: from a commit-ish to an exported commit, `source.json` and `source.tar`."""

import difflib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.cache_folder import default_cache
from pipeline.base.errors import UsageError, command_line
from pipeline.base.files import put_in_place, sha256_bytes, write_json
from pipeline.base.git import OBJECT_ID, Repository, fetch, git, is_dirty, open_checkout, opened
from pipeline.documents.digest import sha256_file
from pipeline.documents.json_form import json_bytes
from pipeline.documents.source import EARLIEST, LATEST, Source, SourceTag
from pipeline.farm import policy as policies
from pipeline.farm import tag
from pipeline.farm.config import Farm
from pipeline.farm.policy import Policy
from pipeline.farm.run import Request, Run

EXPORT_S = 900.0
# A branch, tag or hash as git allows them, followed by steps to an ancestor.
COMMIT_ISH = re.compile(r"(?!-)(?!.*\.\.)(?!.*@\{)[^\s~^:?*\[\\]{1,250}(?:[~^][0-9]{0,6}){0,20}")
NAMES_LIMIT = 5000


@dataclass(frozen=True)
class ChosenCommit:
    """The one commit that a run builds, and the tag that vouches for it in a release."""

    ref: str
    commit: str
    version: str
    tag: tag.VerifiedTag | None

    @property
    def source_tag(self) -> SourceTag | None:
        """The tag in the form of `source.json`."""
        if self.tag is None:
            return None
        return SourceTag(self.tag.name, self.tag.object_id, self.tag.signer)


def run_source(
    run: Run,
    farm: Farm,
    checkout: Path,
    *,
    notify: Callable[[str], None],
    source: str | None = None,
) -> None:
    """Write `source.json` and `source.tar` of `run`, unless they are complete.

    `checkout` is the farm's own repository: it is built unless the run asks for another one, and
    the policy of its default branch decides which tags are released. `source` is the address of the
    other repository as it was typed, with the password that the run's documents do not keep. A run
    keeps the commit that it resolved first, even if the branch moves.

    Raise UsageError for a commit that cannot be found or built, SignatureInvalid for a release's
    tag that the farm does not trust, InfrastructureFailed if another repository cannot be fetched.
    """
    begin = time.monotonic()
    request = run.request()
    reads = {"the request": sha256_bytes(json_bytes(request.model_dump()))}
    with _policy(request, farm, checkout) as policy:
        if policy:
            reads["the policy"] = policy.digest
        reason = run.why_again("source", reads)
        if reason is None:
            notify("source: complete, nothing to do")
            return
        notify(f"source: {reason}")
        if request.source is None:
            repository = open_checkout(checkout)
        else:
            repository = fetch(source or request.source, default_cache() / "git")
        with opened(repository) as reader:
            chosen = _choose(repository, reader, request, policy, checkout)
            tree, epoch = _buildable(reader, chosen, request.image)
            _export(reader, chosen.commit, run.source_tar)
    dirty = _say_if_dirty(repository, chosen, notify)
    made = Source(
        repository=repository.name,
        ref=chosen.ref,
        commit=chosen.commit,
        tree=tree,
        epoch=epoch,
        version=chosen.version,
        tag=chosen.source_tag,
        dirty=dirty,
        tar_sha256=sha256_file(run.source_tar),
    )
    write_json(run.source_json, made.document())
    run.complete("source", reads, [run.source_json, run.source_tar], since=begin)
    notify(f"source: {chosen.version}, commit {chosen.commit[:12]} of {repository.name}")


@contextmanager
def _policy(request: Request, farm: Farm, checkout: Path) -> Iterator[Policy | None]:
    """Yield the policy for the requested tag; None if the run is not of a tag."""
    if request.tag is None:
        yield None
        return
    tag.check_name(request.tag)
    with policies.opened(farm, checkout) as policy:
        yield policy


def _say_if_dirty(
    repository: Repository, chosen: ChosenCommit, notify: Callable[[str], None]
) -> bool:
    """Tell whether the working tree has uncommitted changes, and report that they are not built."""
    dirty = is_dirty(repository)
    if dirty:
        notify(
            f"source: {repository.worktree} has changes that are not committed:"
            f" they are not built, the commit {chosen.commit[:12]} is"
        )
    return dirty


def _choose(
    repository: Repository, reader: Path, request: Request, policy: Policy | None, checkout: Path
) -> ChosenCommit:
    """Resolve the request to the commit that is built."""
    if request.tag is None or policy is None:
        return _commit(repository, reader, request.commit)
    if _resolve(reader, f"refs/tags/{request.tag}") is None:
        raise _unknown(repository, reader, "tag", request.tag, "refs/tags")
    verified = policies.verify(policy, checkout, repository, reader, request.tag)
    return ChosenCommit(request.tag, verified.commit, verified.name, verified)


def _commit(repository: Repository, reader: Path, ref: str) -> ChosenCommit:
    """Resolve a commit-ish; raise UsageError if it names no commit, or is ambiguous."""
    if not COMMIT_ISH.fullmatch(ref) or not ref.isprintable():
        raise UsageError(f"{ref!r} cannot name a commit", remedy="give a tag, branch or hash")
    here = re.sub(r"^(HEAD|@)(?![^~^])", repository.head, ref)
    commit = _resolve(reader, here + "^{commit}")
    if commit is None:
        raise _unknown(repository, reader, "commit", ref, "refs/tags", "refs/heads")
    tagged, branch = (_resolve(reader, f"refs/{k}/{ref}^{{commit}}") for k in ("tags", "heads"))
    if tagged and branch and tagged != branch:
        raise UsageError(f"{ref} is a tag and a branch", remedy=f"use tags/{ref} or heads/{ref}")
    name = re.sub(r"^(refs/)?tags/", "", ref)
    is_tag = tag.TAG_NAME.fullmatch(name) and _resolve(reader, f"refs/tags/{name}^{{commit}}")
    return ChosenCommit(ref, commit, name if is_tag == commit else f"0~{commit[:12]}", None)


def _resolve(reader: Path, expression: str) -> str | None:
    """Return the object id that `expression` names, or None."""
    argv = ("rev-parse", "--verify", "--quiet", "--end-of-options", expression)
    found = git(reader, *argv, accept=range(256))
    return found.text if found.status == 0 and OBJECT_ID.fullmatch(found.text) else None


def _unknown(repository: Repository, reader: Path, what: str, name: str, *below: str) -> UsageError:
    """Return the error for a name that the repository does not have, with similar names."""
    options = (f"--count={NAMES_LIMIT}", "--format=%(refname:lstrip=2)")
    listed = git(reader, "for-each-ref", *options, *below, accept=range(256))
    near = difflib.get_close_matches(name, listed.text.splitlines(), n=3, cutoff=0.5)
    if near:
        remedy = f"did you mean {' or '.join(near)}?"
    elif _resolve(reader, f"{repository.head}^{{commit}}") is None:
        remedy = "nothing is committed there yet: git commit"
    elif repository.layout.shallow:
        remedy = "its history is cut: git fetch --unshallow brings the rest"
    else:
        remedy = "git fetch --tags may bring it"
    return UsageError(f"{repository.name} has no {what} {name!r}", remedy=remedy)


def _buildable(reader: Path, chosen: ChosenCommit, image: str) -> tuple[str, int]:
    """Return the tree and the date of a commit; raise UsageError if it cannot be built."""
    shown = git(reader, "log", "-1", "--format=%T %ct", chosen.commit, failure=UsageError).text
    tree, _, seconds = shown.partition(" ")
    if not seconds.isdecimal() or not EARLIEST <= int(seconds) <= LATEST:
        raise UsageError(
            f"the commit {chosen.commit[:12]} has the impossible date {seconds[:20]!r}",
            remedy="an image can hold the years 1980 to 2105",
        )
    _check_files(reader, chosen, image)
    return tree, int(seconds)


def _check_files(reader: Path, chosen: ChosenCommit, image: str) -> None:
    """Raise UsageError for a commit with submodules, or without the image."""
    listed = git(reader, "ls-tree", "-r", "-z", "--full-tree", chosen.commit, failure=UsageError)
    paths = {}
    for line in listed.stdout.split(b"\0")[:-1]:
        meta, _, path = line.partition(b"\t")
        paths[os.fsdecode(path)] = meta.split()[0]
    submodules = sorted(path for path, mode in paths.items() if mode == b"160000")
    if submodules:
        raise UsageError(
            f"{chosen.ref} has the submodule {submodules[0]!r}: it would not be in the export",
            remedy="commit the files themselves",
        )
    if f"images/live/{image}/image.yaml" not in paths:
        images = [
            path.split("/")[2]
            for path in paths
            if re.fullmatch(r"images/live/[^/]+/image\.yaml", path)
        ]
        raise UsageError(
            f"{chosen.ref} has no image {image!r}",
            remedy=f"it has {', '.join(map(repr, sorted(images)))}: --image names one of them"
            if images
            else f"{command_line('new-image NAME')} makes one; then commit it",
        )


def _export(reader: Path, commit: str, path: Path) -> None:
    """Write the commit as a tar archive, whose bytes depend on the commit alone."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        git(reader, "archive", "--format=tar", commit, stdout_to=temporary, timeout_s=EXPORT_S)
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
