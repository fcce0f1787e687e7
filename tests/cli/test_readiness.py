"""When everything is really ready."""

import json
from pathlib import Path

import pytest

from stream_cli.effective import EngineFacts, Machine, complete
from stream_cli.readiness import dialled, is_loopback, our_tiers, states
from stream_core.deployment import parse

EMBEDDED = "http://127.0.0.1:20001/v1"
DEMO = EngineFacts(model="stream-demo", context=8192, demo=True, source="demo")
COLD = """\
tiers: [{name: hpc, kind: hpc}]
clusters: [{name: far, pools: [{model: {id: m}, engine_url: "http://x", min_ready: 0}]}]
"""
ALL = frozenset({"engine", "relay", "hpc_dispatch", "gateway"})


def deployment(text="{}", engine=DEMO):
    return complete(parse(text)[0], Machine("/python", {}, EMBEDDED, Path("/key"), engine=engine))


@pytest.mark.parametrize(
    ("text", "started", "expected"),
    [
        ("{}", ALL, {"local", "hpc"}),
        ("{}", ALL - {"engine"}, {"hpc"}),
        ("{}", ALL - {"relay"}, {"local"}),
        ("{}", ALL - {"hpc_dispatch"}, {"local"}),
        ("tiers: [{name: lab, base_url: 'http://lab:1/v1'}]", ALL, set()),
        ("tiers: [{name: hpc, kind: hpc}]\nclusters: []", ALL, set()),
        ("tiers: [{name: hpc, kind: hpc}]", ALL, {"hpc"}),
        (COLD, ALL, set()),
    ],
)
def test_only_tiers_that_we_started_are_waited_for(text, started, expected):
    """The embedded engine's tier and tiers with workers; nobody waits for somebody else's server."""
    assert our_tiers(deployment(text), started, EMBEDDED) == expected


def test_a_tier_that_is_off_is_not_waited_for():
    """Without an engine the default local tier is off."""
    assert our_tiers(deployment(engine=None), ALL, EMBEDDED) == set()


def test_the_gateways_list_says_what_is_ready():
    """An entry is ready, or says why not; an entry without a state is taken as ready."""
    body = {
        "data": [
            {"id": "local", "stream": {"state": "hot", "reason": None}},
            {"id": "hpc", "stream": {"state": "starting", "reason": "no worker is ready"}},
            {"id": "odd", "stream": {"state": "offline", "reason": None}},
            {"id": "plain"},
        ]
    }
    assert states(json.dumps(body).encode()) == {
        "local": "",
        "hpc": "no worker is ready",
        "odd": "offline",
        "plain": "",
    }


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"data": [7]}', b'{"error": {"message": "no key"}}'])
def test_another_answer_lists_nothing(body):
    """An error or nonsense is not ready, and no crash."""
    assert states(body) == {}


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("name", "name")],
)
def test_which_address_clients_dial(host, expected):
    """Wildcards are listened on, never dialled; IPv6 stands in brackets."""
    assert dialled(host) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("127.0.0.1", "127.3.2.1", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", "")),
    ],
)
def test_which_addresses_others_can_not_reach(host, expected):
    """Only loopback is private; wildcards and names are not."""
    assert is_loopback(host) is expected
