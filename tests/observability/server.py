"""A real Prometheus over the services of a road: what it scraped, and what a query gives."""

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml

from stream_core.testing.broker import free_port
from stream_core.testing.road import Road

FOLDER = Path(__file__).parents[2] / "deploy/observability"
RULES = FOLDER / "rules/stream.yml"
OWN_PORT = {f"STREAM_{name}__METRICS_PORT": "0" for name in ("GATEWAY", "JUDGE", "SUMMARIZER", "HPC_DISPATCH", "RELAY")}
_PATIENCE_S = 90.0
_POLL_S = 0.05


def why_not() -> str:
    """Why there is no Prometheus here; empty when there is."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    return f"{' and '.join(missing)} not installed: tests/observability/install.sh says why" if missing else ""


@dataclass
class Server:
    """A running Prometheus."""

    url: str
    session: aiohttp.ClientSession

    async def ask(self, path: str, **parameters: str) -> Any:
        """Ask its API; fails with what it says is wrong."""
        async with self.session.get(f"{self.url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        assert not answer.get("warnings"), answer["warnings"]
        return answer["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression now."""
        result: list[dict[str, Any]] = (await self.ask("query", query=expression))["result"]
        return result

    async def until(self, expression: str) -> list[dict[str, Any]]:
        """Wait until an expression gives something: another process tells nobody when it has scraped."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not (found := await self.query(expression)):  # noqa: ASYNC110  (as said)
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise AssertionError(f"nothing for {expression}") from None
        return found


@contextlib.contextmanager
def run_prometheus(folder: Path, targets: Mapping[str, list[int]]) -> Iterator[str]:
    """Run it on a free port, with our rules, until the block ends.

    Args:
        folder: for its data and log.
        targets: ports on this machine by job.

    Yields:
        Its URL; it may still be starting.
    """
    port = free_port()
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
        for job, ports in targets.items()
    ]
    every = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "500ms"}
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": every, "rule_files": [str(RULES)], "scrape_configs": jobs}))
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def is_ready(server: Server) -> None:
    """Wait until it answers."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with server.session.get(f"{server.url}/-/ready") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(_POLL_S)


def targets_of(road: Road) -> dict[str, list[int]]:
    """Where the services' numbers are, by the job that `prometheus.yml` gives them."""
    ports = {f"stream-{name.replace('_', '-')}": program for name, program in road.services.items()}
    found = {job: [program.ready["metrics_port"]] for job, program in ports.items()}
    return found | {"stream-relay": [relay.ready["metrics_port"] for relay in road.relays]}


def worker_ports(road: Road) -> list[int]:
    """The workers' own ports, which are on loopback alone."""
    return [
        listening.laddr.port
        for worker in road.workers()
        for listening in worker.net_connections("tcp")
        if listening.status == psutil.CONN_LISTEN
    ]


def dashboards() -> dict[str, list[str]]:
    """The queries of each dashboard, as Grafana would send them."""
    found = {}
    for path in sorted((FOLDER / "dashboards").glob("*.json")):
        panels = json.loads(path.read_text())["panels"]
        found[path.stem] = [
            target["expr"].replace("$__rate_interval", "5m") for panel in panels for target in panel["targets"]
        ]
    return found


def rules() -> list[dict[str, Any]]:
    """All rules, in their order."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
