"""`stream up`: start everything on this machine, say what there is, stop it all at the end.

    check what can be checked → broker, engine → services → one HPC worker → the screen → wait → stop

The embedded engine's model is part of the deployment, and all services read that. The first start waits for the
engine to say it; later ones take its word of last time, start everything together, and start the services again in
the rare case that the engine now says otherwise.
"""

import asyncio
import contextlib
import datetime
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import yaml

from stream_cli import effective, engines, leftovers
from stream_cli.effective import EngineFacts, LocalServer, Machine
from stream_cli.follow import Parsed, follow
from stream_cli.home import Home, certify, locked, open_home, write_private
from stream_cli.plan import START_ORDER, STOP_ORDER, engine, engine_url, nats, services
from stream_cli.prepare import Options, Start, prepare
from stream_cli.processes import Supervisor
from stream_cli.readiness import dialled, gateway_ready, is_loopback
from stream_cli.terminal import Terminal
from stream_core.deployment import Deployment
from stream_core.errors import ConfigError

_HEAD_START_S: Final = 2.0


@dataclass(frozen=True)
class Result:
    """What is up, for the screen."""

    home: Home
    base_url: str
    key: str
    deployment: Deployment
    local: str
    """Where the local tier's engine comes from, in words."""
    started: tuple[str, ...]
    cloud_variable: str
    """The variable with a provider's key, when the cloud tier is off; else empty."""
    exposed: bool = False
    """Whether other machines can reach the gateway."""


def up(options: Options, terminal: Terminal) -> None:
    """Start everything and stay until told to stop.

    Args:
        options: of the command.
        terminal: is told what happens.

    Raises:
        StreamError: a wrong setting, a busy port, a program that ended; nothing is left running.
    """
    home = open_home(options.home)
    with locked(home):
        leftovers.sweep(home)
        start = prepare(home, options)
        asyncio.run(_supervise(start, terminal))
        home.running.unlink(missing_ok=True)
    terminal.stopped()


async def _supervise(start: Start, terminal: Terminal) -> None:
    stop = asyncio.Event()

    def record(programs: Mapping[str, int]) -> None:
        leftovers.write(start.home, host=start.wishes.host, port=0, programs=programs)

    async with Supervisor(start.home, STOP_ORDER, started=record) as supervisor:
        with _signals(stop, supervisor):
            await _first_of(supervisor.first_death(), stop.wait(), _bring_up(start, supervisor, terminal))
            terminal.waiting("")
            terminal.stopping()
            await supervisor.stop()


async def _first_of(*awaitables: Awaitable[object]) -> None:
    """Wait for the first to end and cancel the others; where several have ended, the first of them counts."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _signals(stop: asyncio.Event, supervisor: Supervisor) -> Iterator[None]:
    """The first signal stops in order, the second kills."""
    loop = asyncio.get_running_loop()

    def told() -> None:
        if stop.is_set():
            supervisor.kill()
        stop.set()

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if _heard(number)]
    for number in numbers:
        loop.add_signal_handler(number, told)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _heard(number: signal.Signals) -> bool:
    """Under nohup, SIGHUP is ignored and stays so."""
    return number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN


async def _bring_up(start: Start, supervisor: Supervisor, terminal: Terminal) -> None:
    reason = ["the first program"]

    def wait_for(words: str) -> None:
        reason[0] = words
        terminal.waiting(words)

    try:
        async with asyncio.timeout(start.options.wait_s):
            result, machine = await _start_all(start, supervisor, wait_for)
    except TimeoutError as error:
        raise ConfigError(f"not ready within {start.options.wait_s:g} s: waiting for {reason[0]}") from error
    finally:
        terminal.waiting("")
    terminal.show(result)
    if start.config.path is None:
        await asyncio.Event().wait()
        return

    def take(parsed: Parsed) -> None:
        _write_deployment(start, machine, parsed)

    await follow(start.config.path, start.config.text, take, terminal.say)


async def _start_all(start: Start, supervisor: Supervisor, wait_for: Callable[[str], None]) -> tuple[Result, Machine]:
    wishes, ground, home = start.wishes, start.ground, start.home
    if "nats" in wishes.only:
        await supervisor.start(nats(ground))
    server = await _find_server(start)
    embedded = "engine" in wishes.only and start.source != "" and server is None
    facts = _remembered(start) if embedded else None
    if embedded and facts is None:
        await supervisor.start(engine(ground, wishes))
    certify(home, datetime.datetime.now(datetime.UTC))
    if embedded and facts is None:
        wait_for("the engine to load its model")
        facts = await _announced(supervisor)
    if not embedded and "hpc_dispatch" in wishes.only and effective.starts_workers(start.config.given):
        facts = await asyncio.to_thread(engines.list_facts, ground.python, ground.environ, home.root, wishes.model)
    machine = Machine(
        python=ground.python,
        environ=ground.environ,
        engine_url=engine_url(ground),
        engine_key=home.secret("engine.key"),
        cloud=start.options.cloud,
        server=server,
        engine=facts,
    )
    wait_for("the services to load")
    deployment = await _start_services(start, supervisor, machine, embedded=embedded)
    if embedded:
        wait_for("the engine to load its model")
        announced = await _announced(supervisor)
        _remember(start, announced)
        if announced != facts:
            machine = replace(machine, engine=announced)
            deployment = await _start_services(start, supervisor, machine, embedded=embedded)
    for name in supervisor.running:
        wait_for(name)
        await supervisor.wait_ready(name)
    port = int(supervisor.running["gateway"].ready["port"]) if "gateway" in supervisor.running else 0
    pids = {name: running.process.pid for name, running in supervisor.running.items()}
    leftovers.write(home, host=wishes.host, port=port, programs=pids)
    if port:
        await gateway_ready(start, deployment, port, wait_for)
    return _result(start, machine, deployment, port, tuple(supervisor.running), embedded=embedded), machine


def _result(
    start: Start, machine: Machine, deployment: Deployment, port: int, started: tuple[str, ...], *, embedded: bool
) -> Result:
    off = all(tier.name != "cloud" or not tier.enabled for tier in deployment.tiers)
    provider = effective.cloud_provider(machine.environ) if off else None
    host = dialled(start.wishes.host)
    return Result(
        home=start.home,
        base_url=f"http://{host}:{port}/v1" if port else "",
        key=start.key,
        deployment=deployment,
        local=_local_words(start, machine.server, machine.engine if embedded else None),
        started=started,
        cloud_variable=provider.key_variable if provider else "",
        exposed=bool(port) and not is_loopback(start.wishes.host),
    )


async def _find_server(start: Start) -> LocalServer | None:
    if start.source != effective.AUTO or start.wishes.model:
        return None
    return await asyncio.to_thread(engines.find_server, skip_port=start.wishes.port)


async def _announced(supervisor: Supervisor) -> EngineFacts:
    return engines.facts_from(await supervisor.wait_ready("engine"))


async def _start_services(start: Start, supervisor: Supervisor, machine: Machine, *, embedded: bool) -> Deployment:
    """Write the effective deployment and start the services on it, stopping those of an earlier one.

    The embedded engine starts among them, unless it runs already.
    """
    ground = start.ground
    deployment = _write_deployment(start, machine, (start.config.given, start.config.sections))
    specs = services(ground, start.wishes, deployment)
    await supervisor.stop_programs([spec.name for spec in specs])
    if embedded and "engine" not in supervisor.running:
        specs.append(engine(ground, start.wishes))
    specs.sort(key=lambda spec: START_ORDER.index(spec.name))
    await supervisor.start_in_turn(specs, at_once=max(2, _processors()), head_start_s=_HEAD_START_S)
    return deployment


def _write_deployment(start: Start, machine: Machine, parsed: Parsed) -> Deployment:
    """Complete a deployment and write it for the services."""
    given, sections = parsed
    deployment = effective.complete(given, machine)
    text = yaml.safe_dump(effective.without_defaults(deployment, sections), sort_keys=False, allow_unicode=True)
    write_private(start.home.deployment, text.encode())
    return deployment


def _processors() -> int:
    """Count the processors that we may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _remembered(start: Start) -> EngineFacts | None:
    try:
        return msgspec.json.decode(start.home.engine_facts.read_bytes(), type=EngineFacts)
    except (OSError, msgspec.DecodeError):
        return None


def _remember(start: Start, facts: EngineFacts) -> None:
    write_private(start.home.engine_facts, msgspec.json.encode(facts))


def _local_words(start: Start, server: LocalServer | None, facts: EngineFacts | None) -> str:
    """Say which engine the local tier took, and why."""
    if server is not None:
        return f"{server.title}, found at {server.base_url}"
    if facts is None:
        return "named in the configuration" if not start.source else "not started"
    why = {
        "config": "named by you",
        "models_dir": "found in the models folder",
        "hf_cache": "found in the Hugging Face cache",
        "demo": "no other engine or model was found" if not start.wishes.model else "named by you",
    }
    return f"embedded engine, {why.get(facts.source, facts.source)}"
