"""`python -m stream_engine`: serve one model until SIGTERM or SIGINT."""

import asyncio
import logging
import os
import sys
from pathlib import Path

from stream_core.health import serve_health
from stream_core.lifecycle import announce_ready, run
from stream_core.telemetry import configure_logs
from stream_engine import VERSION
from stream_engine.llama import Llama, capabilities, check_addresses, context_of, leave, parameters, silence
from stream_engine.models import Model, Places, machine_memory, resolve
from stream_engine.settings import EngineSettings

log = logging.getLogger("stream_engine")


def _announce(settings: EngineSettings, model: Model, llama: Llama, health_port: int) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    announce_ready(
        settings.ready_file,
        port=llama.port,
        health_port=health_port,
        base_url=f"http://{host}:{llama.port}/v1",
        model=settings.alias or model.alias,
        source=model.source,
        demo=model.demo,
        file=str(model.path),
        context=context_of(settings, model),
        parallel=settings.parallel,
        capabilities=capabilities(model),
    )


async def serve(stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        ConfigError: a setting is wrong, or the model cannot be served.
    """
    silence()
    settings = EngineSettings.read()
    configure_logs("engine", settings.log_level)
    check_addresses(settings)
    model = resolve(settings.model, Places.from_environment(os.environ, Path.home()), machine_memory())
    params = parameters(settings, model)
    reason: list[str] = ["loading the model"]
    async with serve_health(settings.host, settings.health_port, lambda: reason[0] if reason else None) as health_port:
        starting = asyncio.ensure_future(Llama.start(params, explain=settings.log_level.upper() == "DEBUG"))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            leave()  # told to stop while loading, which cannot be interrupted
        llama = starting.result()
        reason.clear()
        _announce(settings, model, llama, health_port)
        log.info("serving", extra={"model": settings.alias or model.alias, "source": model.source, "port": llama.port})
        await stopping
        leave()


def main() -> None:
    """Run the engine as a program."""
    if "--version" in sys.argv[1:]:
        sys.stdout.write(f"stream-engine {VERSION}\n")
        return
    run("stream-engine", serve)


if __name__ == "__main__":
    main()
