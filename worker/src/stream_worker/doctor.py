"""`stream-worker doctor`: what works on this node, and what to fix, before the first job does.

    stream-worker doctor --relay wss://relay.example [--relay ...] [--ca-file FILE]
                         [--model FOLDER] [--gpus N] [--no-vllm] [--disk-gb N]

Run it as a job on a compute node, as the user and in the environment that workers get. It sends no secret: a relay is
asked for a WebSocket and left before HELLO.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stream_worker import VERSION
from stream_worker.findings import Finding, failed, report
from stream_worker.node_check import check_disk, check_gpus, check_limits, check_model, check_vllm
from stream_worker.relay_check import check_relays


def arguments(told: Sequence[str]) -> argparse.Namespace:
    """Read the command's options; wrong ones end the program with 2 and a line that says why."""
    parser = argparse.ArgumentParser(
        prog="stream-worker doctor", description="What works on this node, and what to fix."
    )
    parser.add_argument("--relay", action="append", default=[], metavar="URL", help="as hpc_dispatch has them")
    parser.add_argument("--ca-file", default="", metavar="FILE", help="PEM bundle for the relays' certificates")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="that the engine is to load")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="that the engine is to have (1)")
    parser.add_argument("--no-vllm", dest="vllm", action="store_false", help="another engine than vLLM will run")
    parser.add_argument("--disk-gb", type=float, default=10.0, metavar="N", help="free space for logs and caches (10)")
    return parser.parse_args(told)


async def examine(options: argparse.Namespace) -> list[Finding]:
    """Check everything; one failure does not hide the next."""
    python = ".".join(map(str, sys.version_info[:3]))
    findings = [Finding("ok", "worker", f"version {VERSION}, Python {python} at {sys.executable}")]
    findings += await check_relays(options.relay, options.ca_file)
    gpus, memory_bytes = await asyncio.to_thread(check_gpus, options.gpus)
    findings += gpus
    if options.vllm:
        findings.append(check_vllm())
    if options.model is not None:
        findings += await asyncio.to_thread(check_model, options.model, memory_bytes)
    findings += [check_disk(place, options.disk_gb) for place in _written()]
    findings.append(check_limits())
    return findings


def _written() -> list[Path]:
    """Where a worker and its engine write."""
    cache = os.environ.get("VLLM_CACHE_ROOT") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return list(dict.fromkeys((Path(tempfile.gettempdir()), Path(cache).expanduser())))


def doctor(told: Sequence[str]) -> int:
    """Run the command; 1 when there is something to fix."""
    findings = asyncio.run(examine(arguments(told)))
    sys.stdout.write(report(findings))
    return 1 if failed(findings) else 0
