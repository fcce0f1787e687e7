"""Numbers, rules and dashboards: a real Prometheus scrapes all services of the real road under traffic."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
import yaml
from observability import server
from observability.server import FOLDER, Server

from stream_cli.exposition import Reading, read
from stream_core.testing.road import MODEL, Road, run_road, wait_hot

pytestmark = pytest.mark.process
without_prometheus = pytest.mark.skipif(bool(server.why_not()), reason=server.why_not() or "-")

PATH = "/v1/chat/completions"
QUIET = ("stream_cost_dollars_total", "stream_limits_hit_total", "stream_faults_total")
"""Nothing of these happens on a sound road without a cloud; their queries are valid and give nothing."""
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    """All services, each with its numbers on a port of its own; only workers see images, in a small window."""
    model = {"id": MODEL, "context_window": 8192, "modalities": ["text", "image"], "gpus": 2.0}
    pool = {"model": model}
    with run_road(tmp_path_factory.mktemp("road"), judge=True, pool=pool, env=server.OWN_PORT) as running:
        asyncio.run(wait_hot(running))
        yield running


@pytest.fixture(scope="module")
def url(road: Road, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if reason := server.why_not():
        pytest.skip(reason)
    with server.run_prometheus(tmp_path_factory.mktemp("prometheus"), server.targets_of(road)) as running:
        yield running


@pytest.fixture
async def prometheus(url: str) -> AsyncIterator[Server]:
    async with aiohttp.ClientSession() as session:
        running = Server(url, session)
        await server.is_ready(running)
        yield running


async def traffic(road: Road) -> None:
    """Streams, whole answers, judged ones, a condensed one, a refused one."""
    long = [{"role": role, "content": f"Point {n} of it. " * 60} for n in range(40) for role in ("user", "assistant")]
    asked = [{"role": "user", "content": "hello"}]
    seen = [*long, {"role": "user", "content": [{"type": "text", "text": "Which one?"}, IMAGE]}]
    bodies: list[dict[str, Any]] = [
        *({"model": "hpc", "messages": asked, "stream": True, "script": {"tokens": 30}} for _ in range(4)),
        *({"model": "auto", "messages": asked, "stream": stream} for stream in (True, False)),
        {"model": "auto", "messages": seen, "stream": False},
        {"model": "nobody's", "messages": asked},
    ]
    for body in bodies:
        if body.get("stream"):
            body["stream_options"] = {"include_usage": True}
    headers = {"authorization": f"Bearer {road.api_key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for body in bodies:
            async with session.post(road.gateway_url + PATH, json=body) as response:
                assert response.status == (404 if body["model"] == "nobody's" else 200), await response.text()
                await response.read()


async def traffic_until(over: asyncio.Event, road: Road) -> None:
    """Begin again and again; what was begun is finished, so that nothing of it is counted later."""
    while not over.is_set():
        await traffic(road)
        await asyncio.sleep(0.5)


async def at_rest(road: Road) -> Reading:
    """What the gateway itself tells once no request is under way: all there were are counted."""
    (port,) = server.targets_of(road)["stream-gateway"]
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                told = Reading(read(await response.text()))
            if told.sum("stream_gateway_open_streams") == 0:
                return told
            await asyncio.sleep(0.05)


async def test_every_rule_and_dashboard_has_an_answer(road: Road, prometheus: Server) -> None:
    """Under traffic each query of each dashboard, and each recorded rule, gives a value; no alert's query is wrong."""
    for job in server.targets_of(road):
        await prometheus.until(f'up{{job="{job}"}} == 1')
    over = asyncio.Event()
    going_on = asyncio.create_task(traffic_until(over, road))  # a rate of what has ended becomes nothing
    try:
        await prometheus.until('sum(stream_requests_total{ended="model_not_found"}) >= 2')
        for queries in server.dashboards().values():
            for query in queries:
                if any(metric in query for metric in QUIET):
                    await prometheus.query(query)
                else:
                    await prometheus.until(query)
        for rule in server.rules():
            if "record" in rule:
                await prometheus.until(rule["record"])
            else:
                await prometheus.query(rule["expr"])
        health = (await prometheus.ask("rules"))["groups"]
        assert [rule["name"] for group in health for rule in group["rules"] if rule["health"] == "err"] == []
        assert await prometheus.query('ALERTS{alertname="StreamServiceDown"}') == []
    finally:
        over.set()
        await going_on


async def test_the_numbers_are_right(road: Road, prometheus: Server) -> None:
    """What Prometheus has is what was done: requests by their end, tokens, kept answers, pilots, relays."""
    before = float((await prometheus.query("sum(stream_relay_messages_total) or vector(0)"))[0]["value"][1])
    asked = 'sum(stream_requests_total{tier="hpc",ended="complete"})'
    tokens = 'sum(stream_tokens_total{tier="hpc",kind="completion"})'
    kept = "sum(stream_kept_total)"
    told = await at_rest(road)
    complete = told.sum("stream_requests_total", tier="hpc", ended="complete")
    said = told.sum("stream_tokens_total", tier="hpc", kind="completion")
    retained = told.sum("stream_kept_total")
    await traffic(road)
    await prometheus.until(f"{asked} == {complete + 5}")  # four streams and the condensed one
    await prometheus.until(f"{tokens} == {said + 4 * 30 + 8}")
    await prometheus.until('sum(stream_pilots{state="ready"}) == 1')
    await prometheus.until('sum(stream_pilots{state!="ready"}) == 0')
    await prometheus.until("sum(stream_relay_connections) == 1")
    await prometheus.until("sum(stream_dispatch_leads) == 1")
    await prometheus.until(f"sum(stream_relay_messages_total) > {before}")  # each part is scraped at its own time
    await prometheus.until('min(stream_tier_up{tier=~"hpc|local"}) == 1')
    await prometheus.until("sum(stream_gateway_open_streams) == 0")
    await prometheus.until(f"{kept} == {retained + 7}")
    phases = await prometheus.query("sum by (phase) (stream_first_token_phase_seconds_count)")
    assert {each["metric"]["phase"] for each in phases} == {
        "auth",
        "read",
        "judge",
        "summarise",
        "queue",
        "network",
        "prefill",
    }


async def test_every_number_that_is_asked_for_exists(road: Road) -> None:
    """Each metric that a rule or dashboard names is one that a service really tells, labels included."""
    text = ""
    ports = [port for found in server.targets_of(road).values() for port in found] + server.worker_ports(road)
    async with aiohttp.ClientSession() as session:
        for port in ports:
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                assert response.status == 200
                text += await response.text()
    known = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    asked_for = [
        *(q for queries in server.dashboards().values() for q in queries),
        *(r["expr"] for r in server.rules()),
    ]
    named = re.sub(r'"[^"]*"', "", "\n".join(asked_for))  # values of labels are no metrics
    asked = set(re.findall(r"\b(?:stream_[a-z_]+|process_[a-z_]+)\b", named))
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert len(bases) > 25
    assert not bases - known
    assert all(line.startswith(("#", "stream_", "process_")) for line in text.splitlines())
    assert road.api_key not in text


async def test_the_port_for_clients_has_no_numbers(road: Road) -> None:
    """Where the numbers have a port of their own, clients' ports answer 404; without one a proxy still gets nothing."""
    async with aiohttp.ClientSession() as session:
        for base in (road.gateway_url, f"http://127.0.0.1:{road.relays[0].ready['port']}"):
            async with session.get(f"{base}/metrics") as response:
                assert response.status == 404
                assert "metrics_port" in await response.text()
            async with session.get(f"{base}/readyz") as response:
                assert response.status == 200


@without_prometheus
def test_rules_and_configuration_are_valid() -> None:
    """They are for promtool, too; in its unit tests each alert fires for what it is meant for, none without a cause."""
    checks = (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules/stream.yml"],
        ["test", "rules", "rules/stream_test.yml"],
    )
    for check in checks:
        done = subprocess.run(["promtool", *check], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    tested = {test["name"] for test in yaml.safe_load((FOLDER / "rules/stream_test.yml").read_text())["tests"]}
    assert {rule["alert"] for rule in server.rules() if "alert" in rule} <= tested
