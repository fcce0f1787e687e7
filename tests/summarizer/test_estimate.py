"""The estimate errs high against counts that were taken with two real vocabularies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_summarizer.conversation import Medium
from stream_summarizer.estimate import estimate, estimate_medium

MEASURED = [
    ("The meeting moved from Tuesday to Thursday at 14:30, because the projector in room 204 is broken.", 28),
    (
        (
            'def mean(values: list[float]) -> float:\n    if not values:\n        raise ValueError("empty")\n'
            "    return sum(values) / len(values)\n"
        ),
        38,
    ),
    ('{"city": "Paris", "days": [1, 2, 3], "units": {"temperature": "celsius", "wind_speed": null}}', 38),
    ("Die Besprechung wurde auf Donnerstag verschoben, weil der Beamer im kleinen Saal nicht funktioniert.", 30),
    ("Schůzka se přesouvá na čtvrtek, protože projektor v malém sále nefunguje.", 31),
    ("Kokous siirrettiin torstaille, koska pienen salin projektori ei toimi.", 27),
    ("Встреча перенесена на четверг, потому что проектор в малом зале не работает.", 27),
    ("Η συνάντηση μεταφέρθηκε για την Πέμπτη, επειδή ο προβολέας δεν λειτουργεί.", 75),  # noqa: RUF001  (Greek)
    ("تم نقل الاجتماع إلى يوم الخميس لأن جهاز العرض لا يعمل.", 49),
    ("बैठक गुरुवार को होगी, क्योंकि छोटे कमरे का प्रोजेक्टर काम नहीं कर रहा है।", 78),
    ("会议改到星期四，因为小会议室的投影仪坏了。", 24),  # noqa: RUF001  (Chinese)
    ("小さい部屋のプロジェクターが壊れているので、会議は木曜日に変更されました。", 44),
    ("작은 방의 프로젝터가 고장 나서 회의가 목요일로 옮겨졌습니다.", 41),
    ("👍🎉🙂👩‍👩‍👧‍👦", 31),
    ("\n\n\n\t\t\t\n\n", 9),
]  # the larger count of a 32,000-token SentencePiece and a 131,000-token byte-level vocabulary


@pytest.mark.parametrize(("text", "tokens"), MEASURED)
def test_errs_high(text: str, tokens: int) -> None:
    """Each row: a text and its measured tokens; the estimate is not below them, and not absurdly above."""
    assert tokens <= estimate(text) <= 2.2 * tokens


@given(st.text(max_size=500))
def test_never_above_its_bytes(text: str) -> None:
    """No byte-level tokenizer makes more tokens than bytes, so the estimate says no more either."""
    assert 0 < estimate(text) <= len(text.encode("utf-8", "surrogatepass")) + 1


def test_media() -> None:
    """An image counts the configured figure, sound by its length, a file by its size."""
    assert estimate_medium(Medium("image_url", "", 5_000_000), 1600) == 1600
    minute = 60 * 16_000 * 2 * 4 // 3
    assert estimate_medium(Medium("input_audio", "wav", minute), 1600) >= 60 * 25
    assert estimate_medium(Medium("file", "", 400_000), 1600) == 75_000
