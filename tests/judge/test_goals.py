"""Goals in words, and the thresholds that reach them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.errors import ConfigError
from stream_judge.goals import Goal, Question, choose, curve, parse_goal, pick

QUESTIONS = [
    Question((0.9, 0.95, 0.97), (1, 1, 1)),
    Question((0.6, 0.8, 0.9), (0, 1, 1)),
    Question((0.3, 0.5, 0.8), (0, 0, 1)),
    Question((0.1, 0.2, 0.3), (0, 0, 0)),
]


@pytest.mark.parametrize(
    ("words", "goal"),
    [
        ("at most 15 % to the cloud", Goal("share", 0.15)),
        ("At most 15% of requests to the cloud", Goal("share", 0.15)),
        ("at least 95 % of cloud quality", Goal("quality", 0.95)),
        ("at least 97.5 percent of the cloud's quality", Goal("quality", 0.975)),
        ("at most $200 a month", Goal("budget", 200)),
        ("at most $ 12,5 per month", Goal("budget", 12.5)),
    ],
)
def test_goals_are_understood(words: str, goal: Goal) -> None:
    """What an operator would say is read as it is meant."""
    assert parse_goal(words) == goal


@pytest.mark.parametrize("words", ["", "cheap please", "at most 150 % to the cloud", "at least 15 % to the cloud"])
def test_other_words_are_refused(words: str) -> None:
    """What is not understood is an error that says how to say it, or what is wrong."""
    with pytest.raises(ConfigError, match=r"say it like|at most 100 %"):
        parse_goal(words)


def test_pick() -> None:
    """Within a limit the best quality; for a quality the smallest share."""
    points = curve(QUESTIONS, requests=1000, dollars_each=0.1)
    share = pick(points, Goal("share", 0.25))
    assert share.cloud_share <= 0.25
    assert share.quality == pytest.approx(0.25)
    quality = pick(points, Goal("quality", 1.0))
    assert (quality.of_cloud, quality.cloud_share) == (1.0, 0.5)
    assert pick(points, Goal("budget", 50)).dollars <= 50
    with pytest.raises(ConfigError, match="no threshold stays within"):
        pick(curve([Question((0.1, 0.9), (0, 1))], requests=10, dollars_each=1)[50:], Goal("share", 0))


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6), st.floats(0, 1))
def test_choose_is_the_policy(chances: list[float], threshold: float) -> None:
    """The cheapest tier that reaches the threshold, else the most probable."""
    index = choose(chances, threshold)
    if chances[index] >= threshold:
        assert all(chance < threshold for chance in chances[:index])
    else:
        assert chances[index] == max(chances)
