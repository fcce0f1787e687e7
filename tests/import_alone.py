"""Install each program alone into a throw-away environment and import all of it: an undeclared import fails here.

Run as `python tests/import_alone.py`; `make alone` does.
"""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
PROGRAMS = {
    "stream_core": "core",
    "stream_engine": "engine",
    "stream_worker": "worker",
    "stream_cli": "cli",
    "stream_judge": "services/judge",
    "stream_summarizer": "services/summarizer",
    "stream_gateway": "services/gateway",
    "stream_hpc_dispatch": "services/hpc_dispatch",
    "stream_relay": "services/relay",
}
# Core's own extras are what its rpc, bus and testing modules need; alone it is imported without them.
IMPORT_ALL = """
import importlib, pkgutil, sys
name = sys.argv[1]
package = importlib.import_module(name)
optional = tuple(f"stream_core.{part}" for part in ("rpc", "bus", "broker_client", "grpc_", "otlp", "testing"))
optional += ("stream_hpc_dispatch.clusters.globus",)  # its SDK is an extra
count = 0
for module in pkgutil.walk_packages(package.__path__, name + "."):
    if module.name.startswith(optional):
        continue
    importlib.import_module(module.name)
    count += 1
print(f"{name}: {count} modules import")
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command; its output, or an exit with it."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def check(package: str, scratch: Path) -> str:
    """Install one program with only what it declares, and import all its modules."""
    environment = scratch / package
    run(UV, "venv", "-q", "--python", sys.executable, environment, cwd=ROOT)
    python = environment / "bin/python"
    lock = ROOT / "requirements.lock"
    run(UV, "pip", "install", "-q", "-p", python, "-c", lock, f"./{PROGRAMS[package]}", cwd=ROOT)
    return run(python, "-c", IMPORT_ALL, package, cwd=scratch)


def main() -> None:
    """Check all programs, two at a time."""
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        for line in pool.map(lambda package: check(package, Path(scratch)), PROGRAMS):
            sys.stdout.write(line)


if __name__ == "__main__":
    main()
