"""`python -m hpc.globus.standin`: the stand-in as a program of its own, so that it can be killed and started again.

Its arguments stand in the environment, as JSON: `STANDIN`. The tests' switches are under `/standin/`.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import requests
from aiohttp import web
from hpc.globus.accounts import Accounts
from hpc.globus.amqp import Post
from hpc.globus.faults import Faults
from hpc.globus.rest import Compute
from hpc.globus.state import State

from stream_core.lifecycle import announce_ready, run

PORT = 5000
"""The one that SDK and endpoint ask in the environment `local`; it can't be chosen."""
URL = f"http://localhost:{PORT}"
_LARGEST_REQUEST = 64 * 1024 * 1024


async def serve(stop: asyncio.Event) -> None:
    """Answer until told to stop."""
    given = json.loads(os.environ["STANDIN"])
    state = State(Path(given["state"]))
    for name, secret in given["clients"].items():
        state.put("client", name, {"secret": secret})
    accounts, faults = Accounts(state, given["token_lifetime_s"]), Faults()
    post = Post(state, given["port"], given["management_url"], (given["user"], given["password"]))

    async def set_faults(request: web.Request) -> web.Response:
        faults.set(await request.text())
        return web.Response()

    async def revoke(_: web.Request) -> web.Response:
        accounts.revoke_all()
        return web.Response()

    async def show(request: web.Request) -> web.Response:
        if request.match_info["what"] == "unknown":
            return web.json_response(faults.unknown)
        return web.json_response(state.all(request.match_info["what"]))

    app = web.Application(middlewares=[faults.middleware], client_max_size=_LARGEST_REQUEST)
    app.add_routes([*accounts.routes(), *Compute(state, accounts, post).routes()])
    app.add_routes([web.put("/standin/faults", set_faults), web.delete("/standin/token", revoke)])
    app.add_routes([web.get("/standin/{what}", show)])
    runner = web.AppRunner(app, handler_cancellation=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PORT).start()
    announce_ready(Path(os.environ["HPC_GLOBUS_STANDIN__READY_FILE"]), port=PORT)
    await stop.wait()
    await runner.cleanup()


def set_faults(*faults: dict[str, Any]) -> None:
    """Replace the running stand-in's switches; see `faults.Fault`."""
    requests.put(f"{URL}/standin/faults", data=json.dumps(faults), timeout=10).raise_for_status()


def show(what: str) -> Any:
    """What the running stand-in knows of a kind, e.g. "task", by id; or "unknown" routes that were asked."""
    answer = requests.get(f"{URL}/standin/{what}", timeout=10)
    answer.raise_for_status()
    return answer.json()


def revoke_tokens() -> None:
    """End all tokens now."""
    requests.delete(f"{URL}/standin/token", timeout=10).raise_for_status()


if __name__ == "__main__":
    run("standin", serve)
