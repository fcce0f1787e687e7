"""`stream backup` and `stream restore`: the gateway's own program for that, with what `stream up` knows.

A backup is taken from the running broker. Where nothing runs, and for a restore, which nobody may disturb, the broker
alone is started and stopped again.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from stream_cli import broker, leftovers
from stream_cli.home import Home, fill, locked, open_home
from stream_cli.plan import PORTED, STOP_ORDER, Given, Ground, Wishes, nats, services
from stream_cli.ports import free_ports
from stream_cli.prepare import read_config
from stream_cli.processes import Supervisor
from stream_core.errors import ConfigError

_USER: Final = "backup"
_READY_S: Final = 30.0


@dataclass(frozen=True)
class Work:
    """What is to be done."""

    home: Path
    arguments: Sequence[str]
    """Of `python -m stream_gateway.backup`."""
    config: Path | None
    alone: bool
    """Nothing may run meanwhile."""


def run(work: Work) -> int:
    """Do it; the program's exit code.

    Raises:
        ConfigError: a wrong setting, or `stream up` runs and must not.
    """
    if find_spec("stream_gateway") is None:
        raise ConfigError(f"stream_gateway is not installed beside {sys.executable}; run `make up`")
    home = open_home(work.home)
    given_url = os.environ.get("NATS_URL", "").strip()
    record = leftovers.read(home)
    if record is not None and record.alive and not work.alone:
        given = broker.given(given_url) if given_url else None
        port = 0 if given else leftovers.nats_port(record)
        if not given and not port:
            raise ConfigError("the running `stream up` has no broker of its own; say where it is", param="NATS_URL")
        return asyncio.run(_program(work, _environment(home, work, port, given, running=True)))
    with locked(home):
        leftovers.sweep(home)
        fill(home)
        if given_url:
            return asyncio.run(_program(work, _environment(home, work, 0, broker.given(given_url), running=False)))
        return asyncio.run(_with_broker(home, work))


async def _with_broker(home: Home, work: Work) -> int:
    broker.configure(home)
    (port,) = free_ports(1)
    environment = _environment(home, work, port, None, running=False)
    async with _broker(home, port):
        return await _program(work, environment)


@contextlib.asynccontextmanager
async def _broker(home: Home, port: int) -> AsyncIterator[None]:
    ground = _ground(home, port, None, {})
    async with Supervisor(home, STOP_ORDER) as supervisor:
        await supervisor.start(nats(ground))
        death = asyncio.ensure_future(supervisor.first_death())
        ready = asyncio.ensure_future(supervisor.wait_ready("nats"))
        try:
            done, _ = await asyncio.wait({death, ready}, timeout=_READY_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise ConfigError(f"the broker is not ready within {_READY_S:g} s, see {home.log('nats')}")
            for task in done:
                task.result()
            yield
        finally:
            for task in (death, ready):
                task.cancel()
            await asyncio.gather(death, ready, return_exceptions=True)


async def _program(work: Work, environment: Mapping[str, str]) -> int:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stream_gateway.backup", *work.arguments), env=environment
    )
    try:
        return await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def _environment(home: Home, work: Work, port: int, given: Given | None, *, running: bool) -> dict[str, str]:
    """Build the environment of the gateway that `stream up` would start, but for its user at our own broker."""
    path = home.deployment if running and work.config is None else None
    config = read_config(path or work.config)
    only = frozenset({"gateway"} if given else {"gateway", "nats"})
    (spec,) = services(_ground(home, port, given, config.sections), Wishes(only=only), config.given)
    made = {name: value for name, value in spec.env.items() if name != "STREAM_CONFIG"}
    if config.path is not None:
        made["STREAM_CONFIG"] = str(config.path.absolute())
    if given is None:
        made["STREAM_GATEWAY__NATS__USER"] = _USER
        made["STREAM_GATEWAY__NATS__PASSWORD_FILE"] = str(home.nats_password(_USER))
    return made


def _ground(home: Home, port: int, given: Given | None, sections: Mapping[str, Mapping[str, object]]) -> Ground:
    return Ground(
        home=home,
        python=sys.executable,
        environ=dict(os.environ),
        ports=dict.fromkeys(PORTED, port),
        sections=sections,
        nats_binary="" if given else str(broker.binary()),
        nats_given=given,
    )
