"""What is outside the product, started in order: a network, RabbitMQ, the stand-in; and endpoints beside them."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from hpc.globus import broker, endpoint, network
from hpc.globus.broker import RabbitNode
from hpc.globus.endpoint import ROOT, TEMPLATE, Endpoint, client_environment

from stream_core.files import write_private
from stream_core.testing import programs

AMQP_PORT = 443
"""The default of both sides, and free in a network of its own."""


def why_not() -> str:
    """Say why the lab can't be built here; empty when it can."""
    missing = [*broker.missing(), *endpoint.missing()]
    return network.why_not() or (f"not installed: {', '.join(missing)}" if missing else "")


@dataclass
class Lab:
    """The running parts; each can be killed and started again."""

    folder: Path
    stack: contextlib.ExitStack
    rabbit: RabbitNode
    client: tuple[str, str] = field(default_factory=lambda: (str(uuid.uuid4()), secrets.token_hex(16)))
    """Id and secret of hpc_dispatch's own client, which also owns the endpoint."""
    token_lifetime_s: float = 3600.0
    program: programs.Program | None = None

    def start_service(self) -> None:
        """Start the stand-in, or start it again with all that it knew."""
        given = {
            "state": str(self.folder / "standin.sqlite"),
            "clients": dict([self.client]),
            "token_lifetime_s": self.token_lifetime_s,
            "port": self.rabbit.port,
            "management_url": self.rabbit.management_url,
            "user": self.rabbit.user,
            "password": self.rabbit.password,
        }
        env = {"STANDIN": json.dumps(given), "PYTHONPATH": str(ROOT / "tests")}
        self.program = self.stack.enter_context(programs.start("hpc.globus.standin", env=env))

    @property
    def env(self) -> dict[str, str]:
        """By which hpc_dispatch finds the stand-in's tokens; its credentials stand in files."""
        return {"GLOBUS_SDK_SERVICE_URL_AUTH": client_environment(*self.client)["GLOBUS_SDK_SERVICE_URL_AUTH"]}

    @property
    def secret_file(self) -> Path:
        """That holds the client's secret."""
        return self.folder / "client-secret"

    def section(self, endpoint_id: str, **more: object) -> dict[str, object]:
        """Write section `globus` of a cluster."""
        schema = str(TEMPLATE / "user_config_schema.json")
        known = {"client_id": self.client[0], "client_secret_file": str(self.secret_file), "environment": "local"}
        return {"endpoint_id": endpoint_id, **known, "user_endpoint_schema": schema, **more}

    def register_function(self) -> str:
        """Register the function that starts workers as an operator does; its id."""
        path = self.folder / "register.yaml"
        section = self.section(str(uuid.uuid4()), user_endpoint_config={"trial": True})
        deployment = {"tiers": [{"name": "hpc", "kind": "hpc", "privacy": "restricted"}]}
        path.write_text(
            yaml.safe_dump({**deployment, "clusters": [{"name": "site", "backend": "globus", "globus": section}]})
        )
        command = [sys.executable, "-m", "stream_hpc_dispatch.register", "site"]
        env = {**os.environ, **self.env, "STREAM_CONFIG": str(path)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def endpoint(self, name: str, functions: list[str], env: dict[str, str]) -> Endpoint:
        """Describe an endpoint of this lab; `run_endpoint` runs it."""
        return Endpoint(self.folder / name, self.client, functions, env)


@contextlib.contextmanager
def run_lab(folder: Path) -> Iterator[Lab]:
    """Build it, and take it down when the block ends."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(network.own_network())
        rabbit = RabbitNode(folder / "rabbitmq", port=AMQP_PORT)
        stack.callback(rabbit.kill)
        rabbit.start()
        lab = Lab(folder, stack, rabbit)
        write_private(lab.secret_file, lab.client[1].encode())
        lab.start_service()
        yield lab
