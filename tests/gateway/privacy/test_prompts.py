"""A prompt that is sent along with a thumb: kept up to its class, whoever or whatever gave it that."""

import pytest

from stream_core.deployment import PolicyConfig
from stream_core.errors import NotAllowed
from stream_gateway.feedback import demand_kept
from stream_gateway.privacy.detector import Detector

POLICY = PolicyConfig.model_validate({"detector": {"find": {"card_number": "restricted"}}})
CARD = "4111 1111 1111 1111"


@pytest.mark.parametrize("place", ["public", "internal", "restricted"])
@pytest.mark.parametrize("classes", [("public", "public"), ("internal", "public"), ("public", "internal")])
@pytest.mark.parametrize("prompt", ["hello", f"pay with {CARD}"])
async def test_what_is_kept(place: str, classes: tuple[str, str], prompt: str) -> None:
    """The strictest of the answered request's class, of who brings the thumb, and of what is found; never repeated."""
    order = POLICY.classes
    own = max(*classes, "restricted" if CARD in prompt else "public", key=order.index)
    if order.index(own) <= order.index(place):
        await demand_kept(place, POLICY, Detector(POLICY), prompt, classes)
        return
    with pytest.raises(NotAllowed) as caught:
        await demand_kept(place, POLICY, Detector(POLICY), prompt, classes)
    assert caught.value.param == "prompt"
    assert f"it is {own!r}" in caught.value.message
    assert f"prompts up to {place!r} are kept" in caught.value.message
    assert ("card number" in caught.value.message) is (CARD in prompt)
    assert CARD not in caught.value.message


@pytest.mark.parametrize(("place", "privacy"), [("restricted", ""), ("unheard", "public"), ("restricted", "dropped")])
async def test_a_class_that_is_not_known(place: str, privacy: str) -> None:
    """Nobody may see such a text, and such a place sees none."""
    with pytest.raises(NotAllowed):
        await demand_kept(place, POLICY, Detector(POLICY), "hello", (privacy, "public"))
