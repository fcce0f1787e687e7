"""The real service as a process, over mutual TLS."""

import asyncio
import datetime
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stream_core.certificates import ensure_certificates
from stream_core.grpc_client import open_channel
from stream_core.rpc import judge_pb2, judge_pb2_grpc
from stream_core.settings import TlsFiles
from stream_core.testing.programs import Program, start

pytestmark = pytest.mark.process


def tls_of(folder: Path, name: str) -> TlsFiles:
    return TlsFiles(ca=folder / "ca.pem", certificate=folder / f"{name}.pem", key=folder / f"{name}.key")


def environment(folder: Path, **more: str) -> dict[str, str]:
    files = tls_of(folder, "judge")
    return {
        "STREAM_JUDGE__TLS__CA": str(files.ca),
        "STREAM_JUDGE__TLS__CERTIFICATE": str(files.certificate),
        "STREAM_JUDGE__TLS__KEY": str(files.key),
    } | more


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    ensure_certificates(folder, ["judge", "gateway"], now=datetime.datetime.now(datetime.UTC))
    return folder


@pytest.fixture(scope="module")
def service(certificates: Path) -> Iterator[Program]:
    with start("stream_judge", env=environment(certificates, STREAM_JUDGE__LOG_LEVEL="DEBUG")) as program:
        yield program


def question(text: str, **fields: object) -> judge_pb2.ScoreRequest:
    turns = [judge_pb2.Turn(role="user", text=text)]
    return judge_pb2.ScoreRequest(turns=turns, tiers=["local", "hpc", "cloud"], **fields)


def channel(program: Program, certificates: Path) -> grpc.aio.Channel:
    return open_channel(f"127.0.0.1:{program.ready['port']}", tls_of(certificates, "gateway"))


async def test_score(service: Program, certificates: Path) -> None:
    """A question comes back with probabilities per tier, level and reasons, and the second time from memory."""
    async with channel(service, certificates) as open_one:
        judge = judge_pb2_grpc.JudgeStub(open_one)
        hard = question("Prove that every finite group of odd order is solvable.", request_id="r-1", cache_scope="k1")
        reply = await judge.Score(hard, timeout=60)
        assert [score.tier for score in reply.scores] == ["local", "hpc", "cloud"]
        probabilities = [score.probability for score in reply.scores]
        assert probabilities == sorted(probabilities)
        assert reply.level == judge_pb2.LEVEL_HIGH
        assert reply.reasons[0].text == "asks for a proof"
        assert reply.reasons[0].effect > 0
        assert 0 <= reply.confidence <= 1
        assert reply.expected_output_tokens > 300
        assert (reply.backend, reply.cached) == ("learned", False)
        assert reply.version.startswith("learned-3-")
        assert (await judge.Score(hard, timeout=60)).cached
        hard.cache_scope = "k2"
        assert not (await judge.Score(hard, timeout=60)).cached
        easy = await judge.Score(question("hi"), timeout=60)
        assert easy.level == judge_pb2.LEVEL_LOW


async def test_invalid_argument(service: Program, certificates: Path) -> None:
    """A wrong request is told which field is wrong and the service lives on."""
    async with channel(service, certificates) as open_one:
        judge = judge_pb2_grpc.JudgeStub(open_one)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await judge.Score(judge_pb2.ScoreRequest(tiers=["local"]), timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "turns: 0 given, at least 1"
        assert (await judge.Score(question("hi"), timeout=60)).scores


async def test_a_megabyte_and_many_at_once(service: Program, certificates: Path) -> None:
    """A prompt of a megabyte, control characters and a hundred questions at once are all answered."""
    async with channel(service, certificates) as open_one:
        judge = judge_pb2_grpc.JudgeStub(open_one)
        texts = ["word " * 200_000, "\x00\x01\x02 \u202e", *(f"What is {n} + {n}?" for n in range(100))]
        replies = await asyncio.gather(*(judge.Score(question(text), timeout=20) for text in texts))
        assert all(len(reply.scores) == 3 for reply in replies)


async def test_health(service: Program, certificates: Path) -> None:
    """The standard health service says SERVING."""
    async with channel(service, certificates) as open_one:
        reply = await health_pb2_grpc.HealthStub(open_one).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_no_certificate_no_answer(service: Program, certificates: Path) -> None:
    """A client without a certificate of the same authority, or without TLS, is refused."""
    target = f"127.0.0.1:{service.ready['port']}"
    strangers = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())
    for stranger in (grpc.aio.secure_channel(target, strangers), grpc.aio.insecure_channel(target)):
        async with stranger:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await judge_pb2_grpc.JudgeStub(stranger).Score(question("hi"), timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_prompts_are_not_logged(service: Program, certificates: Path) -> None:
    """Even at the most talkative level the log holds ids, never text."""
    async with channel(service, certificates) as open_one:
        await judge_pb2_grpc.JudgeStub(open_one).Score(
            question("xylophone zeitgeist", request_id="r-logged"), timeout=5
        )
    assert "r-logged" in service.log()
    assert "xylophone" not in service.log()


def test_sigterm(certificates: Path) -> None:
    """SIGTERM ends it with exit code 0 and without a traceback; it takes its settings from stream.yaml too."""
    config = certificates / "stream.yaml"
    config.write_text("policy: {good_enough: 0.7}\njudge: {cache_entries: 5}\n")
    with start("stream_judge", env=environment(certificates, STREAM_CONFIG=str(config))) as program:
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(10) == 0
        assert "Traceback" not in program.log()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"STREAM_JUDGE__CACHE_ENTRIES": "-1"}, "STREAM_JUDGE__CACHE_ENTRIES"),
        ({"STREAM_JUDGE__TLS__KEY": "/nowhere/judge.key"}, "/nowhere/judge.key"),
        ({"STREAM_JUDGE__WEIGHTS_FILE": "/nowhere/weights.json"}, "weights_file: /nowhere/weights.json"),
        ({"STREAM_JUDGE__LISTEN": "BUSY"}, "can't listen on"),
    ],
)
def test_wrong_setting(certificates: Path, more: dict[str, str], words: str) -> None:
    """A wrong setting, a missing file or a busy port is one line and exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        more = {name: value.replace("BUSY", address) for name, value in more.items()}
        with start("stream_judge", env=environment(certificates, **more), ready_timeout_s=None) as program:
            assert program.process.wait(20) == 1
            lines = [line for line in program.log().splitlines() if line.startswith("stream-judge:")]
            assert len(lines) == 1
            assert words in lines[0]
            assert "Traceback" not in program.log()


def test_version() -> None:
    """`--version` says name and version, and needs no settings."""
    run = subprocess.run(
        [sys.executable, "-m", "stream_judge", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout == "stream-judge 0.1.0\n"


def test_no_heavy_import() -> None:
    """The service starts with numpy and no library for models."""
    code = "import sys, json, stream_judge.__main__; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = json.loads(run.stdout)
    assert "stream_judge.score" in modules
    assert not {"scipy", "onnxruntime", "sklearn", "fastapi"} & set(modules)
