"""The engine's own numbers, out of whatever its `/metrics` says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_worker.engine_load import Load, read_load
from stream_worker.first_tokens import FirstTokens

VLLM = """\
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 16.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 5.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 5.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
"""


@pytest.mark.parametrize(
    ("text", "load"),
    [
        (VLLM, Load(5, 0.25)),
        (VLLM + VLLM.replace('engine="0"', 'engine="1"').replace("0.25", "0.75"), Load(10, 0.75)),
        ("vllm:gpu_cache_usage_perc 0.5\n", Load(0, 0.5)),
        ("llamacpp:requests_deferred 3\nllamacpp:kv_cache_usage_ratio 0\n", Load(3, 0.0)),
        ('vllm:num_requests_waiting{model_name="a } b"} 2 1700000000000\n', Load(2, None)),
        ("vllm:num_requests_waiting NaN\nvllm:kv_cache_usage_perc +Inf\n", Load()),
        ("vllm:num_requests_waiting -1\nvllm:kv_cache_usage_perc 1.7\n", Load(0, 1.0)),
        ("vllm:num_requests_waiting 1e300\n", Load(2**31 - 1, None)),
        ("<html>not metrics at all</html>", Load()),
        ("", Load()),
    ],
    ids=["vllm", "two ranks", "older vllm", "llama.cpp", "braces and time", "no numbers", "beyond", "huge", "html", ""],
)
def test_what_is_read(text, load):
    """Each engine's names; ranks add up, the fullest cache counts, nonsense is no load."""
    assert read_load(text) == load


@given(st.text())
def test_no_text_breaks_it(text):
    """Whatever an engine answers, the heartbeat goes on with numbers that fit into it."""
    load = read_load(text)
    assert load.waiting >= 0
    assert load.cache_use is None or 0 <= load.cache_use <= 1


def test_the_median_follows_the_last_answers():
    """None before the first; old answers are forgotten, one slow answer changes little."""
    times = FirstTokens()
    assert times.median_ms is None
    for seconds in [9.0] * 40 + [0.010] * 20 + [5.0] + [0.020] * 11:
        times.add(seconds)
    assert times.median_ms == 10.0
