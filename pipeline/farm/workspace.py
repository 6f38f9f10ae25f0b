# SPDX-License-Identifier: GPL-3.0-or-later
"""The folders of a farm: its checkout, runs, published releases, snapshots, store and cache."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.base import places
from pipeline.base.cache_folder import default_cache
from pipeline.base.errors import UsageError, command_line
from pipeline.base.store import Store
from pipeline.farm.config import Farm, load_farm


@dataclass(frozen=True)
class Workspace:
    """A checkout of a farm: `farm.yaml`, its keys, and the hosts and the builder that it uses."""

    checkout: Path
    farm: Farm

    @property
    def runs(self) -> Path:
        """The run folders."""
        return self.checkout / "runs"

    @property
    def public(self) -> Path:
        """The published releases, a plain static tree."""
        return self.checkout / self.farm.publish

    @property
    def snapshots(self) -> Path:
        """The tagged snapshots, each in a folder."""
        return self.checkout / "snapshots"

    @property
    def cache(self) -> Path:
        """The files that can be fetched or made again; shared by all farms of this user."""
        return default_cache()

    @property
    def store(self) -> Store:
        """The store of verified files, shared by all runs."""
        return Store(self.cache / "store")

    @property
    def hosts(self) -> Path:
        """The descriptions of the container hosts, each in a folder."""
        return places.shared(self.checkout, "images/hosts")

    @property
    def builder(self) -> Path:
        """The description of the builder."""
        return places.shared(self.checkout, "images/builder")


def open_workspace(checkout: Path) -> Workspace:
    """Return the farm of a checkout; raise UsageError if it has no valid `farm.yaml`."""
    if not (checkout / "farm.yaml").is_file():
        remedy = f"run this in a farm's repository; {command_line('init NAME')} begins one"
        raise UsageError(f"{checkout} has no farm.yaml", remedy=remedy)
    return Workspace(checkout, load_farm(checkout / "farm.yaml"))
