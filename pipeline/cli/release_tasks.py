# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that release, keep the packages of a release, verify it, and demonstrate all of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.base.errors import ExitStatus
from pipeline.cli.task import (
    bare_task,
    end_with,
    farm_task,
    open_display,
    open_farm,
    pinned_key,
    request,
)

if TYPE_CHECKING:
    from invoke.context import Context


@farm_task(
    ExitStatus.DIFFERS, ExitStatus.BUILD_FAILED, ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE
)
def release(
    _c: Context,
    tag: str,
    image: str = "mini",
    source: str | None = None,
    run: str | None = None,
) -> None:
    """Build a tag in both environments without caches; sign and publish what matches.

    Keys, disk space and published releases are checked first, and a trial signature is made.
    --source releases a tag of another repository, --run continues an interrupted run.
    """
    from pipeline import flow
    from pipeline.farm.run import open_run

    workspace = open_farm()
    wanted = request(
        workspace, image, tag, tag=tag, source=source, compression="strong", vary="all"
    )
    flow.check_release(workspace, tag, open_display(), resumed=run is not None)
    chosen = open_run(workspace.runs, run) if run else flow.start(workspace, wanted)
    flow.build(workspace, chosen, open_display(), source=source)
    print(f"published: {flow.release(workspace, chosen, open_display(), source=source).folder}")


@farm_task(ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE)
def snapshot(_c: Context, tag: str, image: str = "mini", source: str | None = None) -> None:
    """Keep the packages that a tag's lock names, with Debian's own signed indices, for apt."""
    from pipeline.inputs.image_lock import write_tagged_snapshot

    print(f"{write_tagged_snapshot(open_farm(), tag, image, source=source)} is complete")


@bare_task(
    ExitStatus.DIFFERS,
    ExitStatus.SIGNATURE,
    help={
        "url": "where the releases are published",
        "file": "an image to check; may be given several times",
        "download": "a file to download and check; may be given several times",
        "all": "download and check everything in the manifest",
        "directory": "where downloads go",
        "keyring": "an exported OpenPGP key that you trust; never the server's own",
        "fingerprint": "the one key in the keyring to trust",
        "repository": "accept only a release that was built from there",
        "image": "accept only a release of this image",
        "environment_key": "NAME=HEX: check who signed an environment's statement; several times",
        "timeout": "seconds that the server may be silent",
        "json": "print one JSON object",
    },
    iterable=["file", "download", "environment_key"],
)
def verify(
    _c: Context,
    url: str,
    tag: str,
    file: list[str],
    download: list[str],
    environment_key: list[str],
    all: bool = False,
    directory: str | None = None,
    keyring: str | None = None,
    fingerprint: str | None = None,
    repository: str | None = None,
    image: str | None = None,
    timeout: str | None = None,
    json: bool = False,
) -> None:
    """Check a release as an outsider does: manifest, signature, files.

    Without --keyring the key that this checkout pins is trusted: keys/release.asc, and in it the
    fingerprint keys.release of farm.yaml.
    """
    given = {name: value for name, value in locals().items() if name != "_c"}
    import verify as verifier

    if keyring is None and pinned_key().exists():
        given["keyring"] = str(pinned_key())
        given["fingerprint"] = fingerprint or open_farm().farm.keys.release
    status = verifier.main(_words(given))
    if status:
        raise end_with(status)


def _words(options: Mapping[str, object]) -> list[str]:
    """Return options as they are typed, without those that were not given."""
    words = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        else:
            words += [
                f"{option}={one}" for one in (value if isinstance(value, list) else [value]) if one
            ]
    return words


@farm_task(
    ExitStatus.DIFFERS, ExitStatus.BUILD_FAILED, ExitStatus.INPUTS_UNVERIFIED, ExitStatus.SIGNATURE
)
def demo(_c: Context) -> None:
    """Release a throw-away clone with a throw-away key, verify it as an outsider, boot it."""
    from pipeline.cli.demo import run_demo

    run_demo(open_farm(), open_display())
