"""Writing the trained network: a GGUF for llama.cpp and a Hugging Face folder for vLLM."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import gguf
import numpy as np
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from train import tokens
from train.network import Llama, Shape

if TYPE_CHECKING:
    from pathlib import Path


_BLOCK = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
_HF_GROUP = {"q_proj": "self_attn.", "k_proj": "self_attn.", "v_proj": "self_attn.", "o_proj": "self_attn."}


def _gguf_name(name: str) -> str:
    if name.startswith("layers."):
        _, index, part, _ = name.split(".")
        return f"blk.{index}.{_BLOCK[part]}.weight"
    return {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[name]


def _hf_name(name: str) -> str:
    if name.startswith("layers."):
        _, index, part, _ = name.split(".")
        group = _HF_GROUP.get(part, "mlp." if part.endswith("_proj") else "")
        return f"model.layers.{index}.{group}{part}.weight"
    return f"model.{name}"


def _permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder rows from Hugging Face's rotary pairing (i, i + half) to llama.cpp's (2i, 2i + 1)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(path: Path, network: Llama, tokenizer: Tokenizer, card: dict[str, str]) -> None:
    """Write the network and its tokenizer as one GGUF: matrices Q8_0, vectors F32.

    Args:
        path: the file to write, replaced as a whole when complete.
        network: trained weights.
        tokenizer: its vocabulary must have `network.shape.vocab` entries.
        card: values for `name`, `description`, `license` and `author`.
    """
    shape = network.shape
    partial = path.with_suffix(".part")
    writer = gguf.GGUFWriter(partial, "llama")
    writer.add_name(card["name"])
    writer.add_description(card["description"])
    writer.add_license(card["license"])
    writer.add_author(card["author"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    # A model this small wanders off at llama.cpp's own default temperature of 0.8.
    writer.add_sampling_temp(0.3)
    writer.add_sampling_top_p(0.9)
    _write_vocabulary(writer, tokenizer)
    for name, parameter in network.state_dict().items():
        weight = parameter.detach().float().cpu().numpy()
        if ".q_proj." in name:
            weight = _permute(weight, shape.heads)
        if ".k_proj." in name:
            weight = _permute(weight, shape.kv_heads)
        if weight.ndim == 1:
            writer.add_tensor(_gguf_name(name), weight)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(_gguf_name(name), gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def _write_vocabulary(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    ordered = sorted(model["vocab"], key=model["vocab"].__getitem__)
    special = set(tokens.SPECIAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(ordered)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in ordered])
    writer.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in model["merges"]])
    writer.add_bos_token_id(tokenizer.token_to_id(tokens.BEGIN))
    writer.add_eos_token_id(tokenizer.token_to_id(tokens.END))
    writer.add_pad_token_id(tokenizer.token_to_id(tokens.PAD))
    writer.add_add_bos_token(value=False)
    writer.add_add_space_prefix(value=False)
    writer.add_chat_template(tokens.CHAT_TEMPLATE)


def write_hf(folder: Path, network: Llama, tokenizer: Tokenizer) -> None:
    """Write the network as a Hugging Face folder: `config.json`, `model.safetensors`, tokenizer files."""
    shape: Shape = network.shape
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_base,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": tokenizer.token_to_id(tokens.BEGIN),
        "eos_token_id": tokenizer.token_to_id(tokens.END),
        "pad_token_id": tokenizer.token_to_id(tokens.PAD),
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = {_hf_name(name): w.detach().float().cpu().contiguous() for name, w in network.state_dict().items()}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    tokens.save(tokenizer, folder, shape.context)


def read_hf(folder: Path) -> tuple[Llama, Tokenizer]:
    """Read back what `write_hf` wrote, to export it again with another template or quantisation."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    network = Llama(
        Shape(
            vocab=config["vocab_size"],
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            hidden=config["intermediate_size"],
            context=config["max_position_embeddings"],
            rope_base=config["rope_theta"],
            norm_eps=config["rms_norm_eps"],
        )
    )
    weights = load_file(str(folder / "model.safetensors"))
    network.load_state_dict({name: weights[_hf_name(name)] for name in network.state_dict()})
    return network, Tokenizer.from_file(str(folder / "tokenizer.json"))
