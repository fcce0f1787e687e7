"""The tokenizer and the chat template: byte-level BPE with the GPT-2 splitting rule."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from train.prose import Conversation

BEGIN, PAD, END = "<|begin|>", "<|pad|>", "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>", "tool": "<|tool|>"}
SPECIAL = (BEGIN, PAD, END, *ROLES.values())

# A conversation is <|begin|>, then for each message its role token, the text and <|end|>. Tool definitions go into a
# system message and calls are written as many open models write them, so that llama.cpp knows the form and can hold
# the model to it. Text parts are joined by a line break because llama.cpp joins them so before it renders.
TOOLS_HEAD = "You may call these functions:"
TOOLS_TAIL = 'To call one, write <tool_call>\n{"name": its name, "arguments": an object}\n</tool_call>'
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- if tools -%}
{{- '<|system|>TOOLS_HEAD' -}}
{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}
{{- '\\nTOOLS_TAIL<|end|>' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] in ['user', 'assistant', 'tool'] -%}
{{- '<|' + message['role'] + '|>' -}}
{%- else -%}
{{- '<|system|>' -}}
{%- endif -%}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- elif message['content'] -%}
{%- for part in message['content'] if part['type'] == 'text' -%}
{%- if not loop.first -%}{{- '\\n' -}}{%- endif -%}
{{- part['text'] -}}
{%- endfor -%}
{%- endif -%}
{%- if message['tool_calls'] -%}
{%- for call in message['tool_calls'] -%}
{{- '<tool_call>\\n{"name": "' + call['function']['name'] + '", "arguments": ' -}}
{%- if call['function']['arguments'] is string -%}
{{- call['function']['arguments'] -}}
{%- else -%}
{{- call['function']['arguments'] | tojson -}}
{%- endif -%}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{%- endif -%}
{{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
""".replace("TOOLS_HEAD", TOOLS_HEAD).replace("TOOLS_TAIL", TOOLS_TAIL.replace("\n", "\\n"))


def train(texts: Iterable[str], vocab: int) -> Tokenizer:
    """Learn `vocab` tokens, the special ones first; the same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, conversation: Conversation) -> tuple[list[int], list[bool]]:
    """Return the token ids of a conversation and, beside each, whether the assistant wrote it."""
    ids, spoken = [tokenizer.token_to_id(BEGIN)], [False]
    for turn in conversation:
        piece = tokenizer.encode(turn.text, add_special_tokens=False).ids
        ids += [tokenizer.token_to_id(ROLES[turn.role]), *piece, tokenizer.token_to_id(END)]
        spoken += [False, *([turn.role == "assistant"] * (len(piece) + 1))]
    return ids, spoken


def save(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` (with the chat template) into `folder`."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
