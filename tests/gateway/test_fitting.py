"""How large a request is: the bound that decides whether the summarizer is asked at all."""

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_core.deployment import TierConfig
from stream_core.openai.models import ChatRequest, parse_chat
from stream_gateway.fitting import MEDIA_TOKENS, TEMPLATE_TOKENS, Unfit, measure, reserved_output

TIER = TierConfig(name="local", base_url="http://127.0.0.1/v1", reserved_output=1024)


def request(*messages: dict[str, object], **fields: object) -> tuple[ChatRequest, int]:
    data = orjson.dumps({"model": "auto", "messages": messages, **fields})
    return parse_chat(data), len(data)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=50), min_size=1, max_size=5))
def test_the_bound_holds_for_any_text(texts: list[str]) -> None:
    """No text has more bytes in UTF-8 than the bound allows, whatever the JSON escapes are."""
    chat, size = request(*({"role": "user", "content": text} for text in texts))
    assert measure(chat, size).at_most >= sum(len(text.encode()) for text in texts) + TEMPLATE_TOKENS
    messages = orjson.dumps(chat.body["messages"])
    assert measure(chat, len(messages)).at_most >= sum(len(text.encode()) for text in texts) + TEMPLATE_TOKENS


def test_media_count_by_piece_not_by_byte() -> None:
    """A large image does not look like a long text."""
    url = "data:image/png;base64," + "A" * 1_000_000
    chat, size = request({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})
    measured = measure(chat, size)
    assert MEDIA_TOKENS < measured.at_most < MEDIA_TOKENS + TEMPLATE_TOKENS + 200
    assert measured.about < MEDIA_TOKENS + 100


@pytest.mark.parametrize(
    ("fields", "window", "reserved"),
    [({"max_tokens": 77}, 2048, 77), ({}, 8192, 1024), ({}, 2048, 512), ({"max_completion_tokens": 5000}, 8192, 5000)],
)
def test_what_is_kept_free_for_the_answer(fields: dict[str, object], window: int, reserved: int) -> None:
    """The caller's limit, else the tier's share, never more than a quarter of a small window."""
    chat, _ = request({"role": "user", "content": "x"}, **fields)
    assert reserved_output(chat, TIER, window) == reserved


def test_the_refusal_has_both_numbers() -> None:
    """What is too long says how long it is and what would fit, and whether it was counted."""
    assert "has 9,000 tokens" in Unfit(9_000, 2_048, exact=True).words("local/demo")
    assert "about 9,000 tokens" in Unfit(9_000, 2_048, exact=False).words("local/demo")
    assert "2,048 tokens" in Unfit(9_000, 2_048, exact=True).words("local/demo")
