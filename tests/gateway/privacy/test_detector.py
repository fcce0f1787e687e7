"""The detector: what it finds, what only looks alike, and how long it may take."""

import time
from typing import Any

import pytest

from stream_core.deployment import PolicyConfig
from stream_gateway.privacy.detector import Detector, Finding
from stream_gateway.privacy.texts import texts_of

ALL = {
    "card_number": "restricted",
    "iban": "restricted",
    "us_ssn": "restricted",
    "email": "internal",
    "phone": "internal",
    "health": "restricted",
    "secret": "restricted",
}


def detector(**fields: Any) -> Detector:
    return Detector(PolicyConfig.model_validate({"detector": {"find": ALL, **fields}}))


def body(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}


FOUND = [
    ("my card is 4111 1111 1111 1111, please", "card number"),
    ("4111-1111-1111-1111", "card number"),
    ("pay with 378282246310005.", "card number"),
    ("name,4242424242424242,12/29", "card number"),
    ("\u00a05555\u00a05555\u00a05555\u00a04444", "card number"),
    ("DE89 3704 0044 0532 0130 00", "IBAN"),
    ("send it to gb82west12345698765432 today", "IBAN"),
    ("IBAN: FR14 2004 1010 0505 0001 3M02 606 and more", "IBAN"),
    ("SSN 536-90-4399", "social security number"),
    ("write to jane.doe+x@dept.example.ac.uk!", "e-mail address"),
    ("call +49 (30) 901820-15", "phone number"),
    ("call (212) 555-0187 now", "phone number"),
    ("The patient was diagnosed with diabetes.", "words of medicine"),
    ("Diagnosis: E11.9, no further remarks", "code of a disease"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r", "private key"),
    ("key = 'sk-stream-" + "Ab3" * 10 + "'", "API key"),
    ("AKIAIOSFODNN7EXAMPLE", "API key"),
    ("ghp_" + "a1B2" * 9, "API key"),
    ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl", "signed token"),
]


@pytest.mark.parametrize(("text", "words"), FOUND)
async def test_it_is_found(text: str, words: str) -> None:
    """Each kind is found, and called by its name."""
    found = await detector().raised(body(text), "public")
    assert found is not None
    assert found.words == words
    assert found.privacy == ("internal" if words in {"e-mail address", "phone number"} else "restricted")


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # wrong check digit
        "1234567890123452",  # right one, no issuer
        "DE89 3704 0044 0532 0130 01",
        "XX89 3704 0044 0532 0130 00",
        "078-05-1120 and 000-12-3456 and 666-12-3456 and 912-12-3456",
        "536904399",
        "user@localhost",
        "look at @someone and a @ b.com",
        "chapter E11.9 of the handbook",
        "a diagnosis of the network",
        "version 10.15.7, 2026-11-27T01:10:00Z, 3.14159265358979323846",
        "550e8400-e29b-41d4-a716-446655440000",
        "deadbeef" * 8,
        "sk-short",
        "-----BEGIN PUBLIC KEY-----",
        "eyJhbGciOiJIUzI1NiJ9",
        "12345678901234567890123456789012345678901234567890",
        "x = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]",
    ],
)
async def test_what_only_looks_alike_is_not(text: str) -> None:
    """Wrong check digits, other numbers and ordinary words raise nothing."""
    assert await detector().raised(body(text), "public") is None


CARD = "4111 1111 1111 1111"
PLACES: list[dict[str, Any]] = [
    body("x", user=CARD),
    body("x", metadata={CARD: "y"}),
    body("x", tools=[{"type": "function", "function": {"name": "f", "description": CARD}}]),
    body("x", response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"title": CARD}}}),
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": CARD}]}]},
    {"messages": [{"role": "tool", "tool_call_id": "1", "content": CARD}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": f'"{CARD}"'}}]}]},
    {"messages": [{"role": "assistant", "content": "", "reasoning_content": CARD}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"https://x.org/{CARD}"}}]}]},
    {"prompt": ["x", CARD], "suffix": "y"},
    {"input": CARD},
    {"input": [{"type": "text", "text": CARD}]},
]


@pytest.mark.parametrize("request_body", PLACES)
async def test_every_place_of_a_request_is_read(request_body: dict[str, Any]) -> None:
    """Whatever field an engine may read."""
    assert await detector().raised(request_body, "public") == Finding("restricted", "card number")


async def test_it_only_raises() -> None:
    """A request that has the class already, or a higher one, is left as it is."""
    mail = body("jane@example.org")
    assert await detector().raised(mail, "public") == Finding("internal", "e-mail address")
    assert await detector().raised(mail, "internal") is None
    assert await detector().raised(mail, "restricted") is None
    both = body(f"jane@example.org {CARD}")
    assert await detector().raised(both, "internal") == Finding("restricted", "card number")
    assert await Detector(PolicyConfig()).raised(both, "public") is None


async def test_patterns_of_the_institution() -> None:
    """An institution's own pattern raises to its own class, and is called by its own name."""
    policy = {
        "classes": ["open", "campus", "exam board"[:4]],
        "default_class": "open",
        "detector": {"patterns": [{"name": "matriculation number", "pattern": r"\bm\d{7}\b", "privacy": "campus"}]},
    }
    own = Detector(PolicyConfig.model_validate(policy))
    assert await own.raised(body("I am m1234567."), "open") == Finding("campus", "matriculation number")
    assert await own.raised(body("I am m12345678."), "open") is None


async def test_what_is_no_text_has_its_own_class() -> None:
    """Images, sound and numbers of tokens can't be read: they count as what the institution says."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400}}
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 400, "format": "wav"}}
    strict = detector(unreadable="internal")
    for unread in (
        {"messages": [{"role": "user", "content": [picture]}]},
        {"messages": [{"role": "user", "content": [sound]}]},
        {"prompt": [1, 2, 3]},
        {"input": [[1, 2], [3]]},
    ):
        assert await strict.raised(unread, "public") == Finding("internal", "a part that is no text")
        assert await detector().raised(unread, "public") is None
    assert await strict.raised(body("x", n=1, seed=7), "public") is None
    both = {"messages": [{"role": "user", "content": [picture, {"type": "text", "text": CARD}]}]}
    assert await strict.raised(both, "public") == Finding("restricted", "card number")
    assert list(texts_of({"messages": [picture]})) == ["messages", "type", "image_url", "url", "image_url"]


HOSTILE = ["1", "1 ", "a", "a.", "a@", "@a.", "A1", "DE12", "eyJ", "(212) ", "+1 ", "E11.9 ", "sk-", "-----BEGIN "]


@pytest.mark.parametrize("piece", HOSTILE)
async def test_no_text_takes_long(piece: str) -> None:
    """Steps grow with a text's length, not with its square: 8 times as long is far from taking 64 times."""

    async def took(length: int) -> float:
        text = body(piece * (length // len(piece)))
        began = time.process_time()
        await detector(deadline_s=60).raised(text, "public")
        return time.process_time() - began

    short = min([await took(20_000) for _ in range(3)])
    long = min([await took(160_000) for _ in range(2)])
    assert long < 32 * max(short, 0.001)


async def test_late_means_confidential() -> None:
    """A text that is not looked through at the deadline counts as what it may be at most."""
    ticks = iter(range(1_000_000))
    policy = PolicyConfig.model_validate({"detector": {"find": {"email": "internal", "iban": "restricted"}}})
    slow = Detector(policy, clock=lambda: float(next(ticks)))
    found = await slow.raised(body("word " * 100_000), "public")
    assert found == Finding("restricted", "too long to be looked through")


@pytest.mark.parametrize("place", [0, 32_760, 32_768, 65_530, 100_000])
async def test_windows_miss_nothing(place: int) -> None:
    """A find across the border of two windows is one, and digits beyond a border still belong to their number."""
    text = "x" * place + f" {CARD} " + "y" * 5_000
    assert await detector().raised(body(text), "public") == Finding("restricted", "card number")
    longer = "x" * place + " 4" + CARD.replace(" ", "") + "1234567 "
    assert await detector().raised(body(longer), "public") is None
