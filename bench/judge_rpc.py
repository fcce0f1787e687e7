"""The judge's gRPC service over mutual TLS: calls a second per core, and the time inside the service; JSON last.

    make bench-judge-rpc

Every question is another one, so nothing comes from the cache; then the same one again and again, so everything does.
Calls per core are calls per second of the service's own CPU time, which other work on the machine does not change much.
"""

import asyncio
import datetime
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from stream_core.certificates import ensure_certificates
from stream_core.grpc_client import open_channel
from stream_core.rpc import judge_pb2, judge_pb2_grpc
from stream_core.settings import TlsFiles
from stream_core.testing.programs import start

CALLS, AT_ONCE = 2000, 32
QUESTION = (
    "A train leaves station {n} at {m} km/h and a second one follows {k} minutes later, {m} percent faster. "
    "When does the second train overtake the first, and how far from the station are they then?"
)


def files(folder: Path, name: str) -> TlsFiles:
    """One program's certificate."""
    return TlsFiles(ca=folder / "ca.pem", certificate=folder / f"{name}.pem", key=folder / f"{name}.key")


def request(n: int) -> judge_pb2.ScoreRequest:
    """Ask about a question of average length."""
    text = QUESTION.format(n=n, m=40 + n % 97, k=5 + n % 41)
    return judge_pb2.ScoreRequest(
        turns=[judge_pb2.Turn(role="user", text=text)], tiers=["local", "hpc", "cloud"], request_id=f"r{n}"
    )


async def load(target: str, tls: TlsFiles, process: psutil.Process, *, cached: bool) -> dict[str, float]:
    """Call from `AT_ONCE` clients."""
    async with open_channel(target, tls) as channel:
        judge = judge_pb2_grpc.JudgeStub(channel)
        await judge.Score(request(0), timeout=10)
        numbers = iter(range(1, CALLS + 1))
        before, began = sum(process.cpu_times()[:2]), time.perf_counter()

        async def client() -> None:
            for n in numbers:
                await judge.Score(request(0 if cached else n), timeout=30)

        await asyncio.gather(*(client() for _ in range(AT_ONCE)))
        spent = sum(process.cpu_times()[:2]) - before
        return {
            "calls_per_core_s": round(CALLS / spent),
            "calls_per_s": round(CALLS / (time.perf_counter() - began)),
        }


def inside(log: str) -> dict[str, float]:
    """p50 and p99 of what the service says it took, uncached, in ms."""
    took = []
    for line in log.splitlines():
        if '"scored"' in line:
            record = json.loads(line)
            if not record["cached"]:
                took.append(record["took_us"] / 1000)
    return {"p50_ms": round(float(np.percentile(took, 50)), 3), "p99_ms": round(float(np.percentile(took, 99)), 3)}


async def main() -> None:
    """Run the service and load it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ensure_certificates(folder, ["judge", "gateway"], now=datetime.datetime.now(datetime.UTC))
        own = files(folder, "judge")
        env = {
            "STREAM_JUDGE__TLS__CA": str(own.ca),
            "STREAM_JUDGE__TLS__CERTIFICATE": str(own.certificate),
            "STREAM_JUDGE__TLS__KEY": str(own.key),
        }
        result: dict[str, object] = {}
        for level in ("INFO", "DEBUG"):
            with start("stream_judge", env=env | {"STREAM_JUDGE__LOG_LEVEL": level}) as program:
                target, process = f"127.0.0.1:{program.ready['port']}", psutil.Process(program.process.pid)
                uncached = await load(target, files(folder, "gateway"), process, cached=False)
                if level == "INFO":
                    cached = await load(target, files(folder, "gateway"), process, cached=True)
                    result |= {"uncached": uncached, "cached": cached}
                else:
                    result["inside"] = inside(program.log())
        for key, value in result.items():
            print(f"{key:10} {value}")
        print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main())
