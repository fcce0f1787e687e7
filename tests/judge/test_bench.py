"""`make bench-judge` on a folder of another suffix: the committed weights are scored, what is missing is named."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MODELS = {
    "mmlu-pro": ("phi-3-mini-4k-instruct-3.8b", "llama-3.1-70b-instruct", "gemini-1.5-pro-002"),
    "gsm8k": ("phi-3.5-mini-instruct-3.8b", "llama-3.1-70b-instruct", "claude-3-5-sonnet-20241022"),
}
DOMAINS = ("law", "physics", "history")
FIGURES = {
    "auc_local_correct", "auc_local_suffices", "apgr", "cpt50", "cpt80", "acc3", "macro_f1",
    "free_share_at_95_quality", "quality_at_85_free", "brier", "stripped", "leave_domain_out_auc",
    "leave_source_out_auc", "p50_ms", "p99_ms", "stream_labels",
}  # fmt: skip


def question(name: str, number: int) -> dict[str, Any]:
    """A question whose words tell who can answer it, with three outcomes."""
    hard, domain = number % 3, DOMAINS[number // 3 % 3]
    kinds = ("name the colour of", "calculate the torque of", "derive the eigenvalues of")
    outcomes = [int(hard <= level) for level in range(3)]
    if number % 7 == 0:
        outcomes.reverse()
    source = ("mmlu-pro", "gsm8k")[number % 2]
    return {
        "id": f"{name}-{number}", "domain": domain, "source": source, "prompt":
        f"Please {kinds[hard]} {domain} item {name} {number}\n\nA. one {number}\nB. two\nC. three\nD. four\nAnswer:",
        "outcomes": dict(zip(MODELS[source], outcomes, strict=True)), "small_panel_mean": float(outcomes[0]),
        "local_suffices": int(outcomes[0] or not any(outcomes)),
        "tier_needed": ("local", "hpc", "cloud")[outcomes.index(1) if any(outcomes) else 2],
    }  # fmt: skip


def lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Dev data, and a folder with files of another suffix."""
    train, data = tmp_path / "train", tmp_path / "data"
    train.mkdir()
    data.mkdir()
    lines(train / "queries_dev.jsonl", [question("dev", n) for n in range(60)])
    lines(train / "queries_train_extra.jsonl", [question("extra", n) for n in range(60)])
    lines(data / "queries_hidden.jsonl", [question("hidden", n) for n in range(40)])
    labels = [
        {"prompt": question("s", n)["prompt"], "stream_label": ("LOW", "MEDIUM", "HIGH")[n % 3]} for n in range(9)
    ]
    lines(data / "stream_labels_hidden.jsonl", labels)
    opened = [{"prompt": f"Write about {n}", "tier_needed_hpc_vs_cloud": ("hpc", "cloud")[n % 2]} for n in range(8)]
    lines(data / "mtbench_hidden.jsonl", opened)
    return data, train


def bench(data: Path, train: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(ROOT / "bench/judge.py"), str(data), "--train", str(train)]
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'services/judge'}:{ROOT / 'bench'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--judges", "learned,length,random"], env=env, capture_output=True, text=True, check=False
    )


def test_a_folder_of_any_suffix(folders: tuple[Path, Path]) -> None:
    """All keys are there for each judge, and nothing was cross-validated: the weights are the committed ones."""
    done = bench(*folders)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["about"]["rows"] == 40
    assert not result["about"]["cross_validated"]
    assert result["about"]["trained_on"] == 0
    for name in ("learned", "length", "random"):
        assert result[name].keys() >= FIGURES
        assert set(result[name]["stripped"]) == {"auc_local_correct", "auc_local_suffices", "apgr"}
        assert set(result[name]["stream_labels"]) == {"acc", "macro_f1"}
        assert "auc_cloud_needed" in result[name]["mtbench"]


def test_the_dev_data_itself(folders: tuple[Path, Path]) -> None:
    """The same questions as those that were trained on: every figure is cross-validated, and the words still tell."""
    data, train = folders
    (data / "queries_hidden.jsonl").unlink()
    shutil.copy(train / "queries_dev.jsonl", data)
    done = bench(data, train)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["about"]["cross_validated"]
    assert result["about"]["trained_on"] == 0
    assert result["learned"]["auc_local_correct"] > 0.8
    assert result["random"]["auc_local_correct"] < 0.8


@pytest.mark.parametrize(
    "gone", ["queries_hidden.jsonl", "stream_labels_hidden.jsonl", "mtbench_hidden.jsonl", "../train/queries_dev.jsonl"]
)
def test_a_missing_file_is_named(folders: tuple[Path, Path], gone: str) -> None:
    """Exit code 1 and the file's name, before anything is computed."""
    (folders[0] / gone).unlink()
    done = bench(*folders)
    assert done.returncode == 1
    assert "missing" in done.stderr
    assert gone.rpartition("/")[2].partition("_hidden")[0] in done.stderr
    assert "Traceback" not in done.stderr
