# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of the environments that a difference may come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

MARGIN_S = 600  # how far a machine's clock may be from what its statement says

Holds = Callable[[frozenset[str]], str]
Lacks = Callable[[frozenset[str]], bool]


@dataclass(frozen=True)
class Facts:
    """One environment: `hours` are when it built, by its own clock, in seconds since 1970 UTC.

    What is not known is None. `others` are the values of further factors, by their names. `holds`
    returns the folder of the tree which holds just these names, or nothing; `lacks` tells whether
    the tree is known to have had few of these: absolute paths, or names of files.
    """

    name: str
    epoch: int
    hours: tuple[int, int] | None = None
    host_name: str | None = None
    user: str | None = None
    build_path: str | None = None
    package_path: str | None = None  # where the image's own packages are built
    locale: str | None = None
    time_zone: str | None = None
    kernel: str | None = None
    cpus: str | None = None
    umask: int | None = None
    clock: str | None = None  # how far it is from the real time
    others: Mapping[str, str] = field(default_factory=dict)
    holds: Holds = field(default=lambda _: "", compare=False)
    lacks: Lacks = field(default=lambda _: False, compare=False)

    @property
    def seed(self) -> str | None:
        """The seed by which the scratch file system orders folders, if it does so by hashes."""
        hashed = self.others.get("scratch filesystem") == "ext4"
        return self.others.get("directory order") if hashed else None

    def built_at(self, earliest: float, latest: float) -> bool:
        """Tell whether a time from `earliest` to `latest` is within the build's hours."""
        if self.hours is None:
            return False
        return latest >= self.hours[0] - MARGIN_S and earliest <= self.hours[1] + MARGIN_S


Pair = tuple[Facts, Facts]
