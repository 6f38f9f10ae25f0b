# SPDX-License-Identifier: GPL-3.0-or-later
"""The known facts of the environments, which may cause differences."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

MARGIN_S = 600  # how far a machine's clock may deviate from its recorded hours

Holds = Callable[[frozenset[str]], str]
Lacks = Callable[[frozenset[str]], bool]


@dataclass(frozen=True)
class Facts:
    """The facts of one environment; unknown ones are None.

    `hours` are the beginning and end of its build by its own clock, in seconds since 1970 UTC.
    `others` are the values of further factors by name. `holds` returns the folder of the tree that
    contains exactly the given names, or an empty string. `lacks` returns whether the tree is known
    to have had fewer than half of the given absolute paths or file names.
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
    clock: str | None = None  # its offset from the real time
    others: Mapping[str, str] = field(default_factory=dict)
    holds: Holds = field(default=lambda _: "", compare=False)
    lacks: Lacks = field(default=lambda _: False, compare=False)

    @property
    def seed(self) -> str | None:
        """The hash seed of the scratch file system if it is ext4, which lists folders by hash."""
        hashed = self.others.get("scratch filesystem") == "ext4"
        return self.others.get("directory order") if hashed else None

    def built_at(self, earliest: float, latest: float) -> bool:
        """Return whether a time between `earliest` and `latest` is within the build's hours."""
        if self.hours is None:
            return False
        return latest >= self.hours[0] - MARGIN_S and earliest <= self.hours[1] + MARGIN_S


Pair = tuple[Facts, Facts]
