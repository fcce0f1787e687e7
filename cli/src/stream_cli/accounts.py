"""The running gateway's admin API, for the commands: users, groups, projects, keys and limits."""

import asyncio
import datetime
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from stream_cli import leftovers
from stream_cli.chat import Server, find, refusal
from stream_cli.home import Home
from stream_core.api_keys import Limits
from stream_core.errors import ConfigError, UpstreamUnavailable

_PATIENCE: Final = aiohttp.ClientTimeout(total=60.0, sock_connect=5.0)
_PAGE: Final = 1_000
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
LIMITS: Final = Limits.__struct_fields__
_AMOUNTS: Final = frozenset({"dollars_per_month", "gpu_hours_per_month"})


class Admin:
    """Asks the admin API with the owner's own key."""

    def __init__(self, server: Server) -> None:
        self._base = server.base_url.removesuffix("/v1") + "/admin/v1"
        self._headers = {"Authorization": f"Bearer {server.key}"}

    @classmethod
    def of(cls, home: Path) -> "Admin":
        """Find the gateway that `stream up` started.

        Raises:
            ConfigError: none runs under this state folder.
        """
        return cls(find(home))

    @classmethod
    def running(cls, home: Path) -> "Admin | None":
        """Find it; None when none runs."""
        record = leftovers.read(Home(home.expanduser().absolute()))
        return cls.of(home) if record is not None and record.alive and record.port else None

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask once.

        Raises:
            StreamError: refused, in the gateway's own words, or it does not answer.
        """
        return asyncio.run(self._ask(method, path, body))

    def all(self, kind: str) -> list[dict[str, Any]]:
        """List all of a kind, page by page; errors as of `ask`."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self.ask("GET", f"/{kind}?limit={_PAGE}{after}")
            found += page["data"]
            if not page["has_more"]:
                return found
            after = f"&after={quote(page['last_id'])}"

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        try:
            async with (
                aiohttp.ClientSession(timeout=_PATIENCE, headers=self._headers) as session,
                session.request(method, self._base + path, json=body) as response,
            ):
                if response.status != HTTPStatus.OK:
                    raise refusal(response.status, await response.read())
                return await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UpstreamUnavailable(f"{self._base}: {error or type(error).__name__}") from error


def names(listed: str) -> list[str] | None:
    """Read an option that lists names; empty means that nothing is left out."""
    return [name.strip() for name in listed.split(",") if name.strip()] or None


def limits(given: Iterable[str]) -> dict[str, int | float | None]:
    """Read limits: "name=number", or "name=none" for no limit; several may be separated by commas.

    Raises:
        ConfigError: an unknown name, or no number.
    """
    found: dict[str, int | float | None] = {}
    for pair in (pair.strip() for text in given for pair in text.split(",")):
        name, _, value = pair.partition("=")
        if name not in LIMITS:
            raise ConfigError(f"no limit {name!r}; there are {', '.join(LIMITS)}", param="limits")
        try:
            number = None if value == "none" else (float(value) if name in _AMOUNTS else int(value))
        except ValueError as error:
            kind = "number" if name in _AMOUNTS else "whole number"
            raise ConfigError(f"{name}: {value!r} is no {kind}; `none` takes the limit away", param="limits") from error
        if number is not None and not 0 <= number < float("inf"):
            raise ConfigError(f"{name}: {value} is less than 0, or no number", param="limits")
        found[name] = number
    return found


def seconds(text: str, param: str) -> int:
    """Read a length of time: a number and s, m, h or d.

    Raises:
        ConfigError: it is none; the message names `param`.
    """
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text.strip())
    if found is None:
        raise ConfigError(f"{text!r} is no length of time such as 90d, 12h or 30m", param=param)
    return int(found[1]) * _UNITS[found[2]]


def moment(text: str, now: float) -> int:
    """Read when something ends: a length of time from now, or a day (UTC, until its end), as unix seconds.

    Raises:
        ConfigError: neither, or in the past.
    """
    try:
        day = datetime.date.fromisoformat(text.strip())
    except ValueError:
        return int(now) + seconds(text, "expires")
    end = datetime.datetime.combine(day, datetime.time(), datetime.UTC) + datetime.timedelta(days=1)
    if end.timestamp() <= now:
        raise ConfigError(f"{day} is in the past", param="expires")
    return int(end.timestamp())


def allowed(account: Mapping[str, Any]) -> str:
    """Say in words what somebody may use."""
    tiers = account.get("tiers")
    words = ",".join(tiers) if tiers is not None else "all tiers"
    for kind in ("models", "clusters"):
        if account.get(kind) is not None:
            words += f" ({kind} {','.join(account[kind])})"
    return words


def bounded(account: Mapping[str, Any]) -> str:
    """Say in words what somebody may spend; empty: as much as there is."""
    told = account.get("limits") or {}
    return ",".join(f"{name}={value:g}" for name, value in told.items() if value is not None)
