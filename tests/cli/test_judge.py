"""`stream judge calibrate` and `stream judge plan`, as somebody at a terminal uses them."""

import json
import random

import pytest
import yaml

EASY = "What is the capital of country number {}?"
HARD = "Prove that every group of order {} is solvable, and derive its composition series step by step."
PNG = b"\x89PNG\r\n\x1a\n"


def policy_of(text):
    """The section that the command says to put into `stream.yaml`."""
    return yaml.safe_load(text.partition("in stream.yaml:\n")[2])["policy"]


@pytest.fixture
def outcomes(tmp_path):
    """Outcomes of an institution whose local tier answers nearly everything well, and a thumb without a prompt."""
    draw = random.Random(5)  # noqa: S311  (repeatable, nothing secret)
    lines = [
        {"prompt": shape.format(number), "tier": "local", "good": draw.random() < chance}
        for shape, chance in ((EASY, 0.97), (HARD, 0.85))
        for number in range(60)
    ]
    path = tmp_path / "outcomes.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"tier": "local", "good": True}]))
    return path


def test_calibrate(stream_process, outcomes, tmp_path):
    """The report says what became better, the file moves the tier's curve up, the picture is a PNG."""
    done = stream_process(
        "judge", "calibrate", outcomes, "--output", tmp_path / "own.json", "--picture", tmp_path / "own.png"
    )
    assert done.returncode == 0, done.stderr
    assert "1 lines without a prompt are left out" in done.stdout
    assert "local: 120 outcomes" in done.stdout
    before, after = (float(done.stdout.partition(word)[0].split()[-1]) for word in (" before", " after"))
    assert after < before
    written = json.loads((tmp_path / "own.json").read_text())["tiers"]["local"]
    assert written["ease"] > 0
    assert written["rows"] == 120
    assert (tmp_path / "own.png").read_bytes().startswith(PNG)


def test_plan_sees_the_calibration(stream_process, outcomes, tmp_path):
    """For a local tier that is better than the judge thought, the same goal sends less to the cloud."""
    assert stream_process("judge", "calibrate", outcomes, "--output", tmp_path / "own.json").returncode == 0
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": HARD.format(n)}) + "\n" for n in range(20)))
    goal = ("judge", "plan", "at least 90 % of cloud quality", "--traffic", prompts)
    shares = [
        policy_of(stream_process(*goal, *more).stdout)["cloud_share"]
        for more in ((), ("--calibration", tmp_path / "own.json"))
    ]
    assert shares[1] < shares[0]


@pytest.mark.parametrize(
    ("goal", "more", "wanted"),
    [
        ("at most 15 % to the cloud", (), {"cloud_share": 0.15}),
        ("at least 95 % of cloud quality", (), {}),
        ("at most $200 a month", ("--requests", "50000", "--dollars-each", "0.01"), {"cloud_budget": 200.0}),
    ],
)
def test_plan(stream_process, tmp_path, goal, more, wanted):
    """Each kind of goal gives a table, the lines for `stream.yaml` with the limit in them, and a picture."""
    picture = tmp_path / "curve.png"
    done = stream_process("judge", "plan", goal, "--picture", picture, *more)
    assert done.returncode == 0, done.stderr
    assert "<- picked" in done.stdout
    assert picture.read_bytes().startswith(PNG)
    policy = policy_of(done.stdout.partition(str(picture))[0])
    assert 0 < policy["good_enough"] < 1
    assert 0 < policy["cloud_share"] <= 0.4 + 0.6 * ("quality" in goal)
    assert {name: policy[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("plan", "as cheap as can be"), "is not understood"),
        (("plan", "at most 130 % to the cloud"), "130 %, at most 100 %"),
        (("plan", "at most $200 a month"), "--requests"),
        (("calibrate", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_what_is_wrong_is_said(stream_process, arguments, words):
    """A goal that can't be read, a missing number, a missing file: exit code 1 and the reason, no traceback."""
    done = stream_process("judge", *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
