"""What an institution runs, as `stream.yaml` says it: tiers, models, clusters, policy. Pure: text in, records out.

Secrets never stand in it: a tier names the environment variable or the file that holds its key.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from stream_core.cluster_config import ClusterConfig, ModelConfig, Name, PoolConfig, Section
from stream_core.detector_config import DetectorConfig, PatternConfig
from stream_core.errors import ConfigError
from stream_core.privacy import may_see

__all__ = [
    "CLOUD",
    "ClusterConfig",
    "Deployment",
    "DetectorConfig",
    "ModelConfig",
    "Name",
    "PatternConfig",
    "PolicyConfig",
    "PoolConfig",
    "TierConfig",
    "parse",
]


CLOUD: Final = "cloud"
"""The tier whose share and cost the policy limits."""


class TierConfig(Section):
    """One tier. Tiers are listed cheapest first."""

    name: Name
    kind: Literal["http", "hpc"] = "http"
    enabled: bool = True
    privacy: str = "public"
    """The most confidential class of text that this tier may see."""
    base_url: str = ""
    """Of an OpenAI-compatible server, with its /v1; for kind http."""
    api_key_env: str = ""
    api_key_file: Path | None = None
    models: list[ModelConfig] = Field(default_factory=list)
    """For kind hpc the workers' own announcements are added; the first model is the tier's default."""
    asks_usage: bool = True
    """Whether streams are asked for their usage also where the client did not ask; it is left out on the way then.
    False for a server that refuses `stream_options`: its streams are counted by their events."""
    reserved_output: Annotated[int, Field(ge=1)] = 1024
    """Tokens kept free for the answer when the caller sets no limit."""
    connect_timeout_s: Annotated[float, Field(gt=0)] = 5.0
    first_token_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    idle_timeout_s: Annotated[float, Field(gt=0)] = 120.0

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "http" and self.enabled and not self.base_url:
            raise ValueError(f"tier {self.name!r} of kind http needs a base_url")
        if self.name == "auto":
            raise ValueError("'auto' is the routed model's name and can't be a tier's")
        return self


class PolicyConfig(Section):
    """Who may see what, and how good is good enough."""

    classes: Annotated[list[Name], Field(min_length=1)] = Field(
        default_factory=lambda: ["public", "internal", "restricted"]
    )
    """Privacy classes, the least confidential first."""
    default_class: str = "public"
    """Of a request whose key and header name none."""
    detector: DetectorConfig | None = None
    """Raises a request's class by what stands in its text; None: nobody looks."""
    good_enough: Annotated[float, Field(ge=0, le=1)] = 0.6
    """The cheapest tier whose probability of a good answer reaches this one answers."""
    cloud_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of the requests that may choose, the share that reaches the tier "cloud": `good_enough` follows it as traffic
    drifts. None leaves `good_enough` as it is. `stream judge plan` finds the two from a goal in words."""
    cloud_budget: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Dollars a calendar month (UTC), counted from the tokens that the engines tell and the models' prices. When it is
    spent, only who names the tier "cloud" gets there; until then `cloud_share` follows what is left of it."""


class Deployment(Section):
    """The whole file, less the services' own sections."""

    tiers: list[TierConfig] = Field(default_factory=list)
    clusters: list[ClusterConfig] = Field(default_factory=list)
    policy: PolicyConfig = PolicyConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [tier.name for tier in self.tiers]
        if len(set(names)) != len(names):
            raise ValueError(f"tier names must differ: {names}")
        clusters = [cluster.name for cluster in self.clusters]
        if len(set(clusters)) != len(clusters):
            raise ValueError(f"cluster names must differ: {clusters}")
        known = set(self.policy.classes)
        if self.policy.default_class not in known:
            raise ValueError(f"policy.default_class {self.policy.default_class!r} is not among {self.policy.classes}")
        for tier in self.tiers:
            unpriced = [model.id for model in tier.models if model.price is None] if tier.name == CLOUD else []
            if self.policy.cloud_budget is not None and unpriced:
                raise ValueError(f"policy.cloud_budget needs the price of each model of {CLOUD!r}, not of {unpriced}")
            if tier.privacy not in known:
                raise ValueError(f"tier {tier.name!r}: privacy {tier.privacy!r} is not among {self.policy.classes}")
        self._check_classes()
        # A file without tiers gets the default ones when everything is started; clusters may already name theirs.
        for cluster in self.clusters if self.tiers else ():
            if not any(tier.name == cluster.tier and tier.kind == "hpc" for tier in self.tiers):
                raise ValueError(f"cluster {cluster.name!r}: {cluster.tier!r} is not a tier of kind hpc")
        return self

    def _check_classes(self) -> None:
        """See to it that models may see no more than their tier, and that a detector raises to known classes."""
        classes = self.policy.classes
        if unknown := sorted((self.policy.detector or DetectorConfig()).classes - set(classes)):
            raise ValueError(f"policy.detector: {unknown} is not among {classes}")
        ceilings = {tier.name: tier.privacy for tier in self.tiers}
        offered = [(tier.name, model) for tier in self.tiers for model in tier.models]
        pools = [(cluster.tier, pool.model) for cluster in self.clusters for pool in cluster.pools]
        for tier_name, model in [*offered, *pools]:
            if model.privacy is None:
                continue
            if model.privacy not in classes:
                raise ValueError(f"model {model.id!r}: privacy {model.privacy!r} is not among {classes}")
            ceiling = ceilings.get(tier_name)
            if ceiling is not None and not may_see(classes, ceiling, model.privacy):
                words = f"privacy {model.privacy!r} is above {ceiling!r}, which is all that its tier may see"
                raise ValueError(f"model {model.id!r}: {words}")

    def tier(self, name: str) -> TierConfig | None:
        """Find an enabled tier."""
        return next((tier for tier in self.tiers if tier.name == name and tier.enabled), None)


SERVICE_SECTIONS = ("gateway", "judge", "summarizer", "hpc_dispatch", "relay")
"""Top-level keys that belong to one program each; the environment overrides them."""


def parse(text: str, *, source: str = "stream.yaml") -> tuple[Deployment, dict[str, dict[str, Any]]]:
    """Read a deployment file.

    Args:
        text: YAML.
        source: its name, for errors.

    Returns:
        The deployment, and the services' own sections by name.

    Raises:
        ConfigError: not YAML, an unknown key or a wrong value; the message names file, line and field.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigError(f"{where}: {getattr(error, 'problem', error)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{source}:1: a mapping is wanted at the top, not {type(data).__name__}")
    sections = {name: data.pop(name) or {} for name in SERVICE_SECTIONS if name in data}
    for name, section in sections.items():
        if not isinstance(section, dict):
            line = _line(root, (name,))
            raise ConfigError(f"{source}:{line}: {name}: a mapping is wanted, not {type(section).__name__}")
    try:
        return Deployment.model_validate(data), sections
    except ValidationError as error:
        lines = [
            f"{source}:{_line(root, item['loc'])}: {'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigError("\n".join(lines)) from error


def _line(node: yaml.Node | None, path: tuple[int | str, ...]) -> int:
    """Find the line of the deepest node on a path that the file really has."""
    line = node.start_mark.line + 1 if node else 1
    for step in path:
        match node:
            case yaml.MappingNode():
                found = next(((key, value) for key, value in node.value if key.value == str(step)), None)
                if found is None:
                    return line
                line, node = found[0].start_mark.line + 1, found[1]
            case yaml.SequenceNode() if isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            case _:
                return line
    return line
