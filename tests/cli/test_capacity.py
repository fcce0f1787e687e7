"""`stream capacity`: the model behaves as one, and the command says what it used."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from stream_cli.__main__ import app
from stream_cli.capacity.costs import PARTS, load
from stream_cli.capacity.plan import Hardware, Load, plan
from stream_cli.capacity.queueing import busy
from stream_core.errors import ConfigError

COSTS = load()


def of(capacity, part):
    return next(need for need in capacity.needs if need.part == part)


def played(messages, together, wakeup_us, token_us):
    """The same loop, message by message: busy seconds of a long while, and how many."""
    rng, now, work, queue = random.Random(7), 0.0, 0.0, 0  # noqa: S311  (a simulation)
    arrival = rng.expovariate(messages)
    while now < 200_000 / messages:
        if not queue:
            now, queue = max(now, arrival), 1
            arrival += rng.expovariate(messages)
        while arrival <= now:
            queue += 1
            arrival += rng.expovariate(messages)
        taken = (wakeup_us + token_us * together * queue) / 1e6
        now, work, queue = now + taken, work + taken, 0
        while arrival <= now:
            queue += 1
            arrival += rng.expovariate(messages)
    return work / now


@pytest.mark.parametrize("messages", [10, 500, 3000])
@pytest.mark.parametrize(("together", "wakeup_us", "token_us"), [(1, 300, 40), (8, 200, 5), (1, 0.5, 60)])
def test_busy_is_what_such_a_loop_is(messages, together, wakeup_us, token_us):
    """Within what the formula leaves out: it takes a cycle's mean for the cycle."""
    assert busy(messages, together, wakeup_us, token_us) == pytest.approx(
        played(messages, together, wakeup_us, token_us), rel=0.05
    )


@given(st.floats(0, 1e7), st.floats(1, 64), st.floats(0.1, 1000), st.floats(0, 1000))
def test_busy_grows_and_stays_a_share(messages, together, wakeup_us, token_us):
    """More messages never make it less, and no more than a whole core is busy."""
    assert 0 <= busy(messages, together, wakeup_us, token_us) <= 1
    assert busy(messages, together, wakeup_us, token_us) <= busy(messages * 2, together, wakeup_us, token_us)


@given(st.integers(1, 2_000_000), st.floats(0.1, 500), st.integers(1, 50), st.floats(1, 64))
def test_every_part_is_sized_and_more_load_needs_no_less(streams, tokens_per_s, clusters, together):
    """Two replicas and a spare one at least; nobody is busier than allowed; twice the load needs as much or more."""
    one, two = (
        plan(Load(n, tokens_per_s, clusters, together=together), Hardware(), COSTS) for n in (streams, 2 * streams)
    )
    for need, more in zip(one.needs, two.needs, strict=True):
        assert need.replicas <= more.replicas
        assert need.cores <= more.cores * 1.01
        assert all(map(math.isfinite, (need.replicas, need.cores, need.memory_gib, need.gbit)))
    assert of(one, "gateway").replicas >= 3
    assert of(one, "gateway").cores / of(one, "gateway").replicas <= 0.6
    assert of(one, "hpc_dispatch").replicas == 2
    assert of(one, "worker").replicas == math.ceil(streams / 64)


def test_the_first_end_is_the_least_headroom():
    """At a hundred thousand streams it is named with its number, and NATS is several clusters."""
    capacity = plan(Load(100_000, 40, 5), Hardware(), COSTS)
    least = min(capacity.needs, key=lambda need: need.headroom)
    assert capacity.bottleneck.startswith(f"{least.part}: its end is at about {least.headroom:.1f} times")
    assert "super-cluster" in capacity.layout
    assert "one NATS cluster of 3 nodes" in plan(Load(500, 40), Hardware(), COSTS).layout


def test_the_command():
    """A table with every part, or JSON with the same; a wrong number names its option."""
    asked = ["capacity", "--streams", "100000", "--tokens-per-s", "40", "--clusters", "5"]
    table = CliRunner().invoke(app, asked)
    told = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)
    assert table.exit_code == 0
    for need in told["needs"]:
        assert f"{need['part']:<13} {need['replicas']:>9,}" in table.output
    assert told["bottleneck"] in table.output
    assert all(assumption in table.output for assumption in told["assumptions"])
    wrong = CliRunner().invoke(app, ["capacity", "--streams", "0"])
    assert (wrong.exit_code, wrong.output.strip()) == (1, "stream: --streams: 0 is not between 1 and 1e+08")


def test_costs_of_ones_own(tmp_path):
    """The last line of a bench's output goes before what is built in; the others stay."""
    judge = tmp_path / "judge.txt"
    judge.write_text('cached ...\n{"uncached": {"calls_per_core_s": 2500, "calls_per_s": 1}, "inside": {}}\n')
    own = load([(str(judge), judge.read_text())])
    assert (own.judge_calls_per_core_s, own.parts) == (2500, COSTS.parts)
    parts = {part: {**json.loads(json.dumps(vars_of(COSTS.parts[part]))), "us_per_token": 1.0} for part in PARTS}
    told = {"machine": "here", "parts": parts, "pool": vars_of(COSTS.pool), "event_bytes": 1, "sealed_bytes": 2}
    assert load([("dataplane", f"a table\n{json.dumps(told)}\n")]).parts["relay"].us_per_token == 1.0
    assert load([("x", '{"next_turn_p50_ms": 9.5}')]).summarizer_ms == 9.5


def vars_of(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no json", "x: its last line is no JSON object"),
        ("{}", "x: neither of bench-capacity, bench-judge-rpc nor bench-summarizer"),
        ('{"uncached": {}}', "x: 'calls_per_core_s'"),
        ('{"parts": {}}', "parts: gateway, relay, nats, worker missing"),
        ('{"parts": {"gateway": {}}}', "missing required field `us_per_request` - at `$.parts[...]`"),
    ],
)
def test_costs_that_are_none(text, words):
    """Named with the file and the field."""
    with pytest.raises(ConfigError) as caught:
        load([("x", text)])
    assert words in caught.value.message
