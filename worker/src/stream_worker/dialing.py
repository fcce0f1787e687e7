"""How a relay is reached: what its URL may be, through which proxy, how long to wait after a failure. Pure."""

import ipaddress
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Final

from stream_core.errors import ConfigError

_MAX_DOUBLINGS: Final = 16
_PROXY_SCHEMES: Final = frozenset({"http", "https", "socks4", "socks5"})


def check_relay_url(url: str) -> str:
    """Check that a relay's URL is wss://, or ws:// to this very machine, and holds no credentials.

    Raises:
        ConfigError: it would send the ticket in the clear over a network.
    """
    parts = urllib.parse.urlsplit(url)
    if "@" in parts.netloc:
        raise ConfigError(f"the relay at {parts.hostname}: no credentials in its URL", param="relays")
    if parts.scheme == "wss" and parts.hostname:
        return url
    try:
        loopback = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        loopback = False
    if parts.scheme != "ws" or not loopback:
        raise ConfigError(f"{url!r} must be wss:// (ws:// is for loopback only)", param="relays")
    return url


def proxy_for(url: str, proxies: Mapping[str, str], bypass: Callable[[str], bool]) -> str | None:
    """Choose the proxy for a relay.

    Args:
        url: the relay's.
        proxies: as `urllib.request.getproxies` reads the environment.
        bypass: whether NO_PROXY names a host, or a host with its port.

    Returns:
        The proxy's URL with its credentials: never to be logged; see `shown`. None: directly.

    Raises:
        ConfigError: HTTPS_PROXY is no proxy's URL; the message shows nothing of it, since it may hold a password.
    """
    parts = urllib.parse.urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    proxy = proxies.get("https") or proxies.get("all")
    if parts.scheme != "wss" or not proxy or bypass(host) or bypass(f"{host}:{port}"):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"  # as curl and most tools read it
    try:
        read = urllib.parse.urlsplit(proxy)
        valid = read.scheme in _PROXY_SCHEMES and bool(read.hostname) and read.port != 0 and proxy.isascii()
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError("HTTPS_PROXY is not a URL like http://host:port", param="HTTPS_PROXY")
    return proxy


def shown(url: str) -> str:
    """Host and port of a URL: what may be logged of it."""
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]


def pause_s(failures: int, relays: int, backoff: tuple[float, float], jitter: float) -> float:
    """Seconds to wait after so many failures in a row.

    Each relay gets its turn before the pause doubles. The jitter spreads the workers of a relay that died.

    Args:
        failures: so far, the last one included.
        relays: how many there are to choose from.
        backoff: (first, most) seconds.
        jitter: uniform in [0, 1); the pause is half to one and a half of its mean.
    """
    first, most = backoff
    doublings = min((failures - 1) // relays, _MAX_DOUBLINGS)
    return min(most, first * 2.0**doublings) * (0.5 + jitter)
