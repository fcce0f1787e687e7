"""Writes a tiny Llama that vLLM serves: `python tiny_model.py FOLDER`, with the Python of vLLM's own environment.

Its weights are drawn at random, always the same, but for what tests lean on:

- it writes printable ASCII, a byte a token, so that an answer can be cut and joined anywhere;
- after each character comes the next one of a ring of all of them, by a margin that no rounding and no other request
  of the batch changes; a character that is lost or said twice shows. The prompt decides only where an answer enters
  the ring;
- it never ends by itself: `max_tokens` alone says how long an answer is.

The ring: the row of the output matrix for a character is the embedding of the one before it. The last point, and that
other bytes never come: the first component of the hidden state is the same at every place (all embeddings have it, no
layer writes to it), so the output matrix's first column is a bias that each token can be given.
"""

import json
import sys
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

BEGIN, END = "<|begin|>", "<|end|>"
ROLES: Final = tuple(f"<|{role}|>" for role in ("system", "user", "assistant", "tool"))
WIDTH, HIDDEN, LAYERS, HEADS = 64, 160, 2, 2
CONTEXT: Final = 8192
SEED: Final = 4
ALIKE: Final = 1.0
"""The component that is the same everywhere, beside others of about 1."""
LAYER_SCALE: Final = 0.3
"""Of what the layers add to an embedding: enough to tell prompts apart, too little to leave the ring."""
PRINTABLE: Final = [chr(code) for code in range(0x21, 0x7F)]
RARELY: Final = -40.0
"""Beside about 60 for the ring's next and 10 for any other: space, which JSON's grammar allows almost everywhere."""
NEVER: Final = -400.0

# Hermes's form of tool calls, which vLLM's parser of that name reads.
TEMPLATE: Final = """\
{{- bos_token -}}
{%- if tools -%}
{{- '<|system|>' -}}{%- for tool in tools -%}{{- (tool | tojson) + '\\n' -}}{%- endfor -%}{{- '<|end|>' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|' + message['role'] + '|>' + (message['content'] or '') -}}
{%- for call in message['tool_calls'] or [] -%}
{{- '<tool_call>\\n' + (call['function'] | tojson) + '\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def tokenizer() -> Tokenizer:
    """One token for each byte, and the roles."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([BEGIN, END, *ROLES])
    return made


def bias(vocabulary: Tokenizer) -> np.ndarray:
    """How much each token is wanted, whatever came before."""
    wanted = np.full(vocabulary.get_vocab_size(), NEVER, dtype=np.float32)
    wanted[[vocabulary.token_to_id(letter) for letter in PRINTABLE]] = 0.0
    wanted[vocabulary.token_to_id("Ġ")] = RARELY
    return wanted


def weights(vocabulary: Tokenizer) -> dict[str, np.ndarray]:
    """Every matrix, under its Hugging Face name."""
    drawn = np.random.default_rng(SEED)

    def matrix(rows: int, columns: int, scale: float) -> np.ndarray:
        return (drawn.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype(np.float32)

    size = vocabulary.get_vocab_size()
    embedding = drawn.standard_normal((size, WIDTH)).astype(np.float32)
    embedding[:, 0] = ALIKE
    made = {"model.embed_tokens.weight": embedding, "model.norm.weight": np.ones(WIDTH, np.float32)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            made[f"{prefix}.self_attn.{name}.weight"] = matrix(WIDTH, WIDTH, LAYER_SCALE if name == "o_proj" else 2.0)
        for name, rows, columns in (("gate", HIDDEN, WIDTH), ("up", HIDDEN, WIDTH), ("down", WIDTH, HIDDEN)):
            made[f"{prefix}.mlp.{name}_proj.weight"] = matrix(rows, columns, LAYER_SCALE if name == "down" else 1.0)
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            made[f"{prefix}.{name}.weight"][0] = 0.0
        for name in ("input_layernorm", "post_attention_layernorm"):
            made[f"{prefix}.{name}.weight"] = np.ones(WIDTH, np.float32)
    output = drawn.standard_normal((size, WIDTH)).astype(np.float32)
    ring = [vocabulary.token_to_id(letter) for letter in drawn.permutation(PRINTABLE)]
    for before, after in zip(ring, [*ring[1:], ring[0]], strict=True):
        output[after] = embedding[before]
    output[:, 0] = bias(vocabulary)
    made["lm_head.weight"] = output
    return made


def write(folder: Path) -> None:
    """Write the model's folder."""
    vocabulary = tokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    begin, end = vocabulary.token_to_id(BEGIN), vocabulary.token_to_id(END)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": WIDTH // HEADS,
        "vocab_size": vocabulary.get_vocab_size(),
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": begin,
        "eos_token_id": end,
        "torch_dtype": "bfloat16",
    }
    naming = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "chat_template": TEMPLATE,
    }
    vocabulary.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(naming))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": begin, "eos_token_id": end}))
    save_file(weights(vocabulary), folder / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    write(Path(sys.argv[1]))
