# SPDX-License-Identifier: GPL-3.0-or-later
"""Where archives are fetched from: the user's settings, or else the sources of this machine's apt.

In order: the environment variable `TWINBUILD_MIRROR_<NAME>` (addresses separated by spaces), the
snapshot archive if the archive is pinned to a time (`at`), the archive's `urls`, and those sources
of this machine's apt that serve the same kind of Debian suite. No address goes into a lock.
"""

import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from pipeline.base import command
from pipeline.base.errors import UsageError
from pipeline.farm.config import Archive, ImageArchive
from pipeline.inputs.apt_sources import APT_TIMEOUT_S, HTTP_URL, AptSource, read_sources

# Debian's suites that may still be in use as a source, by code name and by role.
RELEASES = (
    "buster|bullseye|bookworm|trixie|forky|duke|sid|"
    "oldoldstable|oldstable|stable|testing|unstable|experimental|rc-buggy"
)
SUITE = re.compile(rf"(?:{RELEASES})(?P<kind>-[a-z-]+)?(?:/updates)?")
SNAPSHOT_TIME = "%Y%m%dT%H%M%SZ"
# A snapshot is taken hours after the archive changes, so that of an InRelease may be later than
# its Date.
SNAPSHOT_DELAY = timedelta(days=1)


def read_proxies() -> dict[str, str]:
    """Ask this machine's apt for its proxies; raise UsageError if there is no apt."""
    argv = ["apt-config", "dump", "--no-empty"]
    return parse_proxies(command.run(argv, timeout_s=APT_TIMEOUT_S).text)


def parse_proxies(text: str) -> dict[str, str]:
    """Return apt's proxies for `requests`: by scheme, or by scheme and host; "" means direct."""
    line = re.compile(r'Acquire::(https?)::Proxy(?:::([A-Za-z0-9.-]+))? "([^"]*)";')
    proxies = {}
    for scheme, host, value in line.findall(text):
        proxies[f"{scheme}://{host}" if host else scheme] = "" if value == "DIRECT" else value
    if "http" in proxies:
        proxies.setdefault("https", proxies["http"])
    return proxies


def all_bases(
    archives: Mapping[str, Archive], environ: Mapping[str, str] = os.environ
) -> dict[str, tuple[str, ...]]:
    """Return the base addresses of every archive, to be tried in order.

    apt is asked only if one needs it. Raise UsageError if an archive has no address, or one is
    not an HTTP address.
    """
    stated = {name: stated_bases(name, archive, environ) for name, archive in archives.items()}
    sources = () if all(stated.values()) else read_sources()
    return {
        name: stated[name] or bases_of_apt(name, archive, sources)
        for name, archive in archives.items()
    }


def named_bases(
    archives: Mapping[str, Archive],
    bases: Mapping[str, Iterable[str]],
    environ: Mapping[str, str] = os.environ,
) -> tuple[str, ...]:
    """Return the addresses that the operator has named: by variable, in `farm.yaml` or for apt.

    The others, those of archives that an image names itself, come from a commit.
    """
    operators = {
        name: archive
        for name, archive in archives.items()
        if not isinstance(archive, ImageArchive) or environ.get(_variable(name), "").strip()
    }
    named = [base for name in operators for base in bases[name]]
    return (*named, *(url for archive in operators.values() for url in archive.snapshot_urls))


def stated_bases(name: str, archive: Archive, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the addresses set by the user or in `farm.yaml`; none if apt's are to be used."""
    variable = _variable(name)
    if environ.get(variable, "").strip():
        return _http(variable, environ[variable].split())
    if archive.at:
        if not archive.snapshot_urls:
            remedy = "set its snapshot_urls in farm.yaml"
            raise UsageError(f"archive {name} is pinned, and no snapshot is known", remedy=remedy)
        return tuple(snapshot(url, name, archive.at) for url in archive.snapshot_urls)
    return tuple(url.rstrip("/") for url in archive.urls or ())


def bases_of_apt(name: str, archive: Archive, sources: Iterable[AptSource]) -> tuple[str, ...]:
    """Return the addresses of those apt sources that serve the archive, each once."""
    found = tuple(dict.fromkeys(source.url for source in sources if _serves(source, archive)))
    if not found:
        remedy = f"set its urls in farm.yaml or {_variable(name)} in the environment"
        what = f"this machine's apt has no source for archive {name}"
        raise UsageError(f"{what}, downloaded or configured", remedy=remedy)
    return found


def dropped_bases(name: str, archive: Archive, date: datetime) -> tuple[str, ...]:
    """Return the snapshots to try for files that the archive has dropped since `date`.

    That is the date of the InRelease that listed them.
    """
    dates = (date, date + SNAPSHOT_DELAY)
    times = [when.astimezone(UTC).strftime(SNAPSHOT_TIME) for when in dates]
    return tuple(snapshot(url, name, time) for url in archive.snapshot_urls for time in times)


def snapshot(url: str, name: str, time: str) -> str:
    """Return the base address of an archive at a time, in the layout of Debian's snapshots."""
    return f"{url.rstrip('/')}/archive/{name}/{time}"


def join(found: Iterable[str], path: str) -> tuple[str, ...]:
    """Return the address of a file below each of the base addresses."""
    return tuple(f"{base}/{quote(path, safe='/+~:')}" for base in found)


def _variable(name: str) -> str:
    return f"TWINBUILD_MIRROR_{name.upper().replace('-', '_')}"


def _http(variable: str, urls: list[str]) -> tuple[str, ...]:
    for url in urls:
        if not HTTP_URL.fullmatch(url):
            raise UsageError(f"{variable} holds {url!r}, which is not an http or https address")
    return tuple(url.rstrip("/") for url in urls)


def _serves(source: AptSource, archive: Archive) -> bool:
    """Tell whether an apt source serves the same kind of suite as an archive."""
    kind = _kind(source.suite)
    return (
        kind is not None
        and kind in {_kind(suite) for suite in archive.suites}
        and source.component.rpartition("/")[2] in archive.components
        and source.origin in ("", "Debian")
    )


def _kind(suite: str) -> str | None:
    """Return which Debian archive has a suite, "main" or "security"; None if neither has."""
    match = SUITE.fullmatch(suite)
    if not match:
        return None
    if match["kind"] in (None, "-updates", "-proposed-updates", "-backports"):
        return "security" if suite.endswith("/updates") else "main"
    return "security" if match["kind"] == "-security" else None
