"""The deployment that `stream up` really runs: the user's file, completed by what this machine has. Pure.

    the file names no `tiers`      local, hpc, and with --cloud and a key: cloud
    the file names no `clusters`   one worker on this machine for the first tier of kind hpc
    `base_url: auto`               a server found on its default port, else the embedded engine
    `base_url: embedded`           the embedded engine

Nothing reaches a paid service unless --cloud was given or the file names its tier.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from stream_core.deployment import ClusterConfig, Deployment, ModelConfig, PoolConfig, TierConfig
from stream_core.errors import ConfigError

AUTO: Final = "auto"
EMBEDDED: Final = "embedded"
OUR_KEYS: Final = "sk-stream-"
"""How our own API keys begin: whoever points OpenAI clients at STREAM has one in OPENAI_API_KEY."""
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Provider:
    """A cloud provider that a key in the environment belongs to."""

    key_variable: str
    base_variable: str
    """Variable that moves the provider's clients to another address."""
    base_url: str
    models: tuple[tuple[str, int], ...]
    """(id, context window in tokens); the first is the tier's default."""


PROVIDERS: Final = (
    Provider(
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "https://api.openai.com/v1",
        (("gpt-5-mini", 400_000), ("gpt-5", 400_000), ("gpt-5-nano", 400_000), ("gpt-4.1-mini", 1_047_576)),
    ),
    Provider(
        "OPENROUTER_API_KEY",
        "OPENROUTER_BASE_URL",
        "https://openrouter.ai/api/v1",
        (
            ("openai/gpt-5-mini", 400_000),
            ("anthropic/claude-sonnet-4.5", 200_000),
            ("google/gemini-2.5-flash", 1_048_576),
            ("meta-llama/llama-3.3-70b-instruct", 131_072),
        ),
    ),
)
_TEXT_ONLY: Final = frozenset({"meta-llama/llama-3.3-70b-instruct"})


@dataclass(frozen=True)
class LocalServer:
    """An OpenAI-compatible server that runs on this machine already."""

    title: str
    base_url: str
    models: tuple[tuple[str, int], ...]
    """(id, context window in tokens)."""


@dataclass(frozen=True)
class EngineFacts:
    """What the embedded engine serves, by its own word."""

    model: str
    context: int
    demo: bool
    source: str
    path: str = ""
    capabilities: tuple[str, ...] = ()
    tokenizer: str = ""
    """Folder of the tokenizer; empty when unknown."""

    def config(self) -> ModelConfig:
        """Describe the model as a tier offers it."""
        return ModelConfig(
            id=self.model,
            context_window=self.context,
            capabilities=list(self.capabilities) or ["tools", "json_schema", "logprobs"],
            tokenizer=Path(self.tokenizer) if self.tokenizer else None,
            demo=self.demo,
        )


@dataclass(frozen=True)
class Machine:
    """What the deployment is completed from."""

    python: str
    environ: Mapping[str, str]
    engine_url: str
    """Where the embedded engine will listen, with its /v1."""
    engine_key: Path
    cloud: bool = False
    server: LocalServer | None = None
    engine: EngineFacts | None = None


def cloud_provider(environ: Mapping[str, str]) -> Provider | None:
    """Find the provider that a key in the environment belongs to; None when there is none.

    A key is left alone when its BASE_URL says that it belongs to another server.
    """
    for provider in PROVIDERS:
        key = environ.get(provider.key_variable, "").strip()
        base = environ.get(provider.base_variable, "").strip()
        moved = bool(base) and urlsplit(base).hostname != urlsplit(provider.base_url).hostname
        if key and not key.startswith(OUR_KEYS) and not moved:
            return provider
    return None


def local_source(given: Deployment) -> str:
    """Tell how the deployment wants its local engine: `AUTO`, `EMBEDDED`, or "" when the file names a server."""
    if "tiers" not in given.model_fields_set:
        return AUTO
    wanted = {tier.base_url for tier in given.tiers if tier.enabled}
    return AUTO if AUTO in wanted else EMBEDDED if EMBEDDED in wanted else ""


def starts_workers(given: Deployment) -> bool:
    """Tell whether `stream up` makes a worker of its own, and so needs to know the embedded engine's model."""
    if "clusters" in given.model_fields_set:
        return False
    return "tiers" not in given.model_fields_set or any(t.kind == "hpc" and t.enabled for t in given.tiers)


def complete(given: Deployment, machine: Machine) -> Deployment:
    """Complete the user's deployment.

    Args:
        given: as read from the file; `Deployment()` without one.
        machine: what is there. `engine` must be known where the embedded engine is used.

    Raises:
        ConfigError: --cloud without a key.
    """
    tiers = list(given.tiers)
    if "tiers" not in given.model_fields_set:
        tiers = [
            TierConfig(name="local", base_url=AUTO, privacy=_most_private(given)),
            TierConfig(name="hpc", kind="hpc", privacy=_second_most_private(given)),
        ]
    tiers = [_resolved(tier, machine) for tier in tiers]
    if machine.cloud and all(tier.name != "cloud" for tier in tiers):
        tiers.append(_cloud_tier(given, machine.environ))
    clusters = list(given.clusters)
    hpc = next((tier.name for tier in tiers if tier.kind == "hpc" and tier.enabled), None)
    if hpc is not None and "clusters" not in given.model_fields_set and machine.engine is not None:
        clusters = [ClusterConfig(name="here", tier=hpc, pools=[_own_pool(machine, machine.engine)])]
    return Deployment(tiers=tiers, clusters=clusters, policy=given.policy)


def _most_private(given: Deployment) -> str:
    return given.policy.classes[-1]


def _second_most_private(given: Deployment) -> str:
    return given.policy.classes[-2:][0]


def _resolved(tier: TierConfig, machine: Machine) -> TierConfig:
    if tier.base_url not in {AUTO, EMBEDDED}:
        return tier
    if tier.base_url == AUTO and machine.server is not None:
        offered = [ModelConfig(id=name, context_window=context) for name, context in machine.server.models]
        return tier.model_copy(update={"base_url": machine.server.base_url, "models": tier.models or offered})
    if machine.engine is None:
        return tier.model_copy(update={"enabled": False, "base_url": ""})
    return tier.model_copy(
        update={
            "base_url": machine.engine_url,
            "api_key_file": machine.engine_key,
            "models": tier.models or [machine.engine.config()],
        }
    )


def _cloud_tier(given: Deployment, environ: Mapping[str, str]) -> TierConfig:
    provider = cloud_provider(environ)
    if provider is None:
        names = " or ".join(each.key_variable for each in PROVIDERS)
        raise ConfigError(f"the cloud tier needs a provider's key in {names}", param="--cloud")
    return TierConfig(
        name="cloud",
        base_url=provider.base_url,
        api_key_env=provider.key_variable,
        privacy=given.policy.classes[0],
        models=[
            ModelConfig(
                id=name,
                context_window=context,
                modalities=["text"] if name in _TEXT_ONLY else ["text", "image"],
            )
            for name, context in provider.models
        ],
    )


def engine_command(python: str) -> list[str]:
    """Name the command that starts the embedded engine."""
    return [python, "-m", "stream_engine"]


def _own_pool(machine: Machine, engine: EngineFacts) -> PoolConfig:
    return PoolConfig(
        model=engine.config(),
        engine_command=engine_command(machine.python),
        engine_environment={
            "STREAM_DIE_WITH_PARENT": "",  # meant for the worker, who sees to its engine itself
            "STREAM_ENGINE__PORT": "{port}",
            "STREAM_ENGINE__API_KEY_FILE": "{api_key_file}",
            "STREAM_ENGINE__MODEL": "demo" if engine.demo else engine.path or AUTO,
            "STREAM_ENGINE__ALIAS": engine.model,
            "STREAM_ENGINE__CONTEXT": str(engine.context),
        },
    )


def condenser(deployment: Deployment) -> TierConfig | None:
    """Choose the engine that the summarizer may show conversations to: one on this machine that needs no cloud key."""
    for tier in deployment.tiers:
        loopback = urlsplit(tier.base_url).hostname in _LOOPBACK
        if tier.enabled and tier.kind == "http" and loopback and tier.models and not tier.api_key_env:
            return tier
    return None


def key_variables(deployment: Deployment) -> set[str]:
    """List the environment variables that hold a provider's key: only the gateway gets to see them."""
    named = {tier.api_key_env for tier in deployment.tiers if tier.api_key_env}
    return named | {provider.key_variable for provider in PROVIDERS}


def without_defaults(deployment: Deployment, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Shape the whole deployment file, with the services' sections, as YAML will hold it."""
    return {**deployment.model_dump(mode="json", exclude_defaults=True), **sections}
