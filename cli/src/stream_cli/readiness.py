"""Is it really ready? The gateway says so, and lists each tier that has workers to wait for."""

import asyncio
import http.client
import ipaddress
import json
from collections.abc import Callable
from typing import Final

from stream_cli import engines
from stream_cli.home import Home
from stream_cli.plan import engine_url
from stream_cli.prepare import Start
from stream_cli.processes import last_line
from stream_core.deployment import Deployment

_POLL_S: Final = 0.05


def dialled(host: str) -> str:
    """Turn a listening address into one that clients on this machine can dial."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Tell whether an address that is listened on can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def gateway_ready(start: Start, deployment: Deployment, port: int, wait_for: Callable[[str], None]) -> None:
    """Wait until the gateway and each tier that we started are ready; `/readyz` alone may hide a missing worker."""
    host = dialled(start.wishes.host).strip("[]")

    async def ask(path: str) -> tuple[int, bytes, str]:
        return await asyncio.to_thread(engines.ask, port, path, host=host, key=start.key)

    while (answer := await ask("/readyz"))[0] != http.client.OK:
        wait_for(f"the gateway ({answer[1].decode('utf-8', 'replace').strip()[:200] or answer[2]})")
        await asyncio.sleep(_POLL_S)
    wanted = our_tiers(deployment, start.wishes.only, engine_url(start.ground))
    while True:
        faults = states((await ask("/v1/models"))[1])
        missing = sorted(name for name in wanted if faults.get(name, "not offered"))
        if not missing:
            return
        words = f"tier {missing[0]} ({faults.get(missing[0], 'not offered')})"
        wait_for(words + (_worker_words(start.home) if missing[0] in _worker_tiers(deployment) else ""))
        await asyncio.sleep(_POLL_S)


def _worker_tiers(deployment: Deployment) -> set[str]:
    return {cluster.tier for cluster in deployment.clusters if any(pool.min_ready for pool in cluster.pools)}


def our_tiers(deployment: Deployment, started: frozenset[str], embedded_url: str) -> set[str]:
    """List the enabled tiers that depend on what we started. Pure.

    Args:
        deployment: the effective one.
        started: names of the programs.
        embedded_url: where the embedded engine listens.
    """
    wanted = _worker_tiers(deployment) if {"relay", "hpc_dispatch"} <= started else set()
    if "engine" in started:
        wanted |= {tier.name for tier in deployment.tiers if tier.base_url == embedded_url}
    return {tier.name for tier in deployment.tiers if tier.enabled and tier.name in wanted}


def states(body: bytes) -> dict[str, str]:
    """Read the gateway's model list: why each entry is not ready, "" when it is. Anything else lists nothing."""
    try:
        entries = [(str(entry["id"]), entry.get("stream") or {}) for entry in json.loads(body)["data"]]
        return {
            name: "" if facts.get("state", "hot") == "hot" else str(facts.get("reason") or facts["state"])
            for name, facts in entries
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _worker_words(home: Home) -> str:
    """Quote the newest worker's log, or hpc_dispatch's."""
    logs = sorted(home.workers.rglob("*.log"), key=lambda path: path.stat().st_mtime) or [home.log("hpc_dispatch")]
    last = last_line(logs[-1])
    return f": {last}, see {logs[-1]}" if last else ""
