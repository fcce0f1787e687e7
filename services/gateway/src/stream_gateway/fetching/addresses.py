"""Which addresses of a network may be asked for a client's file: those of the public internet alone. Pure."""

import ipaddress
from typing import Final
from urllib.parse import SplitResult, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
_NOT_PUBLIC_4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/3"),
    )
)
"""IANA's special-purpose registry, multicast and reserved space. Python's own table differs from version to version."""
_PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOW_32: Final = 0xFFFF_FFFF


def is_public(text: str) -> bool:
    """Tell whether an address belongs to the public internet.

    Loopback, private and link-local networks, metadata services (169.254.169.254, fd00:ec2::254), multicast and
    reserved ranges do not, nor does an IPv6 address that carries an IPv4 address in it, but for NAT64 of a public one.

    Args:
        text: an IPv4 or IPv6 address; anything else is not public.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address not in _NAT64:
            return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)
        address = ipaddress.IPv4Address(int(address) & _LOW_32)
    return not any(address in network for network in _NOT_PUBLIC_4)


def split_url(url: str) -> SplitResult | None:
    """Take a URL apart; None where it is not plainly http or https, with a host and without a user's name."""
    if any(c <= " " or c == "\\" or c > "~" for c in url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or port == 0:
        return None
    return parts


def is_listed(parts: SplitResult, hosts: list[str]) -> bool:
    """Tell whether a URL's host is one of a list.

    Args:
        parts: of a URL that `split_url` let pass.
        hosts: names, which mean the standard ports, or names with a port; ".name" means all below that name.
    """
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _PORTS[parts.scheme]
    for listed in hosts:
        name, _, wanted = listed.lower().partition(":")
        if port != (int(wanted) if wanted else _PORTS[parts.scheme]):
            continue
        if host == name or (name.startswith(".") and host.endswith(name)):
            return True
    return False
