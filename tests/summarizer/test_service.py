"""The real service as a process, over mutual TLS."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stream_core.rpc import summarizer_pb2 as pb
from stream_core.testing.programs import Program, start
from stream_summarizer.fitting import QUOTED
from stream_summarizer.giant import LEFT_OUT
from stream_summarizer.policy import MARK

from .building import encode, long_talk, said
from .scripted import scripted
from .serving import channel, environment, stub, to_fit

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def service(certificates: Path, config: Path) -> Iterator[Program]:
    more = {"STREAM_CONFIG": str(config), "STREAM_SUMMARIZER__LOG_LEVEL": "DEBUG"}
    with start("stream_summarizer", env=environment(certificates, **more)) as program:
        yield program


async def test_count(service: Program, certificates: Path) -> None:
    """A known model is counted exactly, an unknown one high; images count the figure from stream.yaml."""
    async with channel(service, certificates) as open_one:
        summarizer = stub(open_one)

        async def count(model: str, content: Any) -> pb.CountReply:
            talk = pb.Conversation(messages_json=encode([said("user", content)]))
            request = pb.CountRequest(conversation=talk, target=pb.Target(tier="local", model=model))
            reply: pb.CountReply = await summarizer.Count(request, timeout=60)
            return reply

        exact, rough = await count("tiny", "Hi"), await count("unknown", "Hi")
        assert (exact.exact, rough.exact) == (True, False)
        assert exact.tokens > 0
        assert rough.tokens > 0
        image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
        with_image = await count("tiny", [{"type": "text", "text": "Hi"}, image])
        assert (with_image.tokens, with_image.exact) == (exact.tokens + 1000, False)


async def test_fit(service: Program, certificates: Path) -> None:
    """Too long: condensed by extraction, within the budget, with ranges and a note; what fits is not touched."""
    async with channel(service, certificates) as open_one:
        summarizer = stub(open_one)
        messages = long_talk(20)
        reply = await summarizer.Fit(to_fit(messages, cache_scope="key-1"), timeout=60)
        assert reply.fits
        assert reply.exact
        assert reply.method == pb.METHOD_EXTRACT
        assert reply.tokens_after <= 1800 < reply.tokens_before
        fitted = json.loads(reply.messages_json)
        assert fitted[0] == messages[0]
        assert fitted[-1] == messages[-1]
        (span,) = reply.condensed
        assert fitted[1]["content"].startswith(f"{MARK}{span.first}-{span.last}]\n")
        assert reply.note == (
            f"{reply.tokens_before:,} tokens became {reply.tokens_after:,} of 1,800;"
            f" messages {span.first}-{span.last} condensed by extraction (no model is configured to condense)"
        )
        again = await summarizer.Fit(to_fit(messages, cache_scope="key-1"), timeout=60)
        assert again == reply
        unchanged = to_fit(fitted)
        unchanged.conversation.messages_json = reply.messages_json
        same = await summarizer.Fit(unchanged, timeout=60)
        assert (same.method, same.messages_json) == (pb.METHOD_UNCHANGED, reply.messages_json)
        assert same.tokens_before == same.tokens_after == reply.tokens_after
        assert not same.condensed


async def test_fit_by_estimate(service: Program, certificates: Path) -> None:
    """Without a tokenizer the budget has a margin, and the note says that counts are estimates."""
    async with channel(service, certificates) as open_one:
        reply = await stub(open_one).Fit(to_fit(long_talk(20), model="unknown"), timeout=60)
        assert (reply.fits, reply.exact) == (True, False)
        assert reply.tokens_after <= 2000 - 200 - 32 - 40
        assert reply.note.endswith("(token counts are estimates)")


async def test_forbidden(service: Program, certificates: Path) -> None:
    """Where condensing is forbidden, the answer is whether it fits, with the counts, and nothing is changed."""
    async with channel(service, certificates) as open_one:
        summarizer = stub(open_one)
        long = await summarizer.Fit(to_fit(long_talk(20), forbid_condensing=True), timeout=60)
        assert not long.fits
        assert long.messages_json == b""
        assert long.tokens_before == long.tokens_after > 1800
        assert long.note.endswith("at most 1,800 fit, and condensing is forbidden")
        short = to_fit([said("user", "Hi")], forbid_condensing=True)
        reply = await summarizer.Fit(short, timeout=60)
        assert (reply.fits, reply.messages_json) == (True, short.conversation.messages_json)


async def test_one_giant_question(service: Program, certificates: Path) -> None:
    """A question that is too large by itself keeps head, tail and what matters; forbidden, it does not fit."""
    giant = ["Look at this list.", *(f"Lamp {n} is quiet." for n in range(900)), "Which lamp hums? Lamp 9 hums loudly?"]
    giant.insert(400, "The lamp that hums stands in Oslo.")
    messages = [*long_talk(3), said("user", "\n".join(giant))]
    async with channel(service, certificates) as open_one:
        summarizer = stub(open_one)
        reply = await summarizer.Fit(to_fit(messages), timeout=60)
        assert (reply.fits, reply.method) == (True, pb.METHOD_EXTRACT)
        assert reply.tokens_after <= 1800 < reply.tokens_before
        last = json.loads(reply.messages_json)[-1]
        assert last["role"] == "user"
        assert last["content"].startswith("Look at this list.\n")
        assert last["content"].endswith("Lamp 9 hums loudly?")
        assert LEFT_OUT in last["content"]
        assert "stands in Oslo" in last["content"]
        assert reply.condensed[-1].last == len(messages) - 1
        refused = await summarizer.Fit(to_fit(messages, forbid_condensing=True), timeout=60)
        assert (refused.fits, refused.messages_json) == (False, b"")


async def test_a_system_prompt_is_never_cut(service: Program, certificates: Path) -> None:
    """What instructs the model is sent whole or not at all; the note gives both numbers."""
    messages = [said("system", "Obey the rules. " * 1500), said("user", "Why?")]
    async with channel(service, certificates) as open_one:
        reply = await stub(open_one).Fit(to_fit(messages), timeout=60)
        assert (reply.fits, reply.messages_json) == (False, b"")
        assert reply.note == (
            f"system prompt and last turn alone take {reply.tokens_after:,} tokens, at most 1,800 fit"
        )


@pytest.mark.parametrize(
    ("request_", "details"),
    [
        (to_fit([], 1000), "messages: empty, at least 1 message is wanted"),
        (to_fit([said("user", "x")], 0), "target.context_window: 0 tokens, at least 1"),
        (
            to_fit([said("user", "x")], 1000, output=1000),
            "target.reserved_output: 1,000 tokens, at most 999, one less than target.context_window",
        ),
        (to_fit([said("user", "x")], deadline_ms=60_001), "deadline_ms: 60,001, at most 60,000"),
        (to_fit([said("user", "x")], cache_scope="k" * 257), "cache_scope: 257 characters, at most 256"),
        (to_fit([said("user", "x")], model="m" * 201), "target.model: 201 characters, at most 200"),
        (to_fit([said("user", "x" * 33_600_000)]), "conversation: 33,600,033 bytes, at most 33,554,432"),
        (to_fit([said("user", "x")] * 20_001), "messages: 20,001 messages, at most 20,000"),
    ],
    ids=["empty", "window", "output", "deadline", "scope", "model", "bytes", "messages"],
)
async def test_invalid_argument(request_: pb.FitRequest, details: str, service: Program, certificates: Path) -> None:
    """A wrong request is told the field and the limit, and the service lives on."""
    async with channel(service, certificates) as open_one:
        summarizer = stub(open_one)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await summarizer.Fit(request_, timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == details
        assert (await summarizer.Fit(to_fit([said("user", "Hi")]), timeout=60)).fits


async def test_many_at_once(service: Program, certificates: Path) -> None:
    """Thirty conversations at once are all fitted, and health answers meanwhile."""
    async with channel(service, certificates) as open_one:
        summarizer = stub(open_one)
        fits = [summarizer.Fit(to_fit(long_talk(15 + n)), timeout=30) for n in range(30)]
        health = health_pb2_grpc.HealthStub(open_one).Check(health_pb2.HealthCheckRequest(), timeout=60)
        replies = await asyncio.gather(*fits)
        assert all(reply.fits and reply.tokens_after <= 1800 for reply in replies)
        assert (await health).status == health_pb2.HealthCheckResponse.SERVING


async def test_no_certificate_no_answer(service: Program, certificates: Path) -> None:
    """A client without a certificate of the same authority, or without TLS, is refused."""
    target = f"127.0.0.1:{service.ready['port']}"
    strangers = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())
    for stranger in (grpc.aio.secure_channel(target, strangers), grpc.aio.insecure_channel(target)):
        async with stranger:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub(stranger).Fit(to_fit([said("user", "Hi")]), timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_conversations_are_not_logged(service: Program, certificates: Path) -> None:
    """Even at the most talkative level the log holds ids and counts, never text."""
    async with channel(service, certificates) as open_one:
        messages = [*long_talk(20), said("user", "xylophone zeitgeist")]
        await stub(open_one).Fit(to_fit(messages, request_id="r-logged"), timeout=60)
    assert "r-logged" in service.log()
    assert "METHOD_EXTRACT" in service.log()
    assert "xylophone" not in service.log()
    assert "word3x3" not in service.log()


async def test_model_and_fallback(certificates: Path, config: Path) -> None:
    """A model's checked summary is used and remembered; one too long is not; a slow model is given up in time."""
    async with scripted() as script:
        script.answer = "The price of part 3 is 103 euros. The price of part 4 is 999 euros."
        key_file = certificates / "backend-key"
        key_file.write_text("secret-key\n")
        more = {
            "STREAM_CONFIG": str(config),
            "STREAM_SUMMARIZER__BACKEND_URL": script.url,
            "STREAM_SUMMARIZER__BACKEND_MODEL": "big-model",
            "STREAM_SUMMARIZER__BACKEND_KEY_FILE": str(key_file),
        }
        with start("stream_summarizer", env=environment(certificates, **more)) as program:
            async with channel(program, certificates) as open_one:
                summarizer = stub(open_one)
                request = to_fit(long_talk(20), cache_scope="key-1", deadline_ms=20_000)
                reply = await summarizer.Fit(request, timeout=20)
                assert reply.method == pb.METHOD_MODEL
                assert reply.tokens_after <= 1800
                summary = json.loads(reply.messages_json)[1]["content"]
                assert summary.startswith(MARK)
                blocks = len(script.asked)
                assert blocks > 1
                gist, _, quoted = summary.partition(f"\n{QUOTED}\n")
                (told,) = gist.splitlines()[1:]
                assert re.fullmatch(r"messages \d+-\d+: The price of part 3 is 103 euros\.", told)
                assert "the price of part 3 is 103 euros" in quoted
                dropped = 2 * blocks - 1
                assert reply.note.endswith(f"condensed by the model big-model, {dropped} unsupported sentences dropped")
                assert script.headers[0]["Authorization"] == "Bearer secret-key"
                remembered = await summarizer.Fit(request, timeout=20)
                assert remembered.messages_json == reply.messages_json
                assert len(script.asked) == blocks
                longer = [*long_talk(20), said("assistant", "103 euros."), said("user", "And of part 4?")]
                await summarizer.Fit(to_fit(longer, cache_scope="key-1", deadline_ms=20_000), timeout=20)
                assert len(script.asked) <= blocks + 1  # a new turn costs what is new

                script.answer = " ".join(f"The price of part {n % 20} is {100 + n % 20} euros." for n in range(400))
                request.cache_scope = "key-2"
                long = await summarizer.Fit(request, timeout=20)
                assert long.method == pb.METHOD_MODEL
                assert "The price of part 3 is 103 euros." in json.loads(long.messages_json)[1]["content"]
                assert long.tokens_after <= 1800

                script.answer = script.hang
                request.cache_scope = "key-3"
                request.deadline_ms = 700
                slow = await summarizer.Fit(request, timeout=20)  # it would hang for ever otherwise
                assert slow.method == pb.METHOD_EXTRACT
                assert "extraction (the model took longer than " in slow.note
                assert slow.fits
                assert slow.tokens_after <= 1800
                await asyncio.wait_for(script.left.wait(), 60)
            assert "secret-key" not in program.log()


async def test_the_model_sees_nothing_beyond_its_class(certificates: Path, config: Path) -> None:
    """What is more confidential than the model's class, or of no known class, is extracted and not written ahead."""
    async with scripted() as script:
        script.answer = "The price of part 3 is 103 euros."
        more = {
            "STREAM_CONFIG": str(config),
            "STREAM_SUMMARIZER__BACKEND_URL": script.url,
            "STREAM_SUMMARIZER__BACKEND_MODEL": "big-model",
            "STREAM_SUMMARIZER__BACKEND_PRIVACY": "internal",
        }
        with start("stream_summarizer", env=environment(certificates, **more)) as program:
            async with channel(program, certificates) as open_one:
                summarizer = stub(open_one)
                for privacy in ("restricted", "", "secret"):
                    fields = {"cache_scope": "key-1", "deadline_ms": 20_000, "privacy": privacy}
                    talk = [said("user", "The xylophone is confidential."), *long_talk(20)]
                    reply = await summarizer.Fit(to_fit(talk, **fields), timeout=20)
                    assert reply.method == pb.METHOD_EXTRACT
                    assert "extraction (the model sees text up to 'internal' only)" in reply.note
                    whole = await summarizer.Fit(to_fit(talk, window=20_000, **fields), timeout=20)
                    assert whole.method == pb.METHOD_UNCHANGED
                fields["privacy"] = "internal"
                reply = await summarizer.Fit(to_fit(long_talk(20), **fields), timeout=20)
                assert reply.method == pb.METHOD_MODEL
        assert script.asked
        assert "xylophone" not in str(script.asked)


async def test_demo_is_not_asked(certificates: Path) -> None:
    """A backend that is the demo model is never asked, and the note says so."""
    async with scripted() as script:
        tier = {"name": "local", "base_url": script.url, "models": [{"id": "stream-demo", "demo": True}]}
        path = certificates / "demo.yaml"
        path.write_text(yaml.safe_dump({"tiers": [tier]}))
        more = {
            "STREAM_CONFIG": str(path),
            "STREAM_SUMMARIZER__BACKEND_URL": script.url,
            "STREAM_SUMMARIZER__BACKEND_MODEL": "stream-demo",
        }
        with start("stream_summarizer", env=environment(certificates, **more)) as program:
            async with channel(program, certificates) as open_one:
                reply = await stub(open_one).Fit(to_fit(long_talk(20)), timeout=20)
            program.process.send_signal(signal.SIGTERM)
            assert program.process.wait(10) == 0
            assert "Traceback" not in program.log()
        assert reply.method == pb.METHOD_EXTRACT
        assert "extraction (the demo model is not asked to condense)" in reply.note
        assert script.asked == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"STREAM_SUMMARIZER__DEADLINE_MS": "5"}, "STREAM_SUMMARIZER__DEADLINE_MS"),
        ({"STREAM_SUMMARIZER__TLS__KEY": "/nowhere/summarizer.key"}, "/nowhere/summarizer.key"),
        ({"STREAM_SUMMARIZER__BACKEND_MODEL": "m"}, "STREAM_SUMMARIZER__BACKEND_URL"),
        (
            {
                "STREAM_SUMMARIZER__BACKEND_URL": "http://127.0.0.1:9/v1",
                "STREAM_SUMMARIZER__BACKEND_MODEL": "m",
                "STREAM_SUMMARIZER__BACKEND_PRIVACY": "secret",
            },
            "STREAM_SUMMARIZER__BACKEND_PRIVACY",
        ),
        ({"STREAM_CONFIG": "TOKENIZER"}, "no tokenizer.json in /nowhere"),
        ({"STREAM_SUMMARIZER__LISTEN": "BUSY"}, "can't listen on"),
    ],
)
def test_wrong_setting(certificates: Path, tmp_path: Path, more: dict[str, str], words: str) -> None:
    """A wrong setting, a missing file or a busy port is one line and exit code 1."""
    tier = {"name": "local", "base_url": "http://127.0.0.1:9/v1", "models": [{"id": "m", "tokenizer": "/nowhere"}]}
    path = tmp_path / "stream.yaml"
    path.write_text(yaml.safe_dump({"tiers": [tier]}))
    with socket.create_server(("127.0.0.1", 0)) as busy:
        places = {"BUSY": f"127.0.0.1:{busy.getsockname()[1]}", "TOKENIZER": str(path)}
        more = {name: places.get(value, value) for name, value in more.items()}
        with start("stream_summarizer", env=environment(certificates, **more), ready_timeout_s=None) as program:
            assert program.process.wait(20) == 1
            lines = [line for line in program.log().splitlines() if line.startswith("stream-summarizer:")]
            assert len(lines) == 1
            assert words in lines[0]
            assert "Traceback" not in program.log()


def test_version() -> None:
    """`--version` says name and version, and needs no settings."""
    run = subprocess.run(
        [sys.executable, "-m", "stream_summarizer", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout == "stream-summarizer 0.1.0\n"


def test_no_heavy_import() -> None:
    """The service starts without tokenizers, jinja2 and aiohttp; they come with the first request that needs them."""
    code = "import sys, json, stream_summarizer.__main__; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = json.loads(run.stdout)
    assert "stream_summarizer.tokens" in modules
    assert not {"tokenizers", "jinja2", "aiohttp", "numpy"} & set(modules)
