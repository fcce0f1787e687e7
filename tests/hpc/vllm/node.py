"""Real vLLM as a worker starts it here: the tiny model, the pool that names it, the running engines to look into."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from stream_core.testing.road import Road

ENVIRONMENT = Path(__file__).parents[3] / ".cache/hpc/vllm"
PYTHON = ENVIRONMENT / "bin/python"
MODEL = "tiny"
CONTEXT = 8192
_SERVER = "vllm.entrypoints.openai.api_server"


def why_not() -> str:
    """Why vLLM can't run here; empty when it can."""
    return "" if (ENVIRONMENT / "installed").exists() else "vLLM is not installed; tests/hpc/install.sh says why"


def write_model(folder: Path) -> Path:
    """Make the tiny model with vLLM's own Python."""
    subprocess.run([PYTHON, Path(__file__).with_name("tiny_model.py"), folder], check=True)
    return folder


def pool(model: Path, cache: Path) -> dict[str, Any]:
    """A pool of workers that start vLLM, as an operator writes it, but for what makes it run without a GPU.

    Args:
        model: its folder.
        cache: where vLLM may write.
    """
    command = [str(PYTHON), "-m", _SERVER, "--host", "127.0.0.1", "--port", "{port}"]
    command += ["--model", str(model), "--served-model-name", MODEL, "--max-model-len", str(CONTEXT)]
    command += ["--disable-access-log-for-endpoints", "/health,/metrics"]
    command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    return {
        "engine_url": "",
        "engine_command": [*command, "--enforce-eager", "--dtype", "bfloat16"],
        "engine_environment": {
            "VLLM_API_KEY": "{api_key}",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(cache),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            # Several engines share the cores: threads that wait for each other would wait for each other's engines.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
        },
        "model": {
            "id": MODEL,
            "context_window": CONTEXT,
            "capabilities": ["tools", "json_schema", "logprobs", "continue_final_message"],
        },
    }


@dataclass(frozen=True)
class Engine:
    """A running vLLM.

    Attributes:
        worker: whose it is.
        processes: its server, first, and all that it has started.
    """

    worker: psutil.Process
    processes: tuple[psutil.Process, ...]
    url: str
    api_key: str

    async def metrics(self, session: aiohttp.ClientSession) -> str:
        """What it says of itself."""
        async with session.get(f"{self.url}/metrics") as response:
            return await response.text()

    async def running(self, session: aiohttp.ClientSession) -> int:
        """Requests in its batch."""
        return int(counted(await self.metrics(session), "vllm:num_requests_running"))


def engines(road: Road) -> list[Engine]:
    """Every worker's engine, in the workers' order; without those that are just being started anew."""
    found = []
    for worker in road.workers():
        for server in worker.children():
            command = server.cmdline()
            if _SERVER not in command:
                continue
            port = command[command.index("--port") + 1]
            key = server.environ()["VLLM_API_KEY"]
            processes = (server, *server.children(recursive=True))
            found.append(Engine(worker, processes, f"http://127.0.0.1:{port}", key))
    return found


def counted(metrics: str, name: str, label: str = "") -> float:
    """Sum of a metric's samples, of those with a label when one is named."""
    lines = [line for line in metrics.splitlines() if line.startswith(name + "{") and label in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
