"""A real Globus Compute endpoint, configured from `deploy/hpc/globus`, as an institution would run it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from hpc.globus.standin import URL, show

ROOT = Path(__file__).parents[3]
TEMPLATE = ROOT / "deploy/hpc/globus"
BIN = ROOT / ".cache/hpc/endpoint/bin"
"""Where tests/hpc/install.sh puts the agent."""
_NAME = "site"
_READY_S = 120.0
_POLL_S = 0.05


def missing() -> list[str]:
    """Name what an endpoint needs and this machine has not."""
    return [] if (BIN / "globus-compute-endpoint").exists() else ["globus-compute-endpoint (tests/hpc/install.sh)"]


def client_environment(client: str, secret: str) -> dict[str, str]:
    """Variables by which Globus's own programs find the stand-in and their credentials."""
    return {
        "GLOBUS_SDK_ENVIRONMENT": "local",
        "GLOBUS_SDK_SERVICE_URL_AUTH": f"{URL}/",
        "GLOBUS_COMPUTE_CLIENT_ID": client,
        "GLOBUS_COMPUTE_CLIENT_SECRET": secret,
    }


@dataclass
class Endpoint:
    """One, and what it has started.

    Args:
        folder: for its configuration and logs; private.
        client: its id and secret.
        functions: that may run.
        env: variables of its users' processes and jobs.
    """

    folder: Path
    client: tuple[str, str]
    functions: list[str]
    env: Mapping[str, str]
    id: str = ""
    process: subprocess.Popen[bytes] | None = None
    _started: list[psutil.Process] = field(default_factory=list)

    def configure(self) -> None:
        """Write its configuration: the shipped one, with what every institution must change."""
        place = self.folder / _NAME
        place.mkdir(parents=True)
        for name in ("user_config_template.yaml.j2", "user_config_schema.json"):
            shutil.copy(TEMPLATE / name, place / name)
        config = yaml.safe_load((TEMPLATE / "config.yaml").read_text())
        config["allowed_functions"] = self.functions
        (place / "config.yaml").write_text(yaml.safe_dump(config))
        environment = yaml.safe_load((TEMPLATE / "user_environment.yaml").read_text())
        path = f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        environment |= {**self.env, "PATH": path, **self._own_environment()}
        (place / "user_environment.yaml").write_text(yaml.safe_dump(environment))
        (place / "user_environment.yaml").chmod(0o600)

    def _own_environment(self) -> dict[str, str]:
        return {**client_environment(*self.client), "GLOBUS_COMPUTE_USER_DIR": str(self.folder)}

    def start(self) -> None:
        """Start it and wait until the service hears it.

        Raises:
            RuntimeError: it did not; the message holds its log.
        """
        # Of one that was killed: for some time the agent takes it for alive, and tells its operator to remove this.
        (self.folder / _NAME / "daemon.pid").unlink(missing_ok=True)
        log_path, began = self.folder / "log", time.time()
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "globus-compute-endpoint"), "start", _NAME],
                env={**os.environ, **self._own_environment(), "PATH": f"{BIN}:{os.environ['PATH']}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        info = self.folder / _NAME / "endpoint.json"
        while self.process.poll() is None and time.time() < began + _READY_S:
            if info.exists():
                with contextlib.suppress(ValueError, KeyError):
                    self.id = json.loads(info.read_text())["endpoint_id"]
                if show("endpoint").get(self.id, {}).get("heard", 0) > began:
                    return
            time.sleep(_POLL_S)
        self.kill()
        raise RuntimeError(f"the endpoint is not ready:\n{self.log()}")

    def log(self) -> str:
        """What it and its users' processes have written."""
        paths = [self.folder / "log", *sorted(self.folder.glob("*/*.log"))]
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')}" for path in paths if path.exists())

    def _descendants(self) -> list[psutil.Process]:
        """All that it has ever started on this machine and that still lives, but for jobs of the batch system."""
        with contextlib.suppress(psutil.Error):
            if self.process is not None:
                self._started += psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in dict.fromkeys(self._started) if one.is_running()]

    def kill(self) -> None:
        """End the agent, its processes for users with it, as when memory runs out: nobody tells anybody.

        Parsl's interchange is left alone, and so are the jobs that talk to it.
        """
        self._descendants()
        if self.process is None:
            return
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.process.pid).children():
                process.kill()
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as an operator does: its jobs end, too."""
        self._descendants()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        self.kill()
        for process in self._descendants():
            with contextlib.suppress(psutil.Error):
                process.kill()


@contextlib.contextmanager
def run_endpoint(endpoint: Endpoint) -> Iterator[Endpoint]:
    """Run one until the block ends."""
    endpoint.configure()
    try:
        endpoint.start()
        yield endpoint
    finally:
        endpoint.stop()
