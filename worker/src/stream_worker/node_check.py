"""The preflight's other half: GPUs, the engine, its model, space, limits of this node."""

import importlib.metadata
import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Final

from stream_worker.findings import Finding

_GB: Final = 10**9
_MIB: Final = 2**20
_QUERY_S: Final = 30.0
_FILES: Final = 4096
"""Open files: a socket to the engine for each request, and vLLM's own."""
_ROOM: Final = 1.15
"""Of a model's weights: what must be free at least, for the cache of the tokens."""


def check_gpus(wanted: int) -> tuple[list[Finding], int]:
    """Ask the driver.

    Args:
        wanted: how many must be there; 0: none needs to.

    Returns:
        Findings, and the bytes that are free on the first `wanted` GPUs together; 0: not known.
    """
    nvidia = shutil.which("nvidia-smi")
    if nvidia is None:
        other = "rocm-smi is there: an AMD GPU is not looked at" if shutil.which("rocm-smi") else "no nvidia-smi"
        if wanted == 0:
            return [Finding("ok", "GPU", f"none asked for; {other}")], 0
        return [Finding("FIX", "GPU", other, "run on a GPU node: --gres=gpu:1 or ngpus=1; in a container: --nv")], 0
    command = [nvidia, "--query-gpu=name,memory.total,memory.used,driver_version", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_S, check=True)  # noqa: S603  (found)
        gpus = [[field.strip() for field in line.split(",")] for line in told.stdout.splitlines() if line.strip()]
        free = [(int(total) - int(used)) * _MIB for _, total, used, _ in gpus]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        fix = "the driver does not answer: `nvidia-smi` by hand says more; drain the node"
        return [Finding("FIX", "GPU", f"nvidia-smi: {type(error).__name__}", fix)], 0
    words = "; ".join(
        f"{name}, {room / _GB:.0f} GB free, driver {driver}"
        for (name, _, _, driver), room in zip(gpus, free, strict=True)
    )
    if len(gpus) < wanted:
        return [
            Finding("FIX", "GPU", f"{len(gpus)} of {wanted}: {words or 'none'}", "ask the batch system for more")
        ], 0
    return [Finding("ok", "GPU", words or "none")], sum(free[:wanted])


def check_vllm() -> Finding:
    """Look for vLLM, without importing it: that takes half a minute."""
    try:
        version = importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        command = shutil.which("vllm")
        if command is None:
            return Finding("FIX", "vLLM", "not installed", "pip install 'stream-worker[vllm]', or --no-vllm")
        return Finding("ok", "vLLM", f"{command}, of another environment")
    return Finding("ok", "vLLM", f"version {version}")


def check_model(folder: Path, memory_bytes: int) -> list[Finding]:
    """Look whether a model is there, whole, readable, and small enough.

    Args:
        folder: with config.json and weights.
        memory_bytes: free on the GPUs; 0: not known.
    """
    what = f"model {folder}"
    try:
        weights = [path for path in folder.iterdir() if path.suffix in {".safetensors", ".bin", ".gguf"}]
        missing = [name for name in ("config.json",) if not (folder / name).is_file()]
        size = sum(path.stat().st_size for path in weights)
        unreadable = [path.name for path in folder.iterdir() if not os.access(path, os.R_OK)]
    except OSError as error:
        return [Finding("FIX", what, error.strerror or str(error), "is its file system mounted on this node?")]
    if unreadable:
        return [Finding("FIX", what, f"not readable: {', '.join(unreadable[:3])}", "give the workers' user the right")]
    if missing or not weights:
        lacks = [*missing, *([] if weights else ["weights (*.safetensors)"])]
        return [
            Finding("FIX", what, f"lacks {', '.join(lacks)}", "fetch it again; an interrupted copy looks like this")
        ]
    told = f"{len(weights)} files of weights, {size / _GB:.1f} GB"
    if memory_bytes and size * _ROOM > memory_bytes:
        fix = "more GPUs (--tensor-parallel-size), or quantised weights"
        return [Finding("FIX", what, f"{told}; {memory_bytes / _GB:.1f} GB are free on the GPUs", fix)]
    return [Finding("ok", what, told)]


def check_disk(place: Path, wanted_gb: float) -> Finding:
    """Look for free space where a worker or its engine writes."""
    there = next((path for path in (place, *place.parents) if path.exists()), Path("/"))
    what = f"disk {place}"
    if not os.access(there, os.W_OK):
        return Finding("FIX", what, "not writable", "set TMPDIR (and XDG_CACHE_HOME) to a folder of the job's own")
    free = shutil.disk_usage(there).free / _GB
    if free < wanted_gb:
        return Finding("FIX", what, f"{free:.1f} GB free of {wanted_gb:g}", "clear it, or set TMPDIR elsewhere")
    return Finding("ok", what, f"{free:.0f} GB free")


def check_limits() -> Finding:
    """Look at the limit of open files, which many sites leave at 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    told = f"{soft} open files, {hard} at most"
    if soft < _FILES:
        return Finding("note", "limits", told, f"`ulimit -n {_FILES}` in the job's script, for many requests at once")
    return Finding("ok", "limits", told)
