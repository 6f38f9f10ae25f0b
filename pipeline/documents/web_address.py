# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of the web in one form, and where a redirect leads: no server is trusted.

An address is taken apart once, and all that is done with it (judged, connected to, asked for,
printed) uses the same parts, so that no two readers of one string disagree about its host.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from urllib.parse import quote, unquote, urljoin, urlsplit

from pipeline.documents.plain import plain

PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?", re.ASCII)
HOST_LIMIT = 253  # characters of a name in the DNS (RFC 1035)
IN_PATH = "%/:@!$&'()*+,;=~"  # RFC 3986: what stands for itself in a path; in a query ? too
PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


class Misled(Exception):
    """A redirect that is not followed, whoever asks."""


@dataclass(frozen=True)
class WebAddress:
    """An http or https address in ASCII; `target` is its path and query, quoted."""

    scheme: str
    host: str  # lower case, IPv6 without brackets
    port: int
    target: str
    credentials: tuple[str, str] | None = None  # user and password, never printed

    @property
    def url(self) -> str:
        """The address as it is asked for and may be printed: without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"

    @property
    def place(self) -> tuple[str, int]:
        """Which server it is of: host and port."""
        return self.host.removesuffix("."), self.port

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """The servers that are meant by an operator who names it: the host's usual ports, too."""
        return self.place, *((self.place[0], port) for port in PORTS.values())


def parse(text: str) -> WebAddress:
    """Take an address apart; what is not ASCII in path and query is quoted as UTF-8.

    Raise ValueError, with a reason in words, for what is no http or https address of a host.
    """
    if any(not " " < letter != "\x7f" for letter in text):
        raise ValueError("it has blanks or control characters")
    parts = urlsplit(text)
    if parts.scheme not in PORTS:
        raise ValueError("it is neither http nor https")
    port = PORTS[parts.scheme] if parts.port is None else parts.port
    if not port:
        raise ValueError("it has no port")
    target = quote(parts.path, safe=IN_PATH) or "/"
    if parts.query:
        target += f"?{quote(parts.query, safe=f'{IN_PATH}?')}"
    user = unquote(parts.username or ""), unquote(parts.password or "")
    return WebAddress(
        parts.scheme, _host(parts.hostname), port, target, user if any(user) else None
    )


def follow(here: WebAddress, locations: Sequence[str]) -> WebAddress:
    """Return where an answer with these `Location` fields leads; raise Misled if nowhere good."""
    if len(locations) != 1:
        raise Misled(f"{here.url} leads on without saying where")
    # http.client gives the bytes of a field as Latin-1.
    location = quote(locations[0].strip().encode("latin-1", "replace"), safe=PRINTABLE)
    try:
        there = parse(urljoin(here.url, location))
    except ValueError as error:
        raise Misled(plain(f"{here.url} leads to {location[:200]!r}: {error}")) from error
    if (here.scheme, there.scheme) == ("https", "http"):
        raise Misled(f"{here.url} leads from https to http")
    return replace(there, credentials=None)


def _host(host: str | None) -> str:
    """Return a host in ASCII; raise ValueError if it is none."""
    if not host or len(host) > HOST_LIMIT:
        raise ValueError("it names no host")
    if "%" in host:
        raise ValueError("an address with a zone means something on one machine only")
    if ":" in host:
        return str(IPv6Address(host))
    name = host if host.isascii() else host.encode("idna").decode()
    if not HOST.fullmatch(name.lower()):
        raise ValueError("it names no host")
    return name.lower()
