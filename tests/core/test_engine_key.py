"""The engine's key: an operator can put it where only the engine reads it, and nowhere else."""

import json

import pytest

from stream_core.deployment import parse
from stream_core.errors import ConfigError

ENVIRONMENT = {"VLLM_API_KEY": "{api_key}"}


def pool_of(**engine):
    """The one pool of a deployment, with this engine."""
    pool = {"model": {"id": "tiny"}, **engine}
    tier = {"name": "hpc", "kind": "hpc"}
    deployment, _ = parse(json.dumps({"tiers": [tier], "clusters": [{"name": "here", "pools": [pool]}]}))
    return deployment.clusters[0].pools[0]


def test_in_the_environment():
    """There it may stand, and a file that holds it may be an argument."""
    command = ["vllm", "serve", "--port", "{port}", "--key-file", "{api_key_file}"]
    assert pool_of(engine_command=command, engine_environment=ENVIRONMENT).engine_environment == ENVIRONMENT


def test_not_in_the_command():
    """Everybody on a node can read arguments, so the file is refused before any job is."""
    with pytest.raises(ConfigError, match=r"\{api_key\} may stand in engine_environment only"):
        pool_of(engine_command=["vllm", "serve", "--api-key={api_key}"])
