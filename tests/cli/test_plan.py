"""Which programs start, with which arguments and environment."""

from pathlib import Path

import pytest

from stream_cli.effective import EngineFacts, Machine, complete
from stream_cli.home import Home
from stream_cli.plan import (
    PORTED,
    PROGRAMS,
    START_ORDER,
    STOP_ORDER,
    Given,
    Ground,
    Wishes,
    chosen,
    engine,
    engine_url,
    nats,
    services,
)
from stream_core.deployment import Deployment
from stream_core.errors import ConfigError

HOME = Home(Path("/state"))
PORTS = {name: 20_001 + index for index, name in enumerate(PORTED)}
FACTS = EngineFacts(model="stream-demo", context=8192, demo=True, source="demo")


def ground(**changes):
    facts = {
        "home": HOME,
        "python": "/venv/python",
        "environ": {"PATH": "/bin"},
        "ports": PORTS,
        "sections": {},
        "nats_binary": "/venv/nats-server",
    }
    return Ground(**(facts | changes))


def deployment(where):
    machine = Machine(where.python, where.environ, engine_url(where), HOME.secret("engine.key"), engine=FACTS)
    return complete(Deployment(), machine)


def plan(where=None, **wishes):
    where = where or ground()
    wanted = Wishes(**wishes)
    specs = [nats(where), engine(where, wanted), *services(where, wanted, deployment(where))]
    return {spec.name: spec for spec in specs if spec.name in wanted.only}


def test_everything_is_planned_and_has_its_place_when_all_starts_and_stops():
    """Without wishes each program starts once, and the orders of start and end know them all."""
    assert set(plan()) == set(PROGRAMS) == set(STOP_ORDER)
    assert sorted(START_ORDER) == sorted(PROGRAMS)
    assert min(PROGRAMS, key=STOP_ORDER.__getitem__) == "gateway"
    assert max(PROGRAMS, key=STOP_ORDER.__getitem__) == "nats"


def test_the_gateway_knows_whom_to_ask():
    """Its targets are the addresses at which the other services listen."""
    specs = plan()
    env = specs["gateway"].env
    for name, target in (("JUDGE", "judge"), ("SUMMARIZER", "summarizer"), ("DISPATCH", "hpc_dispatch")):
        address = f"127.0.0.1:{PORTS[target]}"
        assert env[f"STREAM_GATEWAY__{name}_TARGET"] == address
        assert specs[target].env[f"STREAM_{target.upper()}__LISTEN"] == address
    assert specs["hpc_dispatch"].env["STREAM_HPC_DISPATCH__RELAYS"] == f'["ws://127.0.0.1:{PORTS["relay"]}"]'
    assert specs["relay"].env["STREAM_RELAY__PORT"] == str(PORTS["relay"])


def test_each_service_has_its_own_identity_at_the_broker():
    """URL, user and password file of the own broker; judge and summarizer get none."""
    specs = plan()
    for name in ("gateway", "relay", "hpc_dispatch"):
        prefix = f"STREAM_{name.upper()}__NATS__"
        assert specs[name].env[f"{prefix}URL"] == f"nats://127.0.0.1:{PORTS['nats']}"
        assert specs[name].env[f"{prefix}USER"] == name
        assert specs[name].env[f"{prefix}PASSWORD_FILE"] == f"/state/secrets/nats-{name}.password"
    assert not [key for name in ("judge", "summarizer") for key in specs[name].env if "NATS" in key]


def test_a_given_broker_is_used_and_none_is_started():
    """With NATS_URL the services get that address and its credentials by file, and no nats-server starts."""
    where = ground(
        nats_given=Given("tls://broker:4222", "me", "secret"), environ={"NATS_URL": "tls://me:secret@broker"}
    )
    specs = plan(where, only=chosen([], broker_given=True))
    assert "nats" not in specs
    assert specs["relay"].env["STREAM_RELAY__NATS__URL"] == "tls://broker:4222"
    assert specs["relay"].env["STREAM_RELAY__NATS__PASSWORD_FILE"] == "/state/secrets/nats-given.password"
    assert not [value for spec in specs.values() for value in spec.env.values() if "secret@" in value]


def test_no_secret_and_no_key_is_an_argument():
    """Arguments hold the program and, for the broker, its address."""
    specs = plan(ground(environ={"OPENAI_API_KEY": "sk-abc"}))
    assert specs["nats"].argv == ("/venv/nats-server", "-c", "/state/nats/nats.conf", "-a", "127.0.0.1", "-p", "20001")
    for name in set(PROGRAMS) - {"nats"}:
        assert specs[name].argv == ("/venv/python", "-m", f"stream_{name}")


def test_only_the_gateway_sees_a_providers_key():
    """A cloud key in the environment reaches the gateway and no other program."""
    specs = plan(ground(environ={"OPENAI_API_KEY": "sk-abc", "HOME": "/home/user"}))
    assert [name for name, spec in specs.items() if "sk-abc" in spec.env.values()] == ["gateway"]
    assert specs["judge"].env["HOME"] == "/home/user"


def test_the_users_environment_wins_over_what_up_would_choose():
    """STREAM_<PROGRAM>__<FIELD> is obeyed, also by those who call that program."""
    specs = plan(ground(environ={"STREAM_JUDGE__LISTEN": "0.0.0.0:7000", "STREAM_RELAY__PORT": "7001"}))
    assert specs["judge"].env["STREAM_JUDGE__LISTEN"] == "0.0.0.0:7000"
    assert specs["gateway"].env["STREAM_GATEWAY__JUDGE_TARGET"] == "127.0.0.1:7000"
    assert specs["hpc_dispatch"].env["STREAM_HPC_DISPATCH__RELAYS"] == '["ws://127.0.0.1:7001"]'


def test_the_users_file_wins_over_what_up_would_choose():
    """A field of a service's section is not overridden by a variable of ours; its neighbours are still given."""
    sections = {"judge": {"listen": "127.0.0.1:7000"}, "gateway": {"nats": {"pending_bytes": 4096}}}
    specs = plan(ground(sections=sections))
    assert "STREAM_JUDGE__LISTEN" not in specs["judge"].env
    assert specs["gateway"].env["STREAM_GATEWAY__JUDGE_TARGET"] == "127.0.0.1:7000"
    assert specs["gateway"].env["STREAM_GATEWAY__NATS__USER"] == "gateway"


def test_a_service_without_a_fixed_port_is_refused():
    """The gateway could not know the port; the error names the field."""
    with pytest.raises(ConfigError) as caught:
        plan(ground(sections={"judge": {"listen": "127.0.0.1:0"}}))
    assert caught.value.param == "judge.listen"


def test_options_of_the_command_are_stronger_than_the_environment():
    """--port, --host and --model hold even when the environment says otherwise."""
    where = ground(environ={"STREAM_GATEWAY__PORT": "9", "STREAM_GATEWAY__HOST": "::1", "STREAM_ENGINE__MODEL": "x"})
    specs = plan(where, host="127.0.0.1", port=18080, model="demo")
    assert specs["gateway"].env["STREAM_GATEWAY__PORT"] == "18080"
    assert specs["gateway"].env["STREAM_GATEWAY__HOST"] == "127.0.0.1"
    assert specs["engine"].env["STREAM_ENGINE__MODEL"] == "demo"
    assert plan(where)["engine"].env["STREAM_ENGINE__MODEL"] == "x"


def test_every_program_writes_its_ready_file_and_reads_the_effective_deployment():
    """Ready files lie in run/; STREAM_CONFIG of the user is replaced by the completed file."""
    specs = plan(ground(environ={"STREAM_CONFIG": "mine.yaml"}))
    for name in set(PROGRAMS) - {"nats"}:
        assert specs[name].ready_file == Path(f"/state/run/{name}.json")
        assert specs[name].env[f"STREAM_{name.upper()}__READY_FILE"] == f"/state/run/{name}.json"
        config = specs[name].env.get("STREAM_CONFIG")
        assert config == (None if name == "engine" else "/state/run/stream.yaml")
    assert specs["nats"].ready_port == PORTS["nats"]


def test_only_starts_the_named_programs_and_tells_nothing_about_the_others():
    """--only judge,gateway: no target for what does not run here, so that the user's own variables can say it."""
    specs = plan(ground(environ={"STREAM_GATEWAY__DISPATCH_TARGET": "hpc.example:443"}), only=frozenset({"gateway"}))
    assert set(specs) == {"gateway"}
    env = specs["gateway"].env
    assert "STREAM_GATEWAY__JUDGE_TARGET" not in env
    assert env["STREAM_GATEWAY__DISPATCH_TARGET"] == "hpc.example:443"
    assert not [key for key in env if key.startswith("STREAM_GATEWAY__NATS__")]


@pytest.mark.parametrize(
    ("only", "given", "names"),
    [
        ([], False, set(PROGRAMS)),
        ([], True, set(PROGRAMS) - {"nats"}),
        (["nats", "judge"], False, {"nats", "judge"}),
        (["nats", "judge"], True, {"judge"}),
    ],
)
def test_which_programs_are_chosen(only, given, names):
    """No names are all; a broker that is given is never started."""
    assert chosen(only, broker_given=given) == names


def test_an_unknown_program_is_refused_with_the_known_ones():
    """--only judg lists what there is."""
    with pytest.raises(ConfigError, match="no program judg; there are nats, engine, judge"):
        chosen(["judg"], broker_given=False)


def test_the_summarizer_condenses_with_the_local_engine():
    """It gets the embedded engine's address, model and key file."""
    env = plan()["summarizer"].env
    assert env["STREAM_SUMMARIZER__BACKEND_URL"] == f"http://127.0.0.1:{PORTS['engine']}/v1"
    assert env["STREAM_SUMMARIZER__BACKEND_MODEL"] == "stream-demo"
    assert env["STREAM_SUMMARIZER__BACKEND_KEY_FILE"] == "/state/secrets/engine.key"
