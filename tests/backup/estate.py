"""Two gateways on a broker with users and a store: saved, destroyed, restored on another broker and another store."""

import contextlib
import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batches.press import gateway_env
from gateway.stage import Gateway, Stage, tier

from stream_cli.broker import permissions
from stream_core.files import write_private
from stream_core.testing.broker import Broker

PASSWORD = "of a test's broker"
ALIVE_S = 2


@dataclass
class Estate:
    """What an installation has, on this machine."""

    stage: Stage
    store: Mapping[str, Any]
    """Settings that say where the store is."""
    broker: Broker
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    gateways: list[Gateway] = field(default_factory=list)

    @classmethod
    @contextlib.contextmanager
    def built(cls, folder: Path, engine: str, store: Mapping[str, Any]) -> Iterator["Estate"]:
        """Make the files and start the broker; gateways are started by `serve`."""
        write_private(folder / "batch.key", secrets.token_hex(32).encode())
        write_private(folder / "password", PASSWORD.encode())
        stage = Stage(folder, {"tiers": [tier("local", engine)]})
        stage.add_key("admin", admin=True)
        with contextlib.ExitStack() as stack:
            estate = cls(stage, store, _broker(folder / "nats"))
            stack.callback(lambda: estate.broker.stop())  # noqa: PLW0108  (whichever it is then)
            stack.enter_context(estate.stack)
            yield estate

    def env(self, user: str = "gateway") -> dict[str, str]:
        """Environment of a gateway, or of another user of the broker."""
        return {
            **self.stage.env(**self.store),
            **gateway_env(self.stage.folder, self.broker.url),
            "STREAM_GATEWAY__NATS__USER": user,
            "STREAM_GATEWAY__NATS__PASSWORD_FILE": str(self.stage.folder / "password"),
            "STREAM_GATEWAY__LEDGER_ALIVE_S": str(ALIVE_S),
            "STREAM_GATEWAY__STORE_LOOK_S": "0.1",
        }

    def serve(self, lines: int) -> None:
        """Start two gateways, which run so many lines of batches at once, each."""
        env = {**self.env(), "STREAM_GATEWAY__BATCHES__MAX_CONCURRENCY": str(lines)}
        for _ in range(2):
            self.gateways.append(self.stack.enter_context(self.stage.run(env)))

    def lose(self, store: Mapping[str, Any]) -> None:
        """Everything dies and is gone; there are a new broker and a new store, both empty."""
        for gateway in self.gateways:
            gateway.program.process.kill()
        self.gateways.clear()
        self.stack.close()
        self.broker.kill()
        shutil.rmtree(self.stage.folder / "nats")
        (self.stage.folder / "keys.json").unlink()
        if "state_dir" in self.store:
            shutil.rmtree(self.store["state_dir"])
        self.store, self.broker = store, _broker(self.stage.folder / "nats again")

    def command(self, *arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `python -m stream_gateway.backup` to its end."""
        command = [sys.executable, "-m", "stream_gateway.backup", *map(str, arguments)]
        environment = {"PATH": "", **self.env("backup"), **(env or {})}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def _broker(folder: Path) -> Broker:
    folder.mkdir()
    users = [{"user": user, "password": PASSWORD, "permissions": permissions(user)} for user in ("gateway", "backup")]
    broker = Broker(folder, f"authorization: {json.dumps({'users': users})}\n")
    broker.start()
    return broker
