# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy for releases: the default branch decides, never the tag that is to be released.

A tag has a tree of its own, and with it a `farm.yaml` and keys: whoever may push a tag could remove
the need for a signature there. So the policy is that of the farm's default branch on its server, or
that of `TWINBUILD_POLICY`, set by the runner or a protected variable. The `farm.yaml` of the tag's
tree and of the checkout can make it stricter, but never laxer. In addition, the tagged commit must
be on the default branch.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.base import git, server
from pipeline.base.cache_folder import default_cache
from pipeline.base.errors import SignatureInvalid, UsageError
from pipeline.base.files import sha256_bytes
from pipeline.base.git import OBJECT_ID, Repository
from pipeline.base.yaml_reader import SIZE_LIMIT
from pipeline.documents.json_form import json_bytes
from pipeline.farm import tag
from pipeline.farm.config import Farm, Keys, Rules, TagPolicy, parse_rules
from pipeline.farm.tag import VerifiedTag

VARIABLE = "TWINBUILD_POLICY"  # a folder with farm.yaml and keys/*.asc, or such a farm.yaml
KEY_LIMIT = 1024 * 1024
KEYS_LIMIT = 200


@dataclass(frozen=True)
class Policy:
    """The rules for a release, and where they come from."""

    farm: Farm  # the farm in use, with the policy's keys and places of publication
    keys: Path  # a folder whose *.asc are the public keys of those who may sign a tag
    where: str
    served: Repository | None  # the farm's repository on its server, if that was asked

    def in_force(self, here: Farm) -> str:
        """Tell where the policy is from, and whether the checkout's `farm.yaml` differs from it."""
        if _rules(here) == _rules(self.farm):
            return f"{self.where} decides what may be released, and farm.yaml here agrees"
        differs = "farm.yaml here differs, and where it is laxer it does not count"
        return f"{self.where} decides what may be released; {differs}"

    @property
    def digest(self) -> str:
        """The SHA-256 of the whole policy; if it changes, stages that read it must run again."""
        keys = {path.name: sha256_bytes(path.read_bytes()) for path in self.keys.glob("*.asc")}
        rules = _rules(self.farm).model_dump()
        return sha256_bytes(json_bytes({"rules": rules, "keys": keys}))


@contextmanager
def judged(
    farm: Farm, checkout: Path, name: str, *, source: str | None = None
) -> Iterator[tuple[VerifiedTag, Policy]]:
    """Read the policy and verify the tag `name`; yield the tag and the policy that it satisfies.

    `farm` is that of `checkout`, the farm's own repository; `source` is the address of another
    repository if that has the tag. The policy's folder of keys exists until the block ends. Raise
    what `opened` and `verify` raise.
    """
    with opened(farm, checkout) as policy:
        if source:
            repository = git.fetch(source, default_cache() / "git")
        else:
            repository = git.open_checkout(checkout)
        with git.opened(repository) as reader:
            verified = verify(policy, checkout, repository, reader, name)
        yield verified, policy


@contextmanager
def opened(farm: Farm, checkout: Path) -> Iterator[Policy]:
    """Read the policy of the farm whose own repository is `checkout`.

    Raise SignatureInvalid if there is none, InfrastructureFailed if the server cannot be reached,
    UsageError if it is malformed.
    """
    with tempfile.TemporaryDirectory(prefix="twinbuild-policy-") as name:
        rules, where, served = _read(checkout, Path(name))
        rules = tighten(rules, _rules(farm))
        parts = {part: getattr(rules, part) for part in Rules.model_fields}
        yield Policy(farm.model_copy(update=parts), Path(name), where, served)


def verify(
    policy: Policy, checkout: Path, repository: Repository, reader: Path, name: str
) -> VerifiedTag:
    """Return the tag `name`, verified: annotated, signed as the policy requires, commit merged.

    `reader` is the neutral repository of `repository`, which is that of `checkout` or another.
    Raise SignatureInvalid if it does not verify, UsageError if there is no such tag.
    """
    tag.check_name(name)
    argv = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"refs/tags/{name}")
    found = git.git(reader, *argv, accept=range(256))
    if found.status or not OBJECT_ID.fullmatch(found.text):
        raise UsageError(f"{repository.name} has no tag {name!r}", remedy="git fetch --tags")
    rules, served = _rules(policy.farm), None
    if repository.worktree == checkout.resolve():  # the tag has a farm.yaml, too
        rules, served = tighten(rules, _of_tag(reader, name)), policy.served
    try:
        verified = tag.verify(reader, found.text, name, rules.keys.tags, policy.keys)
    except SignatureInvalid as error:
        what = error.what.replace(os.fspath(policy.keys), "keys")
        raise SignatureInvalid(
            f"{what}, by the policy of {policy.where}", remedy=error.remedy, detail=error.detail
        ) from error
    served = served or server.fetch(repository, default_cache())
    server.check_reachable(served, verified.commit, name)
    return verified


def tighten(rules: Rules, stated: Rules) -> Rules:
    """Return `rules`, made stricter where `stated` is stricter; where it is laxer it is ignored.

    A signature is required if either requires one, and it must be by a signer that both list; an
    empty list does not restrict the signers. Raise SignatureInvalid if both list signers but have
    none in common.
    """
    tags, other = rules.keys.tags, stated.keys.tags
    lists = {name: list(value) for name, value in tags if isinstance(value, list)}
    others = {name: list(getattr(other, name)) for name in lists}
    if not (other.signed and any(others.values())):
        merged = lists
    elif not tags.signed:
        merged = others
    else:
        merged = {name: [one for one in lists[name] if one in others[name]] for name in lists}
        if any(lists.values()) and not any(merged.values()):
            raise SignatureInvalid(
                "farm.yaml of the tag lists nobody who may sign it by the policy",
                remedy="see keys.tags on the default branch, and tag a commit that agrees with it",
            )
    signed = tags.signed or other.signed
    strict = TagPolicy.model_validate({"signed": signed, **merged})
    keys = rules.keys.model_copy(update={"tags": strict})
    return rules.model_copy(update={"keys": keys})


def _rules(farm: Farm) -> Rules:
    return Rules(keys=farm.keys, publish=farm.publish, published=farm.published)


def _read(checkout: Path, folder: Path) -> tuple[Rules, str, Repository | None]:
    """Return the policy's rules and where they are from; copy its public keys to `folder`."""
    given = os.environ.get(VARIABLE)
    where = f"{VARIABLE} ({given})"
    if given and Path(given).is_dir():
        for path in sorted(Path(given, "keys").glob("*.asc")):
            (folder / path.name).write_bytes(_bounded(path, KEY_LIMIT))
        path = Path(given, "farm.yaml")
        return parse_rules(_bounded(path, SIZE_LIMIT), os.fspath(path)), where, None
    served = server.fetch(git.open_checkout(checkout), default_cache())
    _copy_keys(served, folder)
    if given:
        return parse_rules(_bounded(Path(given), SIZE_LIMIT), given), where, served
    where = f"the default branch of {served.name}"
    content = server.read(served, "farm.yaml", SIZE_LIMIT)
    if content is None:
        raise SignatureInvalid(
            f"{where} has no farm.yaml, so nobody knows who may release",
            remedy=f"commit and push one, or let {VARIABLE} name one",
        )
    return parse_rules(content, f"farm.yaml of {where}"), where, served


def _copy_keys(served: Repository, folder: Path) -> None:
    paths = [path for path in server.names(served, "keys") if path.endswith(".asc")]
    if len(paths) > KEYS_LIMIT:
        raise SignatureInvalid(f"{served.name} has more than {KEYS_LIMIT} files keys/*.asc")
    for path in paths:
        (folder / Path(path).name).write_bytes(server.read(served, path, KEY_LIMIT) or b"")


def _of_tag(reader: Path, name: str) -> Rules:
    """Return the rules for releases in the tagged tree; the tag is not verified yet."""
    content = git.blob(reader, f"refs/tags/{name}:farm.yaml", SIZE_LIMIT)
    if content is None:
        return Rules(keys=Keys(tags=TagPolicy(signed=False)))  # no restriction
    return parse_rules(content, f"farm.yaml of the tag {name}")


def _bounded(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", remedy=f"see {VARIABLE}"
        ) from error
    if len(content) > limit:
        raise UsageError(f"{path} is larger than {limit} bytes")
    return content
