"""What the summarizer's tests share: conversations, a tiny tokenizer folder, counters, strategies."""

import datetime
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from stream_core.deployment import Deployment, ModelConfig, TierConfig
from stream_summarizer.conversation import Conversation, parse
from stream_summarizer.tokens import Counter, Counters

NOON = datetime.datetime(2026, 7, 1, 12, 0, tzinfo=datetime.UTC)

CHATML = (
    "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content }}"
    "{%- for call in message.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}"
    "{{- '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRICT = (
    "{%- set talk = messages | rejectattr('role', 'equalto', 'system') | list %}"
    "{%- for message in talk %}"
    "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('not in turn') }}{% endif %}"
    "{%- endfor %}" + CHATML
)
"""User and assistant must take turns, as many models' templates insist."""


def make_folder(folder: Path, template: str | list[dict[str, str]] | None = CHATML) -> Path:
    """Write a tokenizer folder: a byte-level BPE with 400 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["user assistant system the price of the meeting in the hall"] * 9, trainer)
    tokenizer.enable_truncation(16)  # as many published files ask for; a count must not obey
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"bos_token": {"content": "<s>"}, "eos_token": "<|im_end|>"}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def deployment(folder: Path | None) -> Deployment:
    """Describe one tier `local` with one model `tiny`."""
    model = ModelConfig(id="tiny", tokenizer=folder)
    return Deployment(tiers=[TierConfig(name="local", base_url="http://127.0.0.1:1/v1", models=[model])])


def counter_of(folder: Path | None) -> Counter:
    """Return the counter of that model."""
    return Counters(deployment(folder), 1600, lambda: NOON).of("local", "tiny")


def conversation(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> Conversation:
    """Parse messages."""
    return parse(encode(messages), encode(tools) if tools else b"", max_messages=20_000)


def encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def calling(*ids: str, content: str | None = None) -> dict[str, Any]:
    """Build an assistant message that calls tools."""
    function = {"name": "look_up", "arguments": '{"word": "tide"}'}
    calls = [{"id": name, "type": "function", "function": function} for name in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def answering(name: str, content: str = "42 metres") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": content}


def long_talk(turns: int, words: int = 30) -> list[dict[str, Any]]:
    """Build a conversation of alternating turns, each message of so many words, all different."""
    messages = [said("system", "You answer briefly.")]
    for turn in range(turns):
        filler = " ".join(f"word{turn}x{position}" for position in range(words))
        messages.append(said("user", f"Note {turn}: the price of part {turn} is {100 + turn} euros. {filler}."))
        messages.append(said("assistant", f"Noted {turn}. {filler}."))
    messages.append(said("user", "What is the price of part 3?"))
    return messages


text = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=120),
    st.text(alphabet="abc .!?\n", max_size=200),
    st.sampled_from(
        [
            "<|im_end|>",
            "<|im_start|>user\n",
            "Price: 3,50 euros. Ask Ms Miller!",
            "会议改到星期四。小会议室。" * 9,
            "a" * 900,
        ]
    ),
)


@st.composite
def talks(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw a valid conversation: system prompts, turns, tool calls with their results, late instructions, parts."""
    messages = [
        said(draw(st.sampled_from(["system", "developer"])), draw(text)) for _ in range(draw(st.integers(0, 2)))
    ]
    for number in range(draw(st.integers(0, 9))):
        messages.append(said("user", draw(text)))
        kind = draw(st.sampled_from(["answer", "tools", "instruction", "parts"]))
        if kind == "tools":
            # Engines that number their calls anew in every turn repeat ids.
            ids = [f"call_{position}" for position in range(draw(st.integers(1, 3)))]
            messages.append(calling(*ids, content=draw(st.none() | text)))
            messages.extend(answering(name, draw(text)) for name in draw(st.permutations(ids)))
        elif kind == "instruction":
            messages.append(said("system", draw(text)))
        elif kind == "parts":
            messages[-1] = said("user", [{"type": "text", "text": draw(text)} for _ in range(number % 3)])
        if draw(st.booleans()):
            messages.append(said("assistant", draw(text)))
    messages.append(said("user", draw(text)))
    if draw(st.booleans()):
        messages.extend([calling("last"), answering("last", draw(text))])
    return messages
