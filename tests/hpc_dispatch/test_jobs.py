"""From stream.yaml to pools and jobs, and the settings that an operator can get wrong."""

import json

import msgspec
import pytest

from stream_core import tickets
from stream_core.deployment import parse
from stream_core.errors import ConfigError
from stream_core.wire.job import PilotJob
from stream_hpc_dispatch.__main__ import promises_of
from stream_hpc_dispatch.jobs import build_job, pools_of
from stream_hpc_dispatch.plan import PoolKey
from stream_hpc_dispatch.settings import DispatchSettings

POOL = {"model": {"id": "tiny", "upstream": "q4"}, "engine_url": "http://127.0.0.1:9/v1"}


def deployment(*pools, enabled=True):
    """A deployment of one cluster with these pools."""
    tier = {"name": "hpc", "kind": "hpc", "enabled": enabled}
    return parse(json.dumps({"tiers": [tier], "clusters": [{"name": "here", "pools": list(pools)}]}))[0]


def test_pools_and_their_job():
    """Everything the worker needs stands in its job, and the job survives its way as JSON."""
    command = ["python", "-m", "stream_engine"]
    config = POOL | {"engine_command": command, "engine_environment": {"A": "b"}, "engine_ready_path": "/readyz"}
    pools = pools_of(deployment(config | {"max_requests": 5, "walltime_s": 60, "max_workers": 3}), start_margin_s=30)
    pool = pools[PoolKey("here", "tiny")]
    assert (pool.spec.min_ready, pool.spec.max_workers, pool.spec.walltime_s, pool.spec.start_limit_s) == (
        1,
        3,
        60,
        630,
    )
    job = build_job(
        pool,
        lease_id=b"\x01" * 16,
        bootstrap_secret=b"s" * 32,
        ticket="t",
        expires=99.5,
        relays=["ws://127.0.0.1:1"],
        ca_file="ca.pem",
    )
    assert (job.lease, job.max_requests, job.expires_unix_s, job.ca_file) == ("01" * 16, 5, 99.5, "ca.pem")
    assert (job.engine.url, job.engine.command) == ("http://127.0.0.1:9/v1", command)
    assert (job.engine.environment, job.engine.ready_path, job.engine.start_timeout_s) == ({"A": "b"}, "/readyz", 600)
    assert (job.models[0].id, job.models[0].engine_model, job.models[0].context_window) == ("tiny", "q4", 8192)
    assert msgspec.json.decode(msgspec.json.encode(job), type=PilotJob) == job


def test_engine_command_alone_gets_the_default_address():
    """A pool that only names a command leaves the port to the worker."""
    config = {"model": {"id": "tiny"}, "engine_command": ["engine"]}
    (pool,) = pools_of(deployment(config), start_margin_s=30).values()
    job = build_job(pool, lease_id=bytes(16), bootstrap_secret=bytes(32), ticket="", expires=0, relays=[])
    assert job.engine.url == "http://127.0.0.1:{port}"


def test_disabled_tier_has_no_workers():
    """Clusters of a tier that is turned off are left alone."""
    assert pools_of(deployment(POOL, enabled=False), start_margin_s=30) == {}


@pytest.mark.parametrize(
    ("pools", "param", "words"),
    [
        ([POOL, POOL], "clusters.here.pools.1", "two pools of model 'tiny'"),
        ([{"model": {"id": "tiny"}}], "clusters.here.pools.0", "engine_url or engine_command"),
        ([POOL | {"min_ready": 4, "max_workers": 2}], "clusters.here.pools.0", "min_ready 4, at most max_workers 2"),
    ],
)
def test_pool_that_cannot_be_run(pools, param, words):
    """A pool that can't be run is refused by its place in the file."""
    with pytest.raises(ConfigError, match=words) as refused:
        pools_of(deployment(*pools), start_margin_s=30)
    assert refused.value.param == param


@pytest.fixture
def settings_environment(monkeypatch):
    """Sets the fields that have no default, and those given."""

    def build(**fields):
        known = {"TLS__CA": "a", "TLS__CERTIFICATE": "b", "TLS__KEY": "c", "TICKET_PRIVATE_KEY_FILE": "k"}
        known |= {"STATE_DIR": "s"} | fields
        for name, value in known.items():
            monkeypatch.setenv(f"STREAM_HPC_DISPATCH__{name}", value)
        return DispatchSettings.read()

    return build


@pytest.mark.parametrize(
    "url", ["ws://127.0.0.1:1", "ws://localhost", "ws://[::1]:9/relay", "wss://relay.example.org/x"]
)
def test_relay_accepted(settings_environment, url):
    """wss:// anywhere, ws:// on loopback."""
    assert settings_environment(RELAYS=json.dumps([url])).relays == [url]


@pytest.mark.parametrize(
    "url",
    ["ws://relay.example.org", "ws://10.0.0.1", "http://127.0.0.1", "wss://", "127.0.0.1:80", "wss://me:word@relay"],
)
def test_relay_refused(settings_environment, url):
    """No plaintext off the machine, nothing that is no WebSocket address, no password in a URL; the field is named."""
    with pytest.raises(ConfigError, match=r"RELAYS.*must be wss://"):
        settings_environment(RELAYS=json.dumps([url]))


@pytest.mark.parametrize("name", ["LOST_AFTER_S", "STOP_GRACE_S", "BACKOFF_FIRST_S"])
def test_clock_of_zero_is_refused(settings_environment, name):
    """A clock that would never run is named."""
    with pytest.raises(ConfigError, match=name):
        settings_environment(**{name: "0"})


@pytest.mark.parametrize(
    ("fields", "pem", "words"),
    [
        ({"RELAYS": "[]"}, tickets.new_signing_key()[0], "at least one relay"),
        ({"RELAYS": '["wss://relay"]'}, tickets.new_signing_key()[1], "is no Ed25519 private key"),
        ({"RELAYS": '["wss://relay"]'}, "junk", "is no Ed25519 private key"),
        ({"RELAYS": '["wss://relay"]'}, " ", "is empty"),
    ],
    ids=["no relay", "public half", "junk", "empty"],
)
def test_promises_that_cannot_be_kept(settings_environment, tmp_path, fields, pem, words):
    """Pools without a relay, or a key that signs no ticket, are refused at start, and the key is not printed."""
    file = tmp_path / "ticket.key"
    file.write_text(pem)
    settings = settings_environment(TICKET_PRIVATE_KEY_FILE=str(file), **fields)
    with pytest.raises(ConfigError, match=words) as refused:
        promises_of(settings, pools_of(deployment(POOL), start_margin_s=30))
    assert not pem.strip() or pem not in str(refused.value)


def test_promises_show_no_key(settings_environment, tmp_path):
    """What goes into every lease shows its relays in a log, and never its key."""
    private, _ = tickets.new_signing_key()
    file = tmp_path / "ticket.key"
    file.write_text(private)
    promises = promises_of(settings_environment(TICKET_PRIVATE_KEY_FILE=str(file), RELAYS='["wss://relay"]'), {})
    assert promises.private_key == private.strip()
    assert "wss://relay" in repr(promises)
    assert private.splitlines()[1] not in repr(promises)
