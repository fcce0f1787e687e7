"""Summaries are written before they are needed, and shared by replicas through the broker."""

import json
from pathlib import Path
from typing import Any

import pytest

from stream_core.rpc import summarizer_pb2 as pb
from stream_core.testing.broker import run_broker
from stream_core.testing.programs import start
from stream_summarizer.fitting import QUOTED

from .building import long_talk, said
from .scripted import Script, scripted
from .serving import channel, environment, stub, to_fit

pytestmark = pytest.mark.process
SUMMARY = "The user wrote down prices of parts."
WINDOW = 16_000


def by_model(script: Script, config: Path, **more: str) -> dict[str, str]:
    return {
        "STREAM_CONFIG": str(config),
        "STREAM_SUMMARIZER__BACKEND_URL": script.url,
        "STREAM_SUMMARIZER__BACKEND_MODEL": "big-model",
        **more,
    }


def summary_of(reply: pb.FitReply) -> list[str]:
    content: str = json.loads(reply.messages_json)[1]["content"]
    return content.partition(f"\n{QUOTED}\n")[0].splitlines()[1:]


async def test_the_request_that_crosses_the_limit_does_not_wait(
    certificates: Path,
    config: Path,
) -> None:
    """What fills half a window is summarised ahead: when it crosses, the model is asked for the new blocks alone."""
    async with scripted() as script:
        script.answer = SUMMARY
        with start("stream_summarizer", env=environment(certificates, **by_model(script, config))) as program:
            async with channel(program, certificates) as open_one:
                summarizer = stub(open_one)
                early = await summarizer.Fit(to_fit(long_talk(20), WINDOW, cache_scope="key-1"), timeout=20)
                assert early.method == pb.METHOD_UNCHANGED
                await until_asked(script, program, blocks=4)
                ahead = len(script.asked)
                talk: list[dict[str, Any]] = [*long_talk(20), said("assistant", "Noted."), *long_talk(12)[1:]]
                request = to_fit(talk, WINDOW, cache_scope="key-1", deadline_ms=20_000)
                reply = await summarizer.Fit(request, timeout=30)
                assert reply.method == pb.METHOD_MODEL
                lines = summary_of(reply)
                assert all(line.endswith(f": {SUMMARY}") for line in lines)
                assert len(lines) > 4
                assert len(script.asked) - ahead <= len(lines) - 4

                script.answer = script.hang
                nobodys = to_fit(long_talk(20), WINDOW)
                assert (await summarizer.Fit(nobodys, timeout=20)).method == pb.METHOD_UNCHANGED


async def until_asked(script: Script, program: Any, blocks: int) -> None:
    """Wait until so many blocks have been written ahead."""
    while program.log().count("block written ahead") < blocks:
        script.arrived.clear()
        await script.arrived.wait()


async def test_another_replica_asks_nothing_again(
    certificates: Path,
    config: Path,
    tmp_path: Path,
) -> None:
    """With a service key and a broker, what one replica had summarised another one sends without asking the model."""
    key_file = tmp_path / "store.key"
    key_file.write_text("5e" * 32)
    async with scripted() as script:
        script.answer = SUMMARY
        with run_broker() as url:
            more = by_model(
                script,
                config,
                STREAM_SUMMARIZER__NATS__URL=url,
                STREAM_SUMMARIZER__STORE_KEY_FILE=str(key_file),
            )
            request = to_fit(long_talk(20), cache_scope="key-1", deadline_ms=20_000)
            replies = []
            for _ in range(2):
                with start("stream_summarizer", env=environment(certificates, **more)) as program:
                    async with channel(program, certificates) as open_one:
                        replies.append(await stub(open_one).Fit(request, timeout=20))
                        asked = len(script.asked)
                        stranger = to_fit(long_talk(20), cache_scope="key-2", deadline_ms=20_000)
                        if len(replies) == 2:
                            await stub(open_one).Fit(stranger, timeout=20)
                            assert len(script.asked) > asked
                    program.process.terminate()
                    assert program.process.wait(10) == 0
                if len(replies) == 1:
                    first = asked
            assert first > 1
            assert asked == first
            assert replies[0] == replies[1]
            assert replies[0].method == pb.METHOD_MODEL


@pytest.mark.parametrize(
    ("key", "words"), [("5e" * 31, "must hold 64 hex digits"), ("5e" * 32, "no broker at nats://127.0.0.1:9")]
)
def test_a_store_that_is_wrong(
    key: str,
    words: str,
    certificates: Path,
    config: Path,
    tmp_path: Path,
) -> None:
    """A key of the wrong length, or a broker that is not there, is one line and exit code 1."""
    key_file = tmp_path / "store.key"
    key_file.write_text(key)
    more = {
        "STREAM_CONFIG": str(config),
        "STREAM_SUMMARIZER__STORE_KEY_FILE": str(key_file),
        "STREAM_SUMMARIZER__NATS__URL": "nats://127.0.0.1:9",
    }
    with start("stream_summarizer", env=environment(certificates, **more), ready_timeout_s=None) as program:
        assert program.process.wait(30) == 1
        assert words in program.log()
        assert "Traceback" not in program.log()
