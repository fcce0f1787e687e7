"""The committed weights: JSON text in, records out. Pure; `fit.py` writes the file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from stream_core.errors import ConfigError
from stream_judge.features import FEATURES, FEATURES_VERSION

CURVES = ("local", "hpc", "cloud")
"""The tiers that have outcomes, weakest first; every other tier's curve lies on the line through them."""


@dataclass(frozen=True, slots=True)
class Weight:
    """How one feature speaks: effect = weight * clipped((value - centre) / scale), in logits of difficulty."""

    weight: float
    centre: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything that the scorer knows."""

    version: str
    """Changes with the features or with any number in the file."""
    features: Mapping[str, Weight]
    ease: tuple[float, float, float]
    """Per curve: the logit of a good answer to a question of difficulty 0 (the average exam question)."""
    slope: tuple[float, float, float]
    """Per curve: how much of the difficulty counts."""
    spread: float
    """Standard deviation of the difficulty that the features do not see, in logits."""


def parse(text: str, *, source: str) -> Weights:
    """Read a weights file.

    Args:
        text: JSON as `fit.py` writes it.
        source: its name, for errors.

    Raises:
        ConfigError: not such a file, or fitted to other features.
    """
    try:
        data = json.loads(text)
        fitted = int(data["features_version"])
        weights = Weights(
            version=f"{FEATURES_VERSION}-{hashlib.sha256(text.encode()).hexdigest()[:12]}",
            features={
                name: Weight(float(row["weight"]), float(row.get("centre", 0.0)), float(row.get("scale", 1.0)))
                for name, row in data["features"].items()
            },
            ease=_per_curve(data["ease"]),
            slope=_per_curve(data["slope"]),
            spread=float(data["spread"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{source}: not a weights file: {type(error).__name__}: {error}") from error
    if fitted != FEATURES_VERSION:
        raise ConfigError(f"{source}: fitted to features version {fitted}, this program has version {FEATURES_VERSION}")
    _check(weights, source)
    return weights


def _per_curve(values: Mapping[str, object]) -> tuple[float, float, float]:
    local, hpc, cloud = (float(str(values[name])) for name in CURVES)
    return local, hpc, cloud


def _check(weights: Weights, source: str) -> None:
    wanted, given = {feature.name for feature in FEATURES}, set(weights.features)
    if wanted != given:
        raise ConfigError(f"{source}: features missing {sorted(wanted - given)}, unknown {sorted(given - wanted)}")
    numbers = [n for w in weights.features.values() for n in (w.weight, w.centre, w.scale)]
    numbers += [*weights.ease, *weights.slope, weights.spread]
    if not all(map(isfinite, numbers)) or weights.spread <= 0 or min(weights.slope) <= 0:
        raise ConfigError(f"{source}: every number must be finite, spread and slopes above 0")
    if any(w.scale <= 0 for w in weights.features.values()):
        raise ConfigError(f"{source}: every scale must be above 0")
    if list(weights.ease) != sorted(weights.ease):
        raise ConfigError(f"{source}: ease must not fall from local to cloud: {weights.ease}")
