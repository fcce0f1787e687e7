"""The committed weights: JSON text in, records out, and back. Pure; `make train-judge` writes the file.

Grams stand packed in base64: per gram 4 bytes of its name, 2 of its rarity, 2 per head of its weight, little endian,
in the order of their names. So do the numbers of the interplay, 2 bytes each. Everything else is readable.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from struct import Struct
from typing import Any, Final

import numpy as np

from stream_core.errors import ConfigError
from stream_judge.features import FEATURES, FEATURES_VERSION, Kind
from stream_judge.interplay import Floats, Interplay
from stream_judge.learned import HEADS, Gram, Learned, Step

RARITY_UNIT: Final = 1 / 1024
_PACKED: Final = Struct("<IH4h")
_BLOCKS: Final = ("directions", "phases", "weights")
"""Of the interplay."""


@dataclass(frozen=True, slots=True)
class Curve:
    """From a raw number to a logit: ease + slope * raw."""

    ease: float
    slope: float


@dataclass(frozen=True, slots=True)
class Levels:
    """How LOW, MEDIUM and HIGH are weighed against each other; fitted for accuracy and macro-F1 together."""

    rescue: float
    """Chance that local is right where hpc is not, beyond what the probabilities say."""
    medium: float
    high: float


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything that the scorer knows."""

    version: str
    """Changes with the features or with any number in the file."""
    learned: Learned
    assumed: Mapping[str, float]
    """Set by hand, in logits of difficulty, by feature."""
    curves: tuple[Curve, ...]
    """One per head."""
    levels: Levels


def parse(text: str, *, source: str) -> Weights:
    """Read a weights file.

    Args:
        text: JSON as `render` writes it.
        source: its name, for errors.

    Raises:
        ConfigError: not such a file, or fitted to other features.
    """
    try:
        data = json.loads(text)
        fitted = int(data["features_version"])
        if fitted != FEATURES_VERSION:
            words = f"fitted to features version {fitted}, this program has version {FEATURES_VERSION}"
            raise ConfigError(f"{source}: {words}")
        weights = _read(data, hashlib.sha256(text.encode()).hexdigest()[:12])
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ConfigError(f"{source}: not a weights file: {type(error).__name__}: {error}") from error
    _check(weights, source)
    return weights


def render(weights: Weights, about: Mapping[str, Any]) -> str:
    """Write a weights file; `about` goes before the numbers."""
    learned = weights.learned
    largest = [max((abs(g.weights[h]) for g in learned.grams.values()), default=0.0) for h in range(len(HEADS))]
    units = [float(f"{size / 32767:.6g}") or 1.0 for size in largest]
    packed = b"".join(
        _PACKED.pack(
            name,
            round(gram.rarity / RARITY_UNIT),
            *(max(-32767, min(32767, round(w / unit))) for w, unit in zip(gram.weights, units, strict=True)),
        )
        for name, gram in sorted(learned.grams.items())
    )
    document = {
        **about,
        "features_version": FEATURES_VERSION,
        "heads": list(HEADS),
        "curves": [[round(c.ease, 4), round(c.slope, 4)] for c in weights.curves],
        "levels": {n: round(getattr(weights.levels, n), 4) for n in Levels.__slots__},
        "assumed": dict(weights.assumed),
        "base": _rounded(learned.base),
        "unknown": round(learned.unknown, 4),
        "steps": {
            name: {"cuts": list(step.cuts), "levels": [_rounded(level) for level in step.levels]}
            for name, step in learned.steps.items()
        },
        "interplay": _packed_interplay(learned.interplay),
        "gram_units": units,
        "grams": base64.b64encode(packed).decode("ascii"),
    }
    return json.dumps(document, indent=1) + "\n"


def _packed_interplay(interplay: Interplay) -> dict[str, Any]:
    return {
        "names": list(interplay.names),
        "middle": _rounded(interplay.middle.tolist()),
        "spread": _rounded(interplay.spread.tolist()),
        **{name: _packed(getattr(interplay, name)) for name in _BLOCKS},
    }


def _packed(numbers: Floats) -> dict[str, Any]:
    unit = float(f"{float(np.abs(numbers).max(initial=0.0)) / 32767:.6g}") or 1.0
    data = np.clip(np.rint(numbers / unit), -32767, 32767).astype("<i2").tobytes()
    return {"shape": list(numbers.shape), "unit": unit, "data": base64.b64encode(data).decode("ascii")}


def _unpacked(block: Mapping[str, Any]) -> Floats:
    data = np.frombuffer(base64.b64decode(block["data"], validate=True), "<i2")
    return (data.reshape(block["shape"]) * float(block["unit"])).astype(np.float32)


def _read_interplay(data: Mapping[str, Any]) -> Interplay:
    middle, spread = (np.array(data[name], np.float32) for name in ("middle", "spread"))
    return Interplay(tuple(map(str, data["names"])), middle, spread, *(_unpacked(data[name]) for name in _BLOCKS))


def _rounded(numbers: Sequence[float]) -> list[float]:
    return [round(number, 5) for number in numbers]


def _read(data: Mapping[str, Any], digest: str) -> Weights:
    if tuple(data["heads"]) != HEADS:
        raise ValueError(f"heads {data['heads']}, wanted {list(HEADS)}")
    units = [float(unit) for unit in data["gram_units"]]
    packed = base64.b64decode(data["grams"], validate=True)
    if len(packed) % _PACKED.size:
        raise ValueError(f"grams of {len(packed)} bytes, not a multiple of {_PACKED.size}")
    a, b, c, d = units
    grams = {
        name: Gram(rarity * RARITY_UNIT, (w * a, x * b, y * c, z * d))
        for name, rarity, w, x, y, z in _PACKED.iter_unpack(packed)
    }
    steps = {
        name: Step(tuple(map(float, row["cuts"])), tuple(tuple(map(float, level)) for level in row["levels"]))
        for name, row in data["steps"].items()
    }
    base = tuple(map(float, data["base"]))
    return Weights(
        version=f"{FEATURES_VERSION}-{digest}",
        learned=Learned(base, steps, grams, float(data["unknown"]), _read_interplay(data["interplay"])),
        assumed={name: float(weight) for name, weight in data["assumed"].items()},
        curves=tuple(Curve(float(ease), float(slope)) for ease, slope in data["curves"]),
        levels=Levels(**{name: float(data["levels"][name]) for name in Levels.__slots__}),
    )


def _check(weights: Weights, source: str) -> None:
    learned = weights.learned
    for kind, given in ((False, set(learned.steps)), (True, set(weights.assumed))):
        wanted = {feature.name for feature in FEATURES if (feature.kind is Kind.ASSUMED) is kind}
        if wanted != given:
            raise ConfigError(f"{source}: features missing {sorted(wanted - given)}, unknown {sorted(given - wanted)}")
    for name, step in learned.steps.items():
        if len(step.levels) != len(step.cuts) + 1 or any(len(level) != len(HEADS) for level in step.levels):
            raise ConfigError(f"{source}: steps.{name}: one level of {len(HEADS)} numbers per interval is wanted")
        if any(left >= right for left, right in pairwise(step.cuts)):
            raise ConfigError(f"{source}: steps.{name}: cuts must rise")
    together = learned.interplay
    shapes = [getattr(together, name).shape for name in ("middle", "spread", *_BLOCKS)]
    size, waves = len(together.names), len(together.phases)
    if shapes != [(size,), (size,), (size, waves), (waves,), (waves, len(HEADS))]:
        raise ConfigError(f"{source}: interplay: {size} features and {waves} waves do not fit {shapes}")
    if not set(together.names) <= set(learned.steps) or (together.spread <= 0).any():
        raise ConfigError(f"{source}: interplay: names must be features, spreads above 0")
    numbers = [*learned.base, learned.unknown, *weights.assumed.values()]
    numbers += [n for step in learned.steps.values() for level in step.levels for n in level]
    numbers += [n for curve in weights.curves for n in (curve.ease, curve.slope)]
    if len(learned.base) != len(HEADS) or len(weights.curves) != len(HEADS):
        raise ConfigError(f"{source}: base and curves: {len(HEADS)} heads are wanted")
    if not all(map(isfinite, numbers)) or min(curve.slope for curve in weights.curves) <= 0:
        raise ConfigError(f"{source}: every number must be finite, slopes above 0")
