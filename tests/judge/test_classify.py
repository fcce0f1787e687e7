"""The cache, its key, and what a valid request is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.errors import InvalidRequest
from stream_core.rpc import judge_pb2
from stream_judge.cache import BoundedCache
from stream_judge.classify import Classifier, LearnedBackend, digest
from stream_judge.context import Turn, select
from stream_judge.features import Shape
from stream_judge.query import Limits, Query, read_query
from stream_judge.weights import Weights

QUERY = Query(turns=(Turn("user", "Why is the sky blue?"),), tiers=("local", "hpc", "cloud"), shape=Shape())


@given(st.integers(0, 5), st.lists(st.tuples(st.booleans(), st.integers(0, 9))))
def test_cache_is_bounded_and_forgets_the_least_used(entries: int, operations: list[tuple[bool, int]]) -> None:
    """The cache behaves as a list of the last used keys, cut at its bound."""
    cache = BoundedCache[int](entries)
    model: list[int] = []
    for write, number in operations:
        key = bytes([number])
        if write:
            cache.put(key, number)
            model = ([k for k in model if k != number] + [number])[-entries:] if entries else []
        else:
            assert cache.get(key) == (number if number in model else None)
            if number in model:
                model = [k for k in model if k != number] + [number]
        assert len(cache) == len(model) <= entries


async def test_equal_questions_are_scored_once(weights: Weights) -> None:
    """The second answer is the first one, marked as remembered."""
    classifier = Classifier(LearnedBackend(weights), cache_entries=10)
    first, second = await classifier.classify(QUERY), await classifier.classify(QUERY)
    assert (first.cached, second.cached) == (False, True)
    assert replace(second, cached=False) == first
    assert first.backend == "learned"
    assert first.version == f"learned-{weights.version}"


async def test_scopes_do_not_share(weights: Weights) -> None:
    """What one scope has asked cannot be seen from another."""
    classifier = Classifier(LearnedBackend(weights), cache_entries=10)
    await classifier.classify(replace(QUERY, cache_scope="a"))
    assert not (await classifier.classify(replace(QUERY, cache_scope="b"))).cached
    assert (await classifier.classify(replace(QUERY, cache_scope="a"))).cached


async def test_no_cache(weights: Weights) -> None:
    """With no entries nothing is remembered, and everything works."""
    classifier = Classifier(LearnedBackend(weights), cache_entries=0)
    await classifier.classify(QUERY)
    assert not (await classifier.classify(QUERY)).cached


@pytest.mark.parametrize(
    "other",
    [
        replace(QUERY, cache_scope="x"),
        replace(QUERY, tiers=("local", "hpc")),
        replace(QUERY, tiers=("localhpc", "cloud")),
        replace(QUERY, turns=(Turn("user", "Why is the sky blue!"),)),
        replace(QUERY, turns=(Turn("user", "Hello"), Turn("user", "Why is the sky blue?"))),
        replace(QUERY, shape=Shape(tool_count=1)),
        replace(QUERY, shape=Shape(structured_output=True)),
        replace(QUERY, shape=Shape(max_output_tokens=1)),
        replace(QUERY, shape=Shape(modalities=frozenset({"image"}))),
    ],
)
def test_the_key_holds_everything(other: Query) -> None:
    """Two queries that may score differently never share an entry, nor do two versions."""
    base = digest(select(QUERY.turns), QUERY, "1")
    assert digest(select(other.turns), other, "1") != base
    assert digest(select(QUERY.turns), QUERY, "2") != base


def test_the_key_takes_lone_surrogates() -> None:
    """Text that is no valid Unicode has a key too."""
    query = replace(QUERY, turns=(Turn("user", "\ud800"),))
    assert len(digest(select(query.turns), query, "1")) == 32


def request(**fields: object) -> judge_pb2.ScoreRequest:
    valid: dict[str, object] = {"turns": [judge_pb2.Turn(role="user", text="hi")], "tiers": ["local"]}
    return judge_pb2.ScoreRequest(**(valid | fields))


@pytest.mark.parametrize(
    ("wrong", "param", "words"),
    [
        (request(turns=[]), "turns", ["0 given", "at least 1"]),
        (request(tiers=[]), "tiers", ["0 given", "at least 1"]),
        (request(turns=[judge_pb2.Turn(role="user")] * 5), "turns", ["5 given", "at most 4"]),
        (request(tiers=["a", "b", "c", "d"]), "tiers", ["4 given", "at most 3"]),
        (request(tiers=["a", "a"]), "tiers", ["2 names", "only 1"]),
        (request(tiers=["a", ""]), "tiers[1]", ["0 characters", "at least 1"]),
        (request(tiers=["a" * 129]), "tiers[0]", ["129 characters", "at most 128"]),
        (request(turns=[judge_pb2.Turn(text="x")]), "turns[0].role", ["0 characters", "at least 1"]),
        (request(modalities=["image"] * 9), "modalities", ["9 given", "at most 8"]),
        (request(modalities=[""]), "modalities[0]", ["at least 1"]),
        (request(request_id="x" * 129), "request_id", ["129 characters", "at most 128"]),
        (request(cache_scope="x" * 513), "cache_scope", ["513 characters", "at most 512"]),
        (request(turns=[judge_pb2.Turn(role="user", text="x" * 2000)]), "turns", ["bytes", "at most 1,900"]),
    ],
)
def test_invalid_requests(wrong: judge_pb2.ScoreRequest, param: str, words: list[str]) -> None:
    """Each limit has an error that names the field and says both numbers."""
    with pytest.raises(InvalidRequest) as caught:
        read_query(wrong, Limits(turns=4, tiers=3, bytes=1900))
    assert caught.value.param == param
    assert all(word in caught.value.message for word in words)


def test_valid_request() -> None:
    """Every field of the wire arrives in the query."""
    query = read_query(
        request(
            modalities=["image"],
            tool_count=2,
            structured_output=True,
            max_output_tokens=9,
            cache_scope="s",
            tiers=["x", "y"],
        ),
        Limits(),
    )
    assert query == Query(
        (Turn("user", "hi"),),
        ("x", "y"),
        Shape(frozenset({"image"}), 2, structured_output=True, max_output_tokens=9),
        "s",
    )
