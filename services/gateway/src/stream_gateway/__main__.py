"""`python -m stream_gateway`: startup, serve, drain, stop."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from stream_core import tracing
from stream_core.errors import ConfigError, UpstreamUnavailable
from stream_core.health import Readiness, open_here, serve_metrics
from stream_core.ids import new_id, to_hex
from stream_core.lifecycle import announce_ready, run
from stream_core.privacy import may_see
from stream_core.settings import config_path, read_deployment
from stream_core.telemetry import configure_logs
from stream_gateway import __version__, meters
from stream_gateway.accounts.life import Accounts, open_accounts
from stream_gateway.app import App
from stream_gateway.backends.registry import Registry
from stream_gateway.batches.attended import AttendedPipeline
from stream_gateway.batches.service import Batches
from stream_gateway.doorway import Doorway, door_limits
from stream_gateway.feedback import RecentAnswers
from stream_gateway.fetching.fetcher import Fetcher
from stream_gateway.fitting import Fitting
from stream_gateway.judging import Judge
from stream_gateway.ledger.writer import Ledger
from stream_gateway.lifeline import Running
from stream_gateway.limits.book import Book
from stream_gateway.limits.meter import Meter
from stream_gateway.pipeline import Pipeline
from stream_gateway.routes.asking import Means
from stream_gateway.routes.endpoints import endpoints
from stream_gateway.settings import GatewaySettings, HttpsFiles
from stream_gateway.spending import Spending
from stream_gateway.till import Till
from stream_gateway.watch import FileWatch, follow

if TYPE_CHECKING:
    from fastapi import APIRouter

_log = logging.getLogger("stream_gateway")
_LAST_WRITES_S = 2
_SETTLE_S = 5.0
"""What hpc_dispatch gets to tell its pool before a new gateway is ready without it."""
_BACKLOG = 2048
_SEND_BUFFER = 256 * 1024


class _Server(uvicorn.Server):
    """uvicorn, whose life is ours to lead."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: the gateway drains before the server may stop."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say when it listens."""
        await super().startup(sockets)
        self.serving.set()


async def serve(stop: asyncio.Event) -> None:
    """Serve until told to stop, then let running streams finish."""
    settings = GatewaySettings.read()
    configure_logs("stream-gateway", settings.log_level)
    tracing.configure("gateway", settings.traces)
    running = Running()
    _check(settings.https)
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(_listen(settings.host, settings.port))
        registry = await stack.enter_async_context(_registry(settings))
        running.opening = "waiting for hpc_dispatch" if registry.hpc else ""
        opening = open_accounts(settings, lambda: registry.current.deployment.policy.classes)
        accounts = await stack.enter_async_context(opening)
        judge = Judge.of(settings)
        stack.push_async_callback(judge.aclose)
        fitting = Fitting.of(settings)
        stack.push_async_callback(fitting.aclose)
        recent, spending = RecentAnswers(), Spending(time.time)
        fetcher = Fetcher(settings.fetch_urls, most_pixels=settings.max_image_pixels)
        book, ledger, till = _books(settings, spending, registry)
        attended = AttendedPipeline(judge, fitting, till, fetcher)
        lines_way = Pipeline(judge, fitting, till, fetcher)
        batches = Batches(settings, accounts.entrance, registry, lines_way, attended, recent, spending, book, ledger)
        stack.push_async_callback(batches.aclose)
        means = Means(
            accounts.entrance,
            registry,
            attended,
            running,
            settings.max_body_bytes,
            ledger,
            recent,
            settings.trace_content,
        )
        unready = partial(_unready, running, accounts)
        app = App(
            means,
            endpoints(batches, registry),
            batches,
            unready,
            partial(_more_routes, means, batches, accounts),
            partial(open_here, settings.host, settings.metrics_port),
        )
        told = await stack.enter_async_context(_metrics(settings, running, registry, attended, unready))
        server = _server(app, settings)
        async with asyncio.TaskGroup() as tasks:
            follower = tasks.create_task(accounts.keyring.follow(settings.reload_interval_s))
            renewing = tasks.create_task(book.follow())
            serving = tasks.create_task(server.serve(sockets=[listener]))
            await server.serving.wait()
            port = listener.getsockname()[1]
            announce_ready(settings.ready_file, port=port, **told)
            _log.info("ready", extra={"host": settings.host, "port": port})
            settling = tasks.create_task(_settle(running, registry))
            loading = tasks.create_task(_load(app, accounts))
            await batches.start()
            await stop.wait()
            running.closing = True
            _log.info("draining", extra={"running": len(running), "grace_s": settings.grace_s})
            lines = tasks.create_task(batches.drain(settings.grace_s))
            cut = await running.drain(settings.grace_s, UpstreamUnavailable("the gateway had to stop"))
            if cut:
                _log.warning("streams cut at the end of the grace time", extra={"cut": cut})
            await lines
            server.should_exit = True
            await serving
            for task in (follower, renewing, settling, loading):
                task.cancel()


def _unready(running: Running, accounts: Accounts) -> str | None:
    """Say why this replica should get no new requests; None: it should."""
    return running.why_not() or accounts.unready()


def _metrics(
    settings: GatewaySettings, running: Running, registry: Registry, pipeline: AttendedPipeline, unready: Readiness
) -> contextlib.AbstractAsyncContextManager[dict[str, int]]:
    """Have the numbers read, on their own port where there is one."""
    meters.watch(running, registry, pipeline.waited_s)
    return serve_metrics(settings.metrics_host, settings.metrics_port, unready)


def _server(app: App, settings: GatewaySettings) -> _Server:
    """Set the server up, with the limits of connections."""
    return _Server(
        uvicorn.Config(
            app,
            http=partial(Doorway, door_limits(settings)),  # type: ignore[arg-type]  # it is only ever called
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=_LAST_WRITES_S,
            ssl_certfile=settings.https.certificate if settings.https else None,
            ssl_keyfile=settings.https.key if settings.https else None,
        )
    )


def _books(settings: GatewaySettings, spending: Spending, registry: Registry) -> tuple[Book, Ledger, Till]:
    """What callers have used, and what is noted of it, under a name that this run alone has."""

    def may_hold(privacy: str) -> bool:
        return may_see(registry.current.deployment.policy.classes, settings.ledger_privacy, privacy)

    replica, kept = to_hex(new_id()), settings.batch_key_file is not None
    book = Book(replica, time.time, shared=kept, lease_s=settings.lease_s)
    ledger = Ledger(replica, time.time, kept=kept, may_hold=may_hold)
    return book, ledger, Till(spending, Meter(book, time.monotonic), ledger)


def _more_routes(means: Means, batches: Batches, accounts: Accounts) -> "list[APIRouter]":
    """Build what is not in a hurry."""
    from stream_gateway.routes.admin_keys import admin_routes  # noqa: PLC0415  (FastAPI, loaded aside)
    from stream_gateway.routes.feedback import feedback_routes  # noqa: PLC0415
    from stream_gateway.routes.messages import message_routes  # noqa: PLC0415
    from stream_gateway.routes.route import explain_routes  # noqa: PLC0415
    from stream_gateway.routes.usage import usage_routes  # noqa: PLC0415

    return [
        explain_routes(means.entrance, means.registry, means.pipeline, means.max_body_bytes),
        feedback_routes(means.entrance, batches),
        message_routes(means),
        usage_routes(means.entrance, means.registry, batches),
        *admin_routes(accounts),
    ]


async def _load(app: App, accounts: Accounts) -> None:
    """Load what is not in a hurry, one after the other, and keep up with the accounts until cancelled."""
    await app.load()
    await accounts.directory.follow()


@contextlib.asynccontextmanager
async def _registry(settings: GatewaySettings) -> AsyncIterator[Registry]:
    """Build the tiers, and follow the deployment file, until the block ends."""
    path = config_path()
    watch = FileWatch(path) if path else None
    registry = Registry(settings)
    await registry.load(read_deployment())

    async def reread() -> None:
        try:
            await registry.load(read_deployment())
        except ConfigError as error:
            _log.error("deployment not read again, the last good one goes on: %s", error.message)
        else:
            _log.info("deployment read again", extra={"tiers": list(registry.current.entries)})

    follower = asyncio.create_task(follow(watch, settings.reload_interval_s, reread)) if watch else None
    try:
        yield registry
    finally:
        if follower is not None:
            follower.cancel()
        await registry.aclose()


async def _settle(running: Running, registry: Registry) -> None:
    """Be ready once the workers are known: before that, requests for them would be refused; others go on meanwhile."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE_S):
            await registry.settled()
    running.opening = ""


def _check(https: HttpsFiles | None) -> None:
    """Try certificate and key once.

    Raises:
        ConfigError: one can't be read, or they do not belong together.
    """
    if https is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(https.certificate, https.key)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError(f"{https.certificate} and {https.key}: {reason}", param="https") from error


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """Take the port before anything else is started.

    Raises:
        ConfigError: busy, or not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(f"can't listen on {host}:{port}: {os.strerror(error.errno or 0)}", param="port") from error
    # What a client has not read yet stays little; connections inherit this from the listener.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    with listener:
        yield listener


def main() -> None:
    """Run the program."""
    if "--version" in sys.argv[1:]:
        sys.stdout.write(f"stream-gateway {__version__}\n")
        return
    run("stream-gateway", serve)


if __name__ == "__main__":
    main()
