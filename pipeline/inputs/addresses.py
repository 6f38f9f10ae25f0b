"""Where archives are fetched from: what the user says, else where this machine's own apt looks.

In order: the environment variable `TWINBUILD_MIRROR_<NAME>` (addresses separated by spaces), the
snapshot archive if the archive is pinned to a time (`at`), the archive's `urls`, and the sources
of this machine's apt that name the same kind of Debian suite. None of it reaches a lock.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from pipeline import command
from pipeline.config import Archive
from pipeline.errors import UsageError

APT_TIMEOUT_S = 60
HTTP_URL = re.compile(r"https?://[^\s?#]+")
# Debian's suites by code name and by role, as far as somebody may still use them as a source.
RELEASES = (
    "buster|bullseye|bookworm|trixie|forky|duke|sid|"
    "oldoldstable|oldstable|stable|testing|unstable|experimental|rc-buggy"
)
SUITE = re.compile(rf"(?:{RELEASES})(?P<kind>-[a-z-]+)?(?:/updates)?")
SNAPSHOT_TIME = "%Y%m%dT%H%M%SZ"
# A snapshot is made some hours after the archive changed: the state of a Date may come later.
SNAPSHOT_DELAY = timedelta(days=1)


@dataclass(frozen=True)
class AptSource:
    """One place that apt fetches packages from; `origin` is empty before its first update."""

    url: str
    suite: str
    component: str
    origin: str


@dataclass(frozen=True)
class AptSettings:
    """What this machine's apt is set to: its sources, and its proxies as `requests` names them."""

    sources: tuple[AptSource, ...]
    proxies: Mapping[str, str]


def read_apt() -> AptSettings:
    """Ask this machine's apt for its sources and proxies; raise UsageError if there is no apt."""
    wanted = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(ORIGIN)"
    targets = ["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"]
    configuration = ["apt-config", "dump", "--no-empty"]
    return AptSettings(
        parse_sources(command.run(targets, timeout_s=APT_TIMEOUT_S).text),
        parse_proxies(command.run(configuration, timeout_s=APT_TIMEOUT_S).text),
    )


def parse_sources(text: str) -> tuple[AptSource, ...]:
    """Return the sources that speak HTTP, each once, in apt's order."""
    rows = (line.split("\t") for line in text.splitlines())
    found = (AptSource(r[0].rstrip("/"), *r[1:]) for r in rows if len(r) == 4)
    return tuple(dict.fromkeys(s for s in found if HTTP_URL.fullmatch(s.url)))


def parse_proxies(text: str) -> dict[str, str]:
    """Return apt's proxies for `requests`: by scheme, or by scheme and host; "" is none."""
    line = re.compile(r'Acquire::(https?)::Proxy(?:::([A-Za-z0-9.-]+))? "([^"]*)";')
    proxies = {}
    for scheme, host, value in line.findall(text):
        proxies[f"{scheme}://{host}" if host else scheme] = "" if value == "DIRECT" else value
    if "http" in proxies:
        proxies.setdefault("https", proxies["http"])
    return proxies


def bases(
    name: str, archive: Archive, apt: AptSettings, environ: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Return the base addresses of the archive `name`, to be tried in order.

    Raise UsageError if there are none, or one is not an HTTP address.
    """
    variable = f"TWINBUILD_MIRROR_{name.upper().replace('-', '_')}"
    if environ.get(variable, "").strip():
        return _http(variable, environ[variable].split())
    if archive.at:
        if not archive.snapshot_urls:
            remedy = "set its snapshot_urls in farm.yaml"
            raise UsageError(f"archive {name} is pinned, and no snapshot is known", remedy=remedy)
        return tuple(snapshot(url, name, archive.at) for url in archive.snapshot_urls)
    found = archive.urls or dict.fromkeys(s.url for s in apt.sources if _serves(s, archive))
    if not found:
        remedy = f"set its urls in farm.yaml or {variable} in the environment"
        raise UsageError(f"this machine's apt has no source for archive {name}", remedy=remedy)
    return tuple(url.rstrip("/") for url in found)


def dropped_bases(name: str, archive: Archive, date: datetime) -> tuple[str, ...]:
    """Return where files are looked for that the archive dropped; `date` is of their InRelease."""
    dates = (date, date + SNAPSHOT_DELAY)
    times = [when.astimezone(UTC).strftime(SNAPSHOT_TIME) for when in dates]
    return tuple(snapshot(url, name, time) for url in archive.snapshot_urls for time in times)


def snapshot(url: str, name: str, time: str) -> str:
    """Return the base address of an archive at a time, in the layout of Debian's snapshots."""
    return f"{url.rstrip('/')}/archive/{name}/{time}"


def join(found: Iterable[str], path: str) -> tuple[str, ...]:
    """Return the addresses of a file below base addresses."""
    return tuple(f"{base}/{quote(path, safe='/+~:')}" for base in found)


def _http(variable: str, urls: list[str]) -> tuple[str, ...]:
    for url in urls:
        if not HTTP_URL.fullmatch(url):
            raise UsageError(f"{variable} holds {url!r}, which is not an http or https address")
    return tuple(url.rstrip("/") for url in urls)


def _serves(source: AptSource, archive: Archive) -> bool:
    """Tell whether an apt source is of the same kind as the suites of an archive."""
    kind = _kind(source.suite)
    return (
        kind is not None
        and kind in {_kind(suite) for suite in archive.suites}
        and source.component.rpartition("/")[2] in archive.components
        and source.origin in ("", "Debian")
    )


def _kind(suite: str) -> str | None:
    """Return the part of Debian's archive that a suite lies in, or None if it is not Debian's."""
    match = SUITE.fullmatch(suite)
    if not match:
        return None
    if match["kind"] in (None, "-updates", "-proposed-updates", "-backports"):
        return "security" if suite.endswith("/updates") else "main"
    return "security" if match["kind"] == "-security" else None
