# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses belong to the public Internet, and a connection to one that was judged.

A redirect and an address in a commit are a stranger's words; followed blindly they reach what only
this machine and its neighbours can: services on loopback, a router, a cloud's metadata. A name is
resolved once, each of its addresses is judged, and the connection goes to the address that passed:
a second answer of the name server (DNS rebinding) is never asked for.

Source: IANA's IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), and RFC 6052 for NAT64.
"""

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeVar

ADDRESSES_LIMIT = 8  # of one name; the rest is not tried
NOT_PUBLIC_4 = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's platform service, reachable from its machines alone
        "169.254.0.0/16",  # link-local, metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
UNICAST_6 = ip_network("2000::/3")  # all that is assigned to the public Internet
NOT_PUBLIC_6 = tuple(
    ip_network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")  # Teredo, 6to4 …
)
NAT64 = ip_network("64:ff9b::/96")
# Names that mean something on one network only (RFC 6761, 6762, 8375, and customs).
LOCAL_DOMAINS = (
    *(".corp", ".home", ".home.arpa", ".internal", ".intranet", ".lan", ".local"),
    *(".localdomain", ".localhost", ".private"),
)
NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]{0,62}")


class NotPublic(Exception):
    """An address that a stranger named lies on a private network."""


def is_public(address: str) -> bool:
    """Tell whether an IPv4 or IPv6 address, in digits, belongs to the public Internet."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        return _is_public_6(found)
    return _is_public_4(found)


def _is_public_4(address: IPv4Address) -> bool:
    return not any(address in network for network in NOT_PUBLIC_4)


def _is_public_6(address: IPv6Address) -> bool:
    if address.ipv4_mapped:
        return _is_public_4(address.ipv4_mapped)
    if address in NAT64:
        return _is_public_4(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in UNICAST_6 and not any(address in network for network in NOT_PUBLIC_6)


def refuse_private_name(host: str) -> None:
    """Raise NotPublic for a host that a proxy would find on a private network, by its looks.

    Behind a proxy no more can be judged: the proxy resolves the name. Numbers in any notation that
    a C library takes for an IPv4 address (`2130706433`, `0x7f.1`) count as the address.
    """
    name = host.lower().strip("[]").removesuffix(".")
    try:
        address = socket.inet_ntoa(socket.inet_aton(name))
    except (OSError, UnicodeError, ValueError):
        address = name
    if is_public(address):
        return
    if not NAME.fullmatch(name) or name.endswith(LOCAL_DOMAINS):
        raise NotPublic(f"{host[:80]} is no name of a public host")


Socket = TypeVar("Socket", bound=socket.socket)


def open_socket(
    host: str, port: int, *, public: bool, timeout_s: float, kind: type[Socket]
) -> Socket:
    """Return a socket of this `kind` that is connected to `host`.

    With `public`, raise NotPublic before anything is sent if one of the host's addresses is not
    public. Raise OSError if none can be reached.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{host[:80]!r} is no name of a host") from error
    if public:
        for *_, address in found:
            if not is_public(str(address[0])):
                raise NotPublic(f"{host[:80]} is {address[0]}, which is no public address")
    problem: OSError = OSError(f"{host[:80]} has no address")
    for family, variety, protocol, _, address in found[:ADDRESSES_LIMIT]:
        opened = kind(family, variety, protocol)
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.settimeout(timeout_s)
            opened.connect(address)
        except OSError as error:
            opened.close()
            problem = error
        else:
            return opened
    raise problem
