"""Token counts: exact with the model's own tokenizer and chat template, else an estimate that errs high.

What is exact: text, tool definitions, tool calls and their results. What stays an estimate even with a tokenizer, and
is said so: images, sound and files; a last message by the assistant, which engines continue in different ways; a
conversation that the template refuses. By a tiktoken file, whose models' templates are secret, messages of plain text
alone are exact.
"""

import hashlib
import json
import logging
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from stream_core.deployment import Deployment, ModelConfig
from stream_core.errors import ConfigError
from stream_summarizer.conversation import Message
from stream_summarizer.estimate import (
    FRAME_TOKENS,
    MESSAGE_TOKENS,
    estimate,
    estimate_medium,
    estimate_message,
    estimate_tools,
)
from stream_summarizer.splitting import CL100K_SPLIT, LLAMA3_SPLIT, QWEN2_SPLIT

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from stream_summarizer.template import ChatTemplate, Clock

log = logging.getLogger(__name__)

TOKENIZER_FILE: Final = "tokenizer.json"
GGUF: Final = ".gguf"
TIKTOKEN: Final = ".tiktoken"
SEGMENT_CACHE_ENTRIES: Final = 65_536
_UNCACHED_CHARACTERS: Final = 8
SAFE_SPLITS: Final = frozenset({CL100K_SPLIT, LLAMA3_SPLIT, QWEN2_SPLIT})
"""Patterns of which no match holds a line end and then something that is no space."""
PUBLISHED_MESSAGE_TOKENS: Final = 3
"""What OpenAI says that a message has besides its role, its name and its text."""
PUBLISHED_NAME_TOKENS: Final = 1
"""What a name has besides its own tokens."""
PUBLISHED_REPLY_TOKENS: Final = 3
"""With these the answer starts."""
_PLAIN_FIELDS: Final = frozenset({"role", "content", "name"})
_PLAIN_ROLES: Final = frozenset({"system", "developer", "user", "assistant"})
_LINE_START: Final = re.compile(r"(?<=\n)(?=\S)")

_NOWHERE: Final = "(?!)"
"""A pattern that matches nowhere: without special tokens a text is one piece."""
_PLACE_FREE: Final = frozenset(
    {"ByteLevel", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Sequence"}
    | {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Replace", "BertNormalizer", "StripAccents", "UnicodeScripts"}
)
"""Steps that treat a text alike wherever it stands. Metaspace, for one, marks only the prompt's first word."""


class Count(NamedTuple):
    """How many tokens a prompt has."""

    tokens: int
    exact: bool


class Counter(Protocol):
    """Counts tokens for one model; thread-safe."""

    exact: bool
    """Whether it knows the model's tokenizer and template."""

    def text(self, text: str) -> int:
        """Count a text on its own."""

    def message(self, message: Message) -> int:
        """Count roughly what a message adds to a prompt."""

    def prompt(self, messages: Sequence[Message], tools: bytes) -> Count:
        """Count a whole prompt, up to the start of the answer.

        Args:
            messages: in order.
            tools: their JSON; empty when there are none.
        """


class EstimatingCounter:
    """For a model whose tokenizer is not here."""

    exact = False

    def __init__(self, image_tokens: int) -> None:
        self._image_tokens = image_tokens

    def text(self, text: str) -> int:
        """Estimate a text."""
        return estimate(text)

    def message(self, message: Message) -> int:
        """Estimate a message."""
        return estimate_message(message, self._image_tokens)

    def prompt(self, messages: Sequence[Message], tools: bytes) -> Count:
        """Estimate a prompt."""
        return Count(FRAME_TOKENS + estimate_tools(tools) + sum(map(self.message, messages)), exact=False)


class _Vocabulary:
    """Counts texts by a tokenizer, a repeated piece once."""

    exact = True

    def __init__(self, tokenizer: "Tokenizer", image_tokens: int) -> None:
        tokenizer.no_truncation()  # files often ask for it, and a count must see everything
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._image_tokens = image_tokens
        description = json.loads(tokenizer.to_str())
        self._splitter = _splitter(description)
        self._by_lines = self._splitter is not None and _cuts_at_lines(description)
        self._cache: dict[bytes, int] = {}  # digest of a segment -> its tokens; no text is kept
        self._lock = threading.Lock()

    def text(self, text: str) -> int:
        """Count a text, special tokens in it read as such, as engines do."""
        if self._splitter is None:
            return self._encode(text)
        return sum(self._segment(segment) for segment in self._splitter.split(text) if segment)

    def _content(self, message: Message) -> int:
        calls = sum(self.text(call.name) + self.text(call.arguments) + MESSAGE_TOKENS for call in message.calls)
        return self.text(message.text) + calls + self._media(message)

    def _media(self, message: Message) -> int:
        return sum(estimate_medium(medium, self._image_tokens) for medium in message.media)

    def _encode(self, text: str) -> int:
        # "fast" leaves out where each token stands, which nobody asks for.
        return len(self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0])

    def _segment(self, segment: str) -> int:
        """Count a piece between special tokens, which is tokenized by itself; a next turn repeats most pieces."""
        if len(segment) <= _UNCACHED_CHARACTERS:
            return self._encode(segment)
        key = hashlib.blake2b(segment.encode(), digest_size=16).digest()
        tokens = self._cache.get(key)
        if tokens is None:
            lines = _LINE_START.split(segment) if self._by_lines else ()
            tokens = sum(map(self._segment, lines)) if len(lines) > 1 else self._encode(segment)
            with self._lock:
                if len(self._cache) >= SEGMENT_CACHE_ENTRIES:
                    del self._cache[next(iter(self._cache))]
                self._cache[key] = tokens
        return tokens


class TokenizerCounter(_Vocabulary):
    """For a model whose tokenizer and template are here."""

    def __init__(self, tokenizer: "Tokenizer", template: "ChatTemplate", image_tokens: int) -> None:
        super().__init__(tokenizer, image_tokens)
        self._template = template

    def message(self, message: Message) -> int:
        """Count a message, its frame by a round figure."""
        return self._content(message) + MESSAGE_TOKENS

    def prompt(self, messages: Sequence[Message], tools: bytes) -> Count:
        """Count a prompt by rendering it."""
        from stream_summarizer.template import TemplateRefused  # noqa: PLC0415  (jinja2 costs start-up time)

        views = [_view(message, self._template) for message in messages]
        try:
            prompt = self._template.render([view for view, _ in views], msgspec.json.decode(tools) if tools else [])
        except TemplateRefused:
            total = FRAME_TOKENS + estimate_tools(tools) + sum(map(self.message, messages))
            return Count(total, exact=False)
        faithful = all(alike for _, alike in views) and messages[-1].role != "assistant"
        return Count(self.text(prompt) + sum(map(self._media, messages)), exact=faithful)


class FramedCounter(_Vocabulary):
    """For a model whose tokenizer is here and whose template is secret: what its maker says that a message costs."""

    def message(self, message: Message) -> int:
        """Count a message with its frame."""
        name = msgspec.json.decode(message.raw, type=_Named).name
        named = 0 if name is None else self.text(name) + PUBLISHED_NAME_TOKENS
        return PUBLISHED_MESSAGE_TOKENS + self.text(message.role) + named + self._content(message)

    def prompt(self, messages: Sequence[Message], tools: bytes) -> Count:
        """Count a prompt; how tools, calls and parts are written is not published, so with them it is an estimate."""
        total = PUBLISHED_REPLY_TOKENS + sum(map(self.message, messages))
        if tools:
            total += estimate_tools(tools)
        return Count(total, exact=not tools and all(map(_plain, messages)))


class _Named(msgspec.Struct):
    name: str | None = None


class Counters:
    """Finds the counter of a tier's model; loads each tokenizer folder once, when it is first asked for."""

    def __init__(self, deployment: Deployment, image_tokens: int, now: "Clock") -> None:
        """Remember what is configured; read nothing yet.

        Raises:
            ConfigError: a configured folder has no tokenizer.json.
        """
        self._models = models_of(deployment)
        self._estimating = EstimatingCounter(image_tokens)
        self._image_tokens = image_tokens
        self._now = now
        self._loaded: dict[Path, Counter] = {}
        self._lock = threading.Lock()
        for (tier, _), model in self._models.items():
            if model.tokenizer is None:
                continue
            wanted = model.tokenizer if model.tokenizer.suffix in {GGUF, TIKTOKEN} else model.tokenizer / TOKENIZER_FILE
            if not wanted.is_file():
                raise ConfigError(
                    f"model {model.id!r} of tier {tier!r}: no {wanted.name} in {wanted.parent}", param="tokenizer"
                )

    def of(self, tier: str, model: str) -> Counter:
        """Return the counter of a model.

        Args:
            tier: name.
            model: id within the tier; empty takes the tier's first.
        """
        folder = self._folder(tier, model)
        if folder is None:
            return self._estimating
        with self._lock:
            if folder not in self._loaded:
                self._loaded[folder] = self._load(folder)
            return self._loaded[folder]

    def _folder(self, tier: str, model: str) -> Path | None:
        if model:
            found = self._models.get((tier, model))
        else:
            found = next((config for (name, _), config in self._models.items() if name == tier), None)
        return found.tokenizer if found else None

    def _load(self, folder: Path) -> Counter:
        from tokenizers import Tokenizer  # noqa: PLC0415  (with jinja2 a fifth of a second, which start-up saves)

        from stream_summarizer.template import read_template  # noqa: PLC0415

        try:
            if folder.suffix == GGUF:
                return self._load_gguf(folder)
            if folder.suffix == TIKTOKEN:
                return self._load_tiktoken(folder)
            template = read_template(folder, self._now)
            if template is None:
                log.warning("no chat template in %s: token counts of its model are estimates", folder)
                return self._estimating
            return TokenizerCounter(Tokenizer.from_file(str(folder / TOKENIZER_FILE)), template, self._image_tokens)
        except ConfigError as error:
            log.exception("tokenizer %s can't be used, token counts are estimates: %s", folder, error.message)
        except Exception as error:  # noqa: BLE001  (the library raises bare Exception for a damaged file)
            log.error("tokenizer %s can't be used, token counts are estimates: %s", folder, error)  # noqa: TRY400
        return self._estimating

    def _load_gguf(self, path: Path) -> Counter:
        from stream_summarizer.gguf_tokenizer import read_gguf_tokenizer  # noqa: PLC0415  (as above)
        from stream_summarizer.template import ChatTemplate  # noqa: PLC0415

        found = read_gguf_tokenizer(path)
        if not found.template:
            log.warning("no chat template in %s: token counts of its model are estimates", path)
            return self._estimating
        template = ChatTemplate({"default": found.template}, found.special_tokens, self._now)
        return TokenizerCounter(found.tokenizer, template, self._image_tokens)

    def _load_tiktoken(self, path: Path) -> Counter:
        from stream_summarizer.tiktoken_file import read_tiktoken_file  # noqa: PLC0415  (as above)

        return FramedCounter(read_tiktoken_file(path), self._image_tokens)


def models_of(deployment: Deployment) -> dict[tuple[str, str], ModelConfig]:
    """List what the deployment offers by (tier, model id): of enabled tiers and of the pools of their clusters."""
    models = {(tier.name, model.id): model for tier in deployment.tiers if tier.enabled for model in tier.models}
    for cluster in deployment.clusters:
        for pool in cluster.pools:
            known = models.get((cluster.tier, pool.model.id))
            if known is None or known.tokenizer is None:
                models[cluster.tier, pool.model.id] = pool.model
    return models


def _splitter(tokenizer: dict[str, Any]) -> re.Pattern[str] | None:
    """Return a pattern that cuts a text at special tokens, if its pieces can be counted apart; else None."""
    steps = _step_types(tokenizer.get("normalizer")) | _step_types(tokenizer.get("pre_tokenizer"))
    added = [token for token in tokenizer.get("added_tokens", ()) if not token["normalized"]]
    plain = not any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added)
    if not (steps <= _PLACE_FREE and plain):
        return None
    longest_first = sorted((token["content"] for token in added), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first)) or _NOWHERE})")


def _cuts_at_lines(tokenizer: dict[str, Any]) -> bool:
    """Tell whether no piece that is tokenized by itself goes past a line end to what is no space."""
    steps = [tokenizer.get("pre_tokenizer") or {}]
    steps = [inner for step in steps for inner in step.get("pretokenizers") or [step]]
    splits = [step for step in steps if step.get("type") == "Split"]
    known = all(step["pattern"].get("Regex") in SAFE_SPLITS and step["behavior"] == "Isolated" for step in splits)
    byte_level = [step for step in steps if step.get("type") == "ByteLevel"]
    by_itself = bool(byte_level) and byte_level[0].get("use_regex", True) and not splits
    plain = tokenizer.get("normalizer") is None and len(steps) == len(splits) + len(byte_level)
    return plain and ((bool(splits) and known) or by_itself)


def _step_types(step: Any) -> set[str]:
    if step is None:
        return set()
    inner = step.get("pretokenizers") or step.get("normalizers") or ()
    return {step["type"]}.union(*(_step_types(item) for item in inner))


def _view(message: Message, template: "ChatTemplate") -> tuple[dict[str, Any], bool]:
    """Return a message as engines hand it to the template, and whether that is certain."""
    view: dict[str, Any] = msgspec.json.decode(message.raw)
    # The older call form and its answer are translated differently by each engine.
    alike = not message.media and message.role != "function" and not view.get("function_call")
    content = view.get("content")
    if isinstance(content, list) and template.takes_parts:
        view["content"] = [_without_data(part) for part in content]
    elif template.takes_text or not template.takes_parts:
        view["content"] = message.text
    else:
        view["content"] = [{"type": "text", "text": message.text}]
    if message.calls and isinstance(view.get("tool_calls"), list):
        # llama.cpp and vLLM hand the arguments over as an object; llama.cpp orders the keys like this.
        view["tool_calls"], parsed = _call_views(view["tool_calls"])
        alike = alike and parsed
    return view, alike


def _without_data(part: dict[str, Any]) -> dict[str, Any]:
    """Leave out base64: the template writes a mark for an image, and `estimate_medium` counts it."""
    return part if part["type"] == "text" else {"type": part["type"], part["type"]: {}}


def _plain(message: Message) -> bool:
    """Tell whether a message is nothing but a role, perhaps a name, and one text."""
    view: dict[str, Any] = msgspec.json.decode(message.raw)
    given = {field for field, value in view.items() if value is not None}
    return given <= _PLAIN_FIELDS and message.role in _PLAIN_ROLES and isinstance(view.get("content"), str)


def _call_views(calls: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    views = []
    certain = True
    for call in calls:
        function = dict(call.get("function") or call.get("custom") or {})
        if isinstance(function.get("arguments"), str):
            try:
                function["arguments"] = msgspec.json.decode(function["arguments"])
            except (ValueError, RecursionError):
                certain = False
        certain = certain and call.get("type", "function") == "function"
        views.append({"type": "function", "function": function, **({"id": call["id"]} if "id" in call else {})})
    return views, certain
