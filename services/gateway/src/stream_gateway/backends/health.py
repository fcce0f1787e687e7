"""What is known of an upstream's health from what happened. Pure: the time is an argument.

An upstream that is probed is away until a probe, or a request, succeeds. One that is not (a paid service gets no
request that no user asked for) is tried again after a pause, which doubles with every failure in a row.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Health:
    """The state of one upstream; unknown counts as healthy."""

    def __init__(self, *, probed: bool) -> None:
        """Begin with nothing known.

        Args:
            probed: whether something else asks it regularly.
        """
        self._probed = probed
        self._reason: str | None = None
        self._failures = 0
        self._retry_at = 0.0

    def succeeded(self) -> None:
        """It answered."""
        self._reason = None
        self._failures = 0

    def failed(self, reason: str, now: float) -> None:
        """It did not.

        Args:
            reason: in words.
            now: seconds of a monotonic clock.
        """
        self._reason = reason
        self._retry_at = now + min(FIRST_PAUSE_S * 2.0**self._failures, LONGEST_PAUSE_S)
        self._failures += 1

    def fault(self, now: float) -> str | None:
        """None when a request may be tried, else why not."""
        if self._reason is None or (not self._probed and now >= self._retry_at):
            return None
        return self._reason


def is_nearby(base_url: str) -> bool:
    """Whether a URL points into the own house, so that probing it costs nothing and no proxy is on the way.

    Loopback and private addresses, names without a dot, and the names that clusters and offices give themselves.
    """
    host = urlsplit(base_url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".internal", ".svc", ".home.arpa"))
    return address.is_loopback or address.is_private
