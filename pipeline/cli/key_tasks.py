# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks that make and register keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.base.errors import ExitStatus
from pipeline.cli.task import farm_task, open_display, open_farm

if TYPE_CHECKING:
    from invoke.context import Context


@farm_task(ExitStatus.SIGNATURE)
def keys(_c: Context, name: str | None = None, release: str | None = None) -> None:
    """Make or register all keys that a release needs: write them into farm.yaml and keys/.

    --name "NAME <ADDRESS>" makes a release key; --release FINGERPRINT uses one that gpg has, also
    on a card. Existing keys stay, so it can be run again. It ends with a trial signature.
    """
    from pipeline.cli import keys as making

    kept = making.set_up(open_farm(), name, release, open_display().say)
    print("\n".join(making.what_to_back_up(kept)))
    print("Then: git add farm.yaml keys && git commit --message 'farm: keys'")


@farm_task()
def keygen(_c: Context, environment: str) -> None:
    """Make the key that signs an environment's statements; print its line for farm.yaml."""
    from pipeline.cli import keys as making

    path, public = making.make_environment_key(open_farm().farm, environment)
    print(f"{path} is written. In farm.yaml, under keys.environments:\n    {environment}: {public}")
