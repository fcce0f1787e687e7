"""An institution's own calibration: its tiers are not the models of the data. Pure.

For each tier that has outcomes of its own, logit' = ease + slope * logit (Platt scaling, J. Platt, 1999), fitted by
`stream judge calibrate` with a prior that holds ease at 0 and slope at 1 while outcomes are few.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite
from typing import Final

from stream_core.errors import ConfigError

EASE_PRIOR: Final = 0.5
SLOPE_PRIOR: Final = 4.0
"""Strength of the prior, as a ridge on the distance from 0 and from 1."""
LEAST_SLOPE: Final = 0.05
"""Outcomes that contradict the judge flatten a tier's curve; they never turn it round."""
_STEPS: Final = 25
_LOGIT_LIMIT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Ease and slope by tier; a tier that is not named keeps its logit."""

    version: str
    tiers: Mapping[str, tuple[float, float]]

    def logit(self, tier: str, logit: float) -> float:
        """Calibrate one tier's logit."""
        ease, slope = self.tiers.get(tier, (0.0, 1.0))
        return ease + slope * logit


NONE: Final = Calibration("", {})


def parse_calibration(text: str, *, source: str) -> Calibration:
    """Read a file that `render_calibration` wrote.

    Raises:
        ConfigError: not such a file; the message names the field.
    """
    try:
        tiers = {
            str(name): (float(row["ease"]), float(row["slope"])) for name, row in json.loads(text)["tiers"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{source}: not a calibration file: {type(error).__name__}: {error}") from error
    for name, (ease, slope) in tiers.items():
        if not isfinite(ease) or not isfinite(slope) or slope <= 0:
            raise ConfigError(f"{source}: tiers.{name}: ease {ease} and slope {slope} must be finite, slope above 0")
    return Calibration(hashlib.sha256(text.encode()).hexdigest()[:8], tiers)


def render_calibration(tiers: Mapping[str, tuple[float, float]], rows: Mapping[str, int]) -> str:
    """Write the file: ease, slope and number of outcomes by tier."""
    document = {
        "tiers": {
            name: {"ease": round(ease, 4), "slope": round(slope, 4), "rows": rows[name]}
            for name, (ease, slope) in sorted(tiers.items())
        }
    }
    return json.dumps(document, indent=1) + "\n"


def fit_curve(logits: Sequence[float], good: Sequence[float], *, held: bool = True) -> tuple[float, float]:
    """Fit ease and slope by Newton's method.

    Args:
        logits: the judge's, one per outcome.
        good: 1 or 0, or shares between.
        held: by the prior.

    Returns:
        Ease, and slope of at least `LEAST_SLOPE`.
    """
    ease, slope = 0.0, 1.0
    at_ease, at_slope = (EASE_PRIOR, SLOPE_PRIOR) if held else (1e-6, 1e-6)
    for _ in range(_STEPS):
        g0, g1, h00, h01, h11 = -at_ease * ease, -at_slope * (slope - 1.0), at_ease, 0.0, at_slope
        for x, y in zip(logits, good, strict=True):
            p = sigmoid(ease + slope * x)
            bend = max(p * (1 - p), 1e-9)
            g0 += y - p
            g1 += (y - p) * x
            h00 += bend
            h01 += bend * x
            h11 += bend * x * x
        determinant = h00 * h11 - h01 * h01
        if determinant <= 0:
            break
        move0 = (h11 * g0 - h01 * g1) / determinant
        move1 = (h00 * g1 - h01 * g0) / determinant
        shrink = min(1.0, 2.0 / max(abs(move0), abs(move1), 1e-12))
        ease += shrink * move0
        slope += shrink * move1
    return ease, max(LEAST_SLOPE, slope)


def sigmoid(logit: float) -> float:
    """The logistic function, safe at any logit."""
    return 1.0 / (1.0 + exp(-min(_LOGIT_LIMIT, max(-_LOGIT_LIMIT, logit))))
