"""Nothing carries a text beyond its class: whole roads under generated policies, documents, keys and failures.

Each text has a mark that is nowhere else. Wherever text leaves the gateway or comes to rest, and in every log line,
response header and trace header, the marks found must be of no higher class than the place. STREAM_PRIVACY_EXAMPLES
sets how many roads are tried.
"""

import asyncio
import os
import re
from typing import Any

from gateway.privacy.realm import MARKS, Realm, Reply
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from stream_core.deployment import Deployment
from stream_core.errors import NotAllowed, StreamError
from stream_gateway.accounts.principal import Principal

EXAMPLES = int(os.environ.get("STREAM_PRIVACY_EXAMPLES", "100"))
NAMES = ["open", "campus", "confidential", "sealed"]
SCRIPTS = ["ok", "ok", "ok", "ok", "away", "cold", "unavailable", "busy", "refuses", "broken"]
APIS = ["chat", "chat", "responses", "responses", "messages", "completions", "embeddings", "line", "explain"]
FILLER = "We spoke about the garden, the weather, a film and old maps. " * 30


@st.composite
def deployments(draw: st.DrawFn) -> tuple[Deployment, dict[str, dict[str, str]]]:
    """Draw classes, tiers with models of their own classes, a detector, and what goes wrong."""
    classes = NAMES[: draw(st.integers(1, 4))]
    tiers: list[dict[str, Any]] = []
    scripts: dict[str, dict[str, str]] = {}
    for number in range(draw(st.integers(1, 3))):
        name, ceiling = f"t{number}", draw(st.integers(0, len(classes) - 1))
        models = []
        scripts[name] = {}
        for index in range(draw(st.integers(1, 2))):
            id_ = f"m{index}" if draw(st.booleans()) else f"m{number}{index}"
            scripts[name][id_] = draw(st.sampled_from(SCRIPTS))
            own = draw(st.none() | st.integers(0, ceiling))
            model = {"id": id_, "context_window": draw(st.sampled_from([1024, 2048, 4096, 65_536]))}
            model["capabilities"] = draw(st.sampled_from([["tools"], ["tools", "chat", "embeddings"]]))
            models.append(model | ({} if own is None else {"privacy": classes[own]}))
        kind = draw(st.sampled_from(["http", "hpc"]))
        where = {"base_url": "http://127.0.0.1:9/v1"} if kind == "http" else {}
        tiers.append(
            {"name": name, "kind": kind, "privacy": classes[ceiling], "models": models, "reserved_output": 64, **where}
        )
    policy: dict[str, Any] = {"classes": classes, "default_class": draw(st.sampled_from(classes))}
    policy["good_enough"] = draw(st.sampled_from([0.0, 0.5, 1.0]))
    if draw(st.booleans()):
        own = [{"name": f"thing {n}", "pattern": f"zz{n}zz", "privacy": name} for n, name in enumerate(classes)]
        find = {"card_number": draw(st.sampled_from(classes))} if draw(st.booleans()) else {}
        policy["detector"] = {"patterns": own, "find": find}
    return Deployment.model_validate({"tiers": tiers, "policy": policy}), scripts


@st.composite
def requests(draw: st.DrawFn, classes: list[str]) -> dict[str, Any]:
    """Draw one request, and what of it makes it confidential."""
    triggers = draw(
        st.lists(st.sampled_from([f"zz{n}zz" for n in range(len(classes))] + ["4111 1111 1111 1111"]), max_size=1)
    )
    return {
        "api": draw(st.sampled_from(APIS)),
        "header": draw(st.none() | st.sampled_from(classes)),
        "key": draw(st.none() | st.sampled_from(classes)),
        "triggers": triggers,
        "tiers": draw(st.sampled_from([None, None, None, {"t0"}, {"t0", "t1"}, {"t1", "t2"}])),
        "model": draw(st.sampled_from([*["auto"] * 8, "t0", "t1", "m0", "t0/m0", "t1/m1"])),
        "long": draw(st.booleans()),
        "stream": draw(st.booleans()),
        "follow": draw(st.booleans()),
        "keeps": draw(st.booleans()),
        "thumb": draw(st.none() | st.sampled_from(["", *classes])),
        "place": draw(st.sampled_from(["user", "system", "tool", "parts"])),
    }


def body_of(drawn: dict[str, Any], text: str, previous: str | None) -> dict[str, Any]:
    """Write the request in the form of its API, the text in one of its places."""
    api, place = drawn["api"], drawn["place"]
    body: dict[str, Any] = {"model": drawn["model"], "stream": drawn["stream"] and api not in {"embeddings", "line"}}
    if api == "completions":
        return body | {"prompt": [text]}
    if api == "embeddings":
        return {"model": drawn["model"], "input": [text, "another"]}
    if api == "responses":
        return body | {"input": text, **({"previous_response_id": previous} if previous else {})}
    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello."}]
    if api == "messages":
        system = text if place == "system" else "Be brief."
        return body | {"max_tokens": 16, "system": system, "messages": [*turns, {"role": "user", "content": text}]}
    long = [{"role": role, "content": f"{text} {turn}"} for turn in range(2) for role in ("user", "assistant")]
    messages = [*turns, *(long if drawn["long"] else [])]
    if place == "tool":
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        messages += [
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": text},
        ]
    elif place == "parts":
        messages.append(
            {"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "text", "text": text}]}
        )
    else:
        messages.append({"role": place, "content": text})
    return body | {"messages": [*messages, {"role": "user", "content": "What was said?"}]}


def class_of(drawn: dict[str, Any], deployment: Deployment, before: int) -> int:
    """Say of which class the text is, as the rules have it; independent of the gateway's own reckoning."""
    policy = deployment.policy
    reasons = [before, policy.classes.index(drawn["key"] or policy.default_class)]
    if drawn["header"] is not None:
        reasons.append(policy.classes.index(drawn["header"]))
    for trigger in drawn["triggers"]:
        if policy.detector is not None and trigger.startswith("zz"):
            reasons.append(int(trigger[2]))
        elif policy.detector is not None and "card_number" in policy.detector.find:
            reasons.append(policy.classes.index(policy.detector.find["card_number"]))
    return max(reasons)


async def give_thumb(realm: Realm, reply: Reply, text: str, header: str | None) -> None:
    """Say of an answer that it was good, with its prompt, which is kept or refused."""
    (request_id,) = re.findall(r"x-request-id', b'([0-9a-f]{32})'", reply.headers)
    try:
        await realm.thumb(request_id, text, header)
    except NotAllowed as error:
        event("prompt not kept")
        realm.log.lines.append(error.message)


async def walk(realm: Realm, asked: list[dict[str, Any]]) -> None:
    """Ask one request after the other, and look at every place after each."""
    marks: dict[str, int] = {}
    previous: tuple[str, int] | None = None
    classes = realm.deployment.policy.classes
    for drawn in asked:
        mark = f"mark{next(MARKS):05d}x"
        text = " ".join([mark, *drawn["triggers"], FILLER if drawn["long"] else "Please answer."])
        tiers = None if drawn["tiers"] is None else frozenset(drawn["tiers"])
        realm.principal = Principal("key-1", tiers, drawn["key"], keeps_content=drawn["keeps"])
        goes_on = previous if drawn["follow"] and drawn["api"] == "responses" else None
        marks[mark] = class_of(drawn, realm.deployment, goes_on[1] if goes_on else 0)
        if goes_on:
            event("goes on from a response")
        body = body_of(drawn, text, goes_on[0] if goes_on else None)
        headers = ""
        try:
            if drawn["api"] == "line":
                # The class of a batch is the strictest of file, key and header.
                given_by = [name for name in (drawn["header"], drawn["key"]) if name]
                highest = max(given_by or [realm.deployment.policy.default_class], key=classes.index)
                await realm.line(body, highest)
            elif drawn["api"] == "explain":
                await realm.explain(body, drawn["header"])
            else:
                reply = await realm.ask(drawn["api"], body, drawn["header"])
                headers = reply.headers
                if drawn["thumb"] is not None and reply.status == 200:
                    await give_thumb(realm, reply, text, drawn["thumb"] or None)
                event(f"{drawn['api']} {reply.status}")
                assert reply.status != 500, "the road itself is broken, and shows nothing"
                if drawn["api"] == "responses" and reply.status == 200 and b'"resp_' in reply.body:
                    previous = reply.body.split(b'"id":"resp_')[1].split(b'"')[0].decode(), marks[mark]
                    previous = f"resp_{previous[0]}", previous[1]
        except StreamError as error:
            headers = error.message
        assert "mark" not in headers
        await realm.settle()
        for place in realm.places:
            most = min(classes.index(name) if name in classes else -1 for name in place.classes)
            for sent in place.texts:
                beyond = [name for name, of in marks.items() if name in sent and of > most]
                assert not beyond, f"{place.name} may see {place.classes} and got {beyond} of {marks}"
                event(f"seen by {place.name.split('/')[0][:8]}")
        for conversation in realm.shelf.kept.values():
            stored = str([conversation.response, conversation.input, conversation.before])
            low = [name for name, of in marks.items() if name in stored and of > classes.index(conversation.privacy)]
            assert not low, f"a response of class {conversation.privacy} holds {low} of {marks}"
    assert not [line for line in realm.log.lines if "mark" in line]


def run(
    deployment: Deployment, scripts: dict[str, dict[str, str]], asked: list[dict[str, Any]], own: list[str]
) -> None:
    """Walk a road in a realm of its own; `own` has the classes of the services' models, of ledger and feedback."""

    async def once() -> None:
        names = ("judge_class", "summarizer_class", "ledger_class", "thumbs_class")
        realm = Realm(deployment, scripts, **dict(zip(names, own, strict=True)))
        await realm.open()
        try:
            with realm.listening():
                await walk(realm, asked)
        finally:
            await realm.aclose()

    asyncio.run(once())


roads = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@roads
@given(st.data())
def test_nothing_carries_a_text_beyond_its_class(data: st.DataObject) -> None:
    """Over every API, tier, model, language model of judge and summarizer, response, batch line and failure."""
    deployment, scripts = data.draw(deployments())
    classes = deployment.policy.classes
    asked = data.draw(st.lists(requests(classes), min_size=1, max_size=4))
    run(deployment, scripts, asked, [data.draw(st.sampled_from(classes)) for _ in range(4)])


@roads
@given(st.data())
def test_a_conversation_only_rises(data: st.DataObject) -> None:
    """Who goes on from a stored response takes its class along, whatever header, trigger or document gave it."""
    classes = NAMES[: data.draw(st.integers(2, 4))]
    where = {"base_url": "http://127.0.0.1:9/v1", "reserved_output": 64}
    tiers = [
        {"name": f"t{place}", "privacy": name, "models": [{"id": "m0", "context_window": 65_536}], **where}
        for place, name in enumerate(data.draw(st.permutations(classes)))
    ]
    policy: dict[str, Any] = {"classes": classes, "default_class": classes[0], "good_enough": 0.0}
    own = [{"name": f"thing {n}", "pattern": f"zz{n}zz", "privacy": name} for n, name in enumerate(classes)]
    policy["detector"] = {"patterns": own} if data.draw(st.booleans()) else None
    deployment = Deployment.model_validate({"tiers": tiers, "policy": policy})
    talk = {"api": "responses", "follow": True, "key": None, "model": "auto", "tiers": None}
    asked = [{**drawn, **talk} for drawn in data.draw(st.lists(requests(classes), min_size=2, max_size=4))]
    run(deployment, {tier["name"]: {"m0": "ok"} for tier in tiers}, asked, [classes[0]] * 4)
