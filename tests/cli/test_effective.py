"""The deployment that `stream up` runs, from the user's file and what the machine has."""

from pathlib import Path

import pytest
import yaml

from stream_cli.effective import (
    EngineFacts,
    LocalServer,
    Machine,
    cloud_provider,
    complete,
    condenser,
    local_source,
    starts_workers,
    without_defaults,
)
from stream_core.deployment import Deployment, parse
from stream_core.errors import ConfigError

DEMO = EngineFacts(
    model="stream-demo", context=8192, demo=True, source="demo", capabilities=("tools",), tokenizer="/somewhere/demo"
)
REAL = EngineFacts(model="small", context=4096, demo=False, source="models_dir", path="/models/small.gguf")
OLLAMA = LocalServer("Ollama", "http://127.0.0.1:11434/v1", (("llama3.2:3b", 4096), ("qwen3:8b", 4096)))


def machine(**changes):
    facts = {
        "python": "/venv/python",
        "environ": {},
        "engine_url": "http://127.0.0.1:20001/v1",
        "engine_key": Path("/home/secrets/engine.key"),
        "engine": DEMO,
    }
    return Machine(**(facts | changes))


def given(text):
    return parse(text)[0]


def test_without_a_file_there_are_a_local_and_an_hpc_tier():
    """Defaults: local takes the embedded engine, hpc one worker with an engine of its own, the cloud stays off."""
    deployment = complete(Deployment(), machine())
    local, hpc = deployment.tiers
    assert (local.name, local.privacy, local.base_url) == ("local", "restricted", "http://127.0.0.1:20001/v1")
    assert local.api_key_file == Path("/home/secrets/engine.key")
    assert [(m.id, m.demo, m.tokenizer) for m in local.models] == [("stream-demo", True, Path("/somewhere/demo"))]
    assert (hpc.name, hpc.kind, hpc.privacy) == ("hpc", "hpc", "internal")
    (cluster,) = deployment.clusters
    (pool,) = cluster.pools
    assert (cluster.name, cluster.tier, cluster.backend) == ("here", "hpc", "local")
    assert pool.engine_command == ["/venv/python", "-m", "stream_engine"]
    assert pool.engine_environment["STREAM_ENGINE__MODEL"] == "demo"
    assert pool.engine_environment["STREAM_ENGINE__PORT"] == "{port}"
    assert pool.model.demo


def test_the_worker_serves_the_very_model_of_the_local_engine():
    """A model found on disk is given to the worker's engine by path, name and context window."""
    (cluster,) = complete(Deployment(), machine(engine=REAL)).clusters
    environment = cluster.pools[0].engine_environment
    assert environment["STREAM_ENGINE__MODEL"] == "/models/small.gguf"
    assert environment["STREAM_ENGINE__ALIAS"] == "small"
    assert environment["STREAM_ENGINE__CONTEXT"] == "4096"


def test_a_found_server_is_the_local_tier_without_our_key():
    """Ollama on its default port serves the tier `local`; the embedded engine's key is not sent to it."""
    local = complete(Deployment(), machine(server=OLLAMA)).tiers[0]
    assert (local.base_url, local.api_key_file) == (OLLAMA.base_url, None)
    assert [model.id for model in local.models] == ["llama3.2:3b", "qwen3:8b"]


@pytest.mark.parametrize(
    ("text", "source", "workers"),
    [
        ("{}", "auto", True),
        ("policy: {good_enough: 0.7}", "auto", True),
        ("tiers: [{name: local, base_url: auto, privacy: restricted}]", "auto", False),
        ("tiers: [{name: local, base_url: embedded}]", "embedded", False),
        ("tiers: [{name: lab, base_url: 'http://lab:8000/v1'}]", "", False),
        ("tiers: [{name: hpc, kind: hpc}]", "", True),
        ("tiers: [{name: hpc, kind: hpc}]\nclusters: []", "", False),
        ("tiers: [{name: hpc, kind: hpc, enabled: false}]", "", False),
        ("tiers: [{name: local, base_url: auto, enabled: false}]", "", False),
    ],
)
def test_the_file_decides_which_engines_are_needed(text, source, workers):
    """Each way of writing tiers says whether an engine is looked for and whether a worker is made."""
    assert (local_source(given(text)), starts_workers(given(text))) == (source, workers)


def test_a_file_with_tiers_is_obeyed():
    """Tiers of the user's file are kept, none is added, and only auto and embedded are filled in."""
    text = "tiers: [{name: lab, base_url: 'http://lab:8000/v1'}, {name: local, base_url: embedded, privacy: internal}]"
    deployment = complete(given(text), machine(server=OLLAMA))
    assert [tier.name for tier in deployment.tiers] == ["lab", "local"]
    assert deployment.tiers[0].base_url == "http://lab:8000/v1"
    assert deployment.tiers[1].base_url == "http://127.0.0.1:20001/v1"
    assert deployment.clusters == []


def test_models_named_by_the_user_stay():
    """A tier with `base_url: auto` and models of its own keeps those."""
    text = "tiers: [{name: local, base_url: auto, models: [{id: mine, context_window: 2048}]}]"
    assert [m.id for m in complete(given(text), machine()).tiers[0].models] == ["mine"]


def test_default_tiers_use_the_users_privacy_classes():
    """An institution's own classes: the local tier may see the most confidential, the cloud only the first."""
    text = "policy: {classes: [open, secret], default_class: open}"
    tiers = complete(given(text), machine(cloud=True, environ={"OPENAI_API_KEY": "sk-x"})).tiers
    assert {tier.name: tier.privacy for tier in tiers} == {"local": "secret", "hpc": "open", "cloud": "open"}


def test_one_privacy_class_is_enough():
    """With a single class every default tier has it."""
    tiers = complete(given("policy: {classes: [all], default_class: all}"), machine()).tiers
    assert {tier.privacy for tier in tiers} == {"all"}


def test_without_an_engine_the_local_tier_is_off():
    """`--only gateway` starts no engine: the tier is there and says that it is off."""
    deployment = complete(Deployment(), machine(engine=None))
    assert [(tier.name, tier.enabled) for tier in deployment.tiers] == [("local", False), ("hpc", True)]
    assert deployment.clusters == []


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, None),
        ({"OPENAI_API_KEY": "sk-abc"}, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": "  "}, None),
        ({"OPENROUTER_API_KEY": "sk-or-abc"}, "OPENROUTER_API_KEY"),
        ({"OPENAI_API_KEY": "sk-abc", "OPENROUTER_API_KEY": "sk-or-abc"}, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": "sk-stream-ours"}, None),
        ({"OPENAI_API_KEY": "sk-abc", "OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"}, None),
        ({"OPENAI_API_KEY": "sk-abc", "OPENAI_BASE_URL": "https://api.openai.com/v1"}, "OPENAI_API_KEY"),
    ],
)
def test_which_key_in_the_environment_belongs_to_a_provider(environ, variable):
    """Our own keys, and keys that belong to another server, are never taken for a provider's."""
    provider = cloud_provider(environ)
    assert (provider.key_variable if provider else None) == variable


def test_a_key_alone_turns_no_cloud_on():
    """A key that merely lies in the environment adds no tier."""
    tiers = complete(Deployment(), machine(environ={"OPENAI_API_KEY": "sk-abc"})).tiers
    assert [tier.name for tier in tiers] == ["local", "hpc"]


def test_cloud_option_and_key_add_the_tier_without_the_key_itself():
    """With --cloud the tier names the variable; the key stands nowhere in the deployment."""
    environ = {"OPENROUTER_API_KEY": "sk-or-secret"}
    deployment = complete(Deployment(), machine(cloud=True, environ=environ))
    cloud = deployment.tiers[-1]
    assert (cloud.name, cloud.base_url) == ("cloud", "https://openrouter.ai/api/v1")
    assert (cloud.api_key_env, cloud.privacy) == ("OPENROUTER_API_KEY", "public")
    assert cloud.models
    assert "sk-or-secret" not in deployment.model_dump_json()


def test_cloud_option_without_a_key_says_which_variables_would_do():
    """--cloud without a key is an error that names both variables."""
    with pytest.raises(ConfigError, match="OPENAI_API_KEY or OPENROUTER_API_KEY"):
        complete(Deployment(), machine(cloud=True))


def test_cloud_option_leaves_a_cloud_tier_of_the_file_alone():
    """The file's own cloud tier wins over --cloud."""
    text = "tiers: [{name: cloud, base_url: 'https://provider.example/v1', api_key_env: MY_KEY}]"
    deployment = complete(given(text), machine(cloud=True))
    assert [tier.base_url for tier in deployment.tiers] == ["https://provider.example/v1"]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("{}", "local"),
        ("tiers: [{name: far, base_url: 'http://lab:1/v1', models: [{id: a}]}]", None),
        ("tiers: [{name: near, base_url: 'http://localhost:1/v1', models: [{id: a}]}]", "near"),
        ("tiers: [{name: near, base_url: 'http://localhost:1/v1', models: [{id: a}], api_key_env: K}]", None),
        ("tiers: [{name: near, base_url: 'http://localhost:1/v1'}]", None),
        ("tiers: [{name: near, base_url: 'http://localhost:1/v1', models: [{id: a}], enabled: false}]", None),
    ],
)
def test_conversations_are_condensed_on_this_machine_or_not_at_all(text, chosen):
    """The summarizer gets an engine on loopback that offers a model, never one of another machine."""
    tier = condenser(complete(given(text), machine()))
    assert (tier.name if tier else None) == chosen


def test_the_written_file_reads_back_as_the_same_deployment():
    """What `stream up` writes is what the services read, with the services' sections."""
    deployment = complete(Deployment(), machine(cloud=True, environ={"OPENAI_API_KEY": "sk-abc"}))
    text = yaml.safe_dump(without_defaults(deployment, {"judge": {"cache_entries": 3}}), sort_keys=False)
    assert parse(text) == (deployment, {"judge": {"cache_entries": 3}})
