"""What goes on to an engine beside the body, and what comes back to a client: only what is written down here."""

import json

import pytest
from security.fort import Fort, chat, status_of

pytestmark = pytest.mark.process

UPSTREAM = {
    *("host", "accept", "accept-encoding", "content-type", "content-length", "user-agent", "x-request-id"),
    *("traceparent", "tracestate"),
}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def last(fort: Fort) -> dict[str, str]:
    """Headers of the engine's last request that has a body: it is probed, too."""
    asked = zip(list(fort.engine.headers), list(fort.engine.bodies), strict=False)
    headers = [told for told, body in asked if body][-1]
    return {name.lower(): value for name, value in headers}


async def test_only_known_headers_reach_an_engine(fort: Fort) -> None:
    """A client's other headers stay here: hop-by-hop ones, forwarding ones, cookies, its key."""
    before = len(fort.engine.bodies)
    answer = await fort.say(
        fort.request(
            chat(),
            cookie="a=b",
            x_forwarded_for="127.0.0.1",
            x_forwarded_host="evil",
            forwarded="for=127.0.0.1",
            x_real_ip="127.0.0.1",
            te="trailers",
            upgrade="h2c",
            http2_settings="AAMAAABkAAQAAP__",
            proxy_authorization="Basic x",
            openai_organization="org",
            x_http_method_override="DELETE",
            expect="",
            x_request_id="mine",
            traceparent=TRACE,
            tracestate="a=b",
        )
    )
    assert status_of(answer) == 200
    assert len(fort.engine.bodies) > before
    headers = last(fort)
    assert set(headers) <= UPSTREAM, set(headers) - UPSTREAM
    assert headers["x-request-id"] != "mine"
    assert headers["traceparent"].split("-")[1] == TRACE.split("-")[1]


@pytest.mark.parametrize(
    "parent",
    [
        *(
            "",
            "00",
            TRACE.upper(),
            TRACE + "-x",
            TRACE + " ",
            "ff" + TRACE[2:],
            "ff" + TRACE[2:] + "\t",
            TRACE.replace("-", "_"),
            "\xff" * 55,
        ),
        *(TRACE[:-1] + "g", "00-" + "0" * 32 + "-" + "0" * 16 + "-0", "x" * 5_000),
    ],
)
async def test_a_trace_that_is_none_stays_here(fort: Fort, parent: str) -> None:
    """Only a well-formed trace goes on, and its state only with it; of any other neither."""
    answer = await fort.say(fort.request(chat(), traceparent=parent, tracestate="a=" + "b" * 20))
    assert status_of(answer) == 200
    headers = last(fort)
    told = headers.get("traceparent", "")
    assert TRACE.split("-")[1] not in told or parent.strip() == TRACE
    assert "tracestate" not in headers or parent.strip() == TRACE
    assert not told or (told[:3], len(told)) == ("00-", len(TRACE))


@pytest.mark.parametrize("state", ["a=b\x7f", "a=\xff", "b" * 513, "a=b," * 200])
async def test_a_state_that_is_none_stays_here(fort: Fort, state: str) -> None:
    """Too long, or more than ASCII."""
    assert status_of(await fort.say(fort.request(chat(), traceparent=TRACE, tracestate=state))) in {200, 400}
    told = last(fort).get("tracestate", "")
    assert len(told) <= 512
    assert told.isprintable()
    assert told.isascii()


NAMES = [
    "local\r\nx-evil: 1",
    "local\n\nHTTP/1.1 200 OK\r\n\r\n",
    "local\u2028x-evil: 1",
    "local\u0085",
    "loc\u0430l",  # a Cyrillic letter
    "local\u200b",
    "\uff4c\uff4f\uff43\uff41\uff4c",
    "local\x00",
    "../local",
    "local/../../admin",
    "local/m?x=y#z",
    "💥" * 100,
    "\u202elacol",
    "local\ud83d".encode("utf-8", "replace").decode(),
]


@pytest.mark.parametrize("name", NAMES)
async def test_a_models_name_is_no_header(fort: Fort, name: str) -> None:
    """Line ends and look-alikes in a model's name: 404 that quotes it safely; nothing is asked, no header is made."""
    before = len(fort.engine.bodies)
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
        body = chat(model=name, max_tokens=1) if path != "/v1/responses" else {"model": name, "input": "x"}
        answer = await fort.say(fort.request(body, path))
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert status_of(answer) == 404, answer[:300]
        assert b"x-evil" not in head
        assert answer.count(b"HTTP/1.1 ") == 1 or b"HTTP/1.1 200" in rest
        assert head.isascii()
        assert json.loads(rest)
    assert not [body for body in fort.engine.bodies[before:] if body]


@pytest.mark.parametrize(
    "value", ["restricted\x0bx", "public, restricted", "../public", "PUBLIC", "\xff", "a" * 10_000, ""]
)
async def test_a_class_that_is_none_is_refused(fort: Fort, value: str) -> None:
    """The class of a text must be one of the policy's, letter for letter: nothing is guessed."""
    answer = await fort.say(fort.request(chat("guessed"), x_stream_privacy=value))
    assert status_of(answer) in {400, 431}
    assert not fort.engine.was_asked("guessed")
