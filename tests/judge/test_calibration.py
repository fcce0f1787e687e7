"""Calibration to an institution's outcomes, and the commands for it and for plans."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from stream_core.errors import ConfigError
from stream_judge.calibration import Calibration, fit_curve, parse_calibration, render_calibration, sigmoid
from stream_judge.pictures import reliability

PNG = b"\x89PNG\r\n\x1a\n"


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False)


def test_fit_finds_the_curve() -> None:
    """From many outcomes the true ease and slope come back; from none nothing moves."""
    draw = random.Random(1)  # noqa: S311  (repeatable, nothing secret)
    logits = [draw.uniform(-3, 3) for _ in range(4000)]
    good = [float(draw.random() < sigmoid(-0.8 + 0.6 * x)) for x in logits]
    ease, slope = fit_curve(logits, good)
    assert ease == pytest.approx(-0.8, abs=0.12)
    assert slope == pytest.approx(0.6, abs=0.08)
    assert fit_curve([], []) == (0.0, 1.0)


def test_contradicting_outcomes_never_turn_the_judge_round() -> None:
    """When easy questions fail and hard ones succeed, the curve is flat, not upside down."""
    assert fit_curve([2.0] * 200 + [-2.0] * 200, [0.0] * 200 + [1.0] * 200)[1] == 0.05


def test_file_round_trip() -> None:
    """What is written is read back, and wrong files are refused by field."""
    text = render_calibration({"local": (0.5, 1.25)}, {"local": 30})
    assert parse_calibration(text, source="c").tiers == {"local": (0.5, 1.25)}
    assert Calibration("", {}).logit("local", 0.3) == 0.3
    for wrong in ("[]", '{"tiers": {"local": {"ease": 1}}}', '{"tiers": {"local": {"ease": 0, "slope": -1}}}'):
        with pytest.raises(ConfigError, match=r"calibration file|slope above 0"):
            parse_calibration(wrong, source="c")


def test_reliability() -> None:
    """Bins hold mean probability and share of good answers."""
    assert reliability([(0.05, 0), (0.07, 1), (0.95, 1)]) == (pytest.approx([0.06, 0.95]), [0.5, 1.0])


@pytest.mark.process
def test_calibrate_command(tmp_path: Path) -> None:
    """An institution whose local model always fails gets a lower curve, a report, a picture and a file."""
    lines = [{"prompt": f"What is {n} plus {n}?", "tier": "local", "good": n % 5 == 0} for n in range(60)]
    lines += [{"request_id": "x", "tier": "local", "good": True}, {"prompt": "Why?", "tier": "edge", "good": True}]
    source, target, picture = tmp_path / "o.jsonl", tmp_path / "c.json", tmp_path / "r.png"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = command("stream_cli", "judge", "calibrate", str(source), "--output", str(target), "--picture", str(picture))
    assert run.returncode == 0, run.stderr
    assert "1 lines without a prompt" in run.stdout
    assert "edge: 1 outcomes, at least 20" in run.stdout
    assert "before" in run.stdout
    before, after = (float(run.stdout.split(word)[0].split()[-1]) for word in (" before", " after"))
    assert after < before
    assert picture.read_bytes().startswith(PNG)
    assert parse_calibration(target.read_text(), source="c").tiers["local"][0] < 0


@pytest.mark.process
def test_plan_command(tmp_path: Path) -> None:
    """A goal in words gives a table, a picture and the lines for stream.yaml; a wish that can't be is told."""
    picture = tmp_path / "p.png"
    run = command("stream_judge.plan", "at most 15 % to the cloud", "--picture", str(picture))
    assert run.returncode == 0, run.stderr
    assert "good_enough: " in run.stdout
    assert "cloud_share: 0.150" in run.stdout
    assert picture.read_bytes().startswith(PNG)
    wrong = command("stream_judge.plan", "make it cheap")
    assert wrong.returncode == 1
    assert "say it like" in wrong.stderr
    assert "Traceback" not in wrong.stderr
