"""Over real processes: judge and summarizer with language models, two tiers, a store; and where each text has been.

The generated policies of tests/gateway/privacy try more; here nothing is played but the language models themselves.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gateway.stage import Gateway, Stage, tier, tls_env, until
from security.fort import Engine, Fort, engine, status_of

from stream_core.files import write_private
from stream_core.testing import programs
from stream_core.testing.broker import Broker
from stream_core.testing.programs import Program

pytestmark = pytest.mark.process
CLASSES = ["public", "internal", "restricted"]
CARD = "4111 1111 1111 1111"


@dataclass
class Road:
    """The running parts."""

    fort: Fort
    local: Engine
    cloud: Engine
    grader: Engine
    condenser: Engine
    services: list[Program]

    async def ask(
        self, body: dict[str, Any], path: str = "/v1/chat/completions", key: str = "all", **headers: str
    ) -> bytes:
        """Ask with one of the keys."""
        data = json.dumps(body).encode()
        fields = {"content_type": "application/json", "content_length": str(len(data)), "connection": "close"}
        return await self.fort.say(self.fort.head(path, key, **{**fields, **headers}) + b"\r\n" + data)

    def seen(self, mark: str) -> set[str]:
        """Who has seen a text."""
        places = {"local": self.local, "cloud": self.cloud, "grader": self.grader, "condenser": self.condenser}
        return {name for name, place in places.items() if place.was_asked(mark)}


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    """Local may see all, the cloud public text, the judge's model up to internal, the summarizer's public text."""
    folder: Path = tmp_path_factory.mktemp("classes")
    with contextlib.ExitStack() as stack:
        local, cloud, grader, condenser = (stack.enter_context(engine()) for _ in range(4))
        local.failing = b"please fail"
        small = [{"id": "small", "context_window": 2048}]
        tiers = [
            tier("local", local.url, models=small, reserved_output=64),
            tier("cloud", cloud.url, models=[{"id": "large", "context_window": 2048}], privacy="public"),
        ]
        detector = {"find": {"card_number": "restricted"}}
        stage = Stage(folder, {"tiers": tiers, "policy": {"detector": detector, "good_enough": 0.01}})
        stage.add_key("internal", privacy="internal")
        stage.add_key("second")
        write_private(folder / "summaries.key", secrets.token_hex(32).encode())
        write_private(folder / "batch.key", secrets.token_hex(32).encode())
        (folder / "nats").mkdir()
        broker = Broker(folder / "nats")
        broker.start()
        stack.callback(broker.stop)
        own = {
            "judge": {
                "BACKEND": "llm",
                "LLM__BASE_URL": f"{grader.url}/v1",
                "LLM__MODEL": "m",
                "LLM__PRIVACY": "internal",
            },
            "summarizer": {
                "BACKEND_URL": f"{condenser.url}/v1",
                "BACKEND_MODEL": "m",
                "DEADLINE_MS": "5000",
                "NATS__URL": broker.url,
                "STORE_KEY_FILE": str(folder / "summaries.key"),
            },
        }
        services, targets = [], {}
        for name, fields in own.items():
            env = {"STREAM_CONFIG": str(folder / "stream.yaml"), **tls_env(name, folder / "tls", name)}
            env |= {f"STREAM_{name.upper()}__{field}": value for field, value in fields.items()}
            services.append(stack.enter_context(programs.start(f"stream_{name}", env=env)))
            targets[f"{name}_target"] = f"127.0.0.1:{services[-1].ready['port']}"
        environment = {
            "STREAM_GATEWAY__NATS__URL": broker.url,
            "STREAM_GATEWAY__BATCH_KEY_FILE": str(folder / "batch.key"),
            "STREAM_GATEWAY__BATCHES__LOOK_S": "0.2",
        }
        patience = {"judge_deadline_ms": 5_000, "fit_deadline_ms": 15_000}
        gateway: Gateway = stack.enter_context(stage.run(environment, **targets, **patience))
        yield Road(Fort(gateway, local, broker), local, cloud, grader, condenser, services)


def talk(mark: str, *, long: bool = False, model: str = "auto", **fields: Any) -> dict[str, Any]:
    """A conversation with a mark in its early part, which is condensed when it is long, and in its last question."""
    middle = [
        {"role": role, "content": f"{mark} note {turn}: the price of part {turn} is {100 + turn} euros. " * 6}
        for turn in range(12 if long else 0)
        for role in ("user", "assistant")
    ]
    return {"model": model, "messages": [*middle, {"role": "user", "content": f"What of {mark}?"}], **fields}


EVERYBODY = {"local", "grader", "condenser"}
ALLOWED = {"public": EVERYBODY, "internal": {"local", "grader"}, "restricted": {"local"}}


@pytest.mark.parametrize("privacy", CLASSES)
async def test_a_long_conversation(road: Road, privacy: str) -> None:
    """Judged, condensed and answered: the services' models see just what their classes allow."""
    mark = f"mark-long-{privacy}"
    answer = await road.ask(talk(mark, long=True), x_stream_privacy=privacy)
    assert status_of(answer) == 200
    assert b"x-stream-context: condensed" in answer
    assert road.seen(mark) == ALLOWED[privacy]


def told(answer: bytes) -> list[bytes]:
    """What an answer's headers say, but for what each request has of its own."""
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    own = (b"date:", b"x-request-id:", b"openai-processing-ms:")
    return sorted(line for line in lines if not line.lower().startswith(own))


async def test_summaries_of_another_key(road: Road) -> None:
    """Who asks what another key has asked gets summaries of their own; no header tells whose were remembered."""
    body, seen = talk("mark-twice", long=True), []
    answers = []
    for key in ("all", "all", "second", "second"):
        answers.append(await road.ask(body, key=key))
        seen.append(sum(b"mark-twice" in each for each in road.condenser.bodies))
        assert b"x-stream-context: condensed" in answers[-1]
        assert b"by extraction" not in told(answers[-1])
    first, again, second, second_again = seen
    assert first > 0
    assert again == first, "the owner's own are remembered"
    assert second == 2 * first, "another key's are asked for anew"
    assert second_again == second
    assert told(answers[0]) == told(answers[1]) == told(answers[2]) == told(answers[3])


async def test_the_class_of_a_key_and_of_what_is_found(road: Road) -> None:
    """A key's class and a number in the text count as a header does; the reason tells the kind, not the number."""
    assert status_of(await road.ask(talk("mark-key", long=True), key="internal")) == 200
    assert road.seen("mark-key") == ALLOWED["internal"]
    answer = await road.ask(talk(f"mark-card {CARD}", long=True))
    assert b"raised to restricted: card number" in answer
    assert CARD.encode() not in answer.partition(b"\r\n\r\n")[0]
    assert road.seen("mark-card") == ALLOWED["restricted"]
    named = await road.ask(talk(f"mark-named {CARD}", model="cloud"))
    assert status_of(named) == 403
    assert b"raised by what it holds: card number" in named
    assert road.seen("mark-named") == set()


@pytest.mark.parametrize("privacy", CLASSES)
async def test_fallback(road: Road, privacy: str) -> None:
    """When the tier that may see a text fails, the one that may not is not asked instead."""
    mark = f"mark-fallback-{privacy}"
    answer = await road.ask(talk(f"{mark} please fail"), x_stream_privacy=privacy)
    assert status_of(answer) == (200 if privacy == "public" else 503)
    assert ("cloud" in road.seen(mark)) == (privacy == "public")


async def test_a_stored_conversation(road: Road) -> None:
    """Who goes on from a response takes its class along, also the one that was found in its text."""
    await until(lambda: bool(road.fort.gateway.lines("files and batches are ready")))
    for mark, text, headers in [
        ("mark-stored-header", "mark-stored-header", {"x_stream_privacy": "restricted"}),
        ("mark-stored-card", f"mark-stored-card {CARD}", {}),
    ]:
        first = await road.ask({"model": "local", "input": text}, "/v1/responses", **headers)
        id_ = json.loads(first.partition(b"\r\n\r\n")[2])["id"]
        more = {"input": f"{mark} again", "previous_response_id": id_}
        assert status_of(await road.ask({"model": "cloud", **more}, "/v1/responses")) == 403
        assert status_of(await road.ask({"model": "auto", **more}, "/v1/responses")) == 200
        assert road.seen(mark) == {"local"}


async def test_a_batch(road: Road) -> None:
    """Lines have the class of their file, and what is found in one of them raises that one."""
    await until(lambda: bool(road.fort.gateway.lines("files and batches are ready")))
    texts = {"1": "mark-line-plain", "2": f"mark-line-card {CARD}"}
    lines = [
        {"custom_id": id_, "method": "POST", "url": "/v1/chat/completions", "body": talk(text, model="cloud")}
        for id_, text in texts.items()
    ]
    form = (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + "\n".join(map(json.dumps, lines)).encode()
        + b"\r\n--b--\r\n"
    )
    head = road.fort.head(
        "/v1/files", content_type="multipart/form-data; boundary=b", content_length=str(len(form)), connection="close"
    )
    made = json.loads((await road.fort.say(head + b"\r\n" + form)).partition(b"\r\n\r\n")[2])
    wish = {"input_file_id": made["id"], "endpoint": "/v1/chat/completions", "completion_window": "1h"}
    batch = json.loads((await road.ask(wish, "/v1/batches")).partition(b"\r\n\r\n")[2])
    head = road.fort.head(f"/v1/batches/{batch['id']}", method="GET", connection="close") + b"\r\n"
    async with asyncio.timeout(60):
        while batch["status"] != "completed":
            batch = json.loads((await road.fort.say(head)).partition(b"\r\n\r\n")[2])
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert road.seen("mark-line-plain") == {"cloud"}
    assert road.seen("mark-line-card") == set()


async def test_no_log_has_a_word_of_it(road: Road) -> None:
    """None of the programs' logs, nor what they count, holds a text of any class."""
    answer = await road.fort.say(road.fort.head("/metrics", method="GET", connection="close") + b"\r\n")
    for told in [road.fort.gateway.program.log(), *(program.log() for program in road.services), answer.decode()]:
        assert "mark-" not in told
        assert CARD not in told
