"""A model's chat template, rendered as Hugging Face transformers does.

Source: transformers `utils/chat_template_utils.py`: an immutable sandbox with `trim_blocks` and `lstrip_blocks`, loop
controls, `raise_exception`, `tojson` without escapes, `strftime_now`, and the tag `generation` passed through.
"""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from stream_core.errors import ConfigError

_PROBE: Final = "x1y2z3"
_TOKEN_NAMES: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

Clock = Callable[[], datetime]


class TemplateRefused(Exception):
    """The template does not accept this conversation."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's tokens for training; for a prompt its body is just text."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """Compiled once; thread-safe."""

    def __init__(self, sources: dict[str, str], special_tokens: dict[str, str], now: Clock) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: now().strftime(form)
        self._default = environment.from_string(sources["default"])
        self._with_tools = environment.from_string(sources.get("tool_use", sources["default"]))
        self._special_tokens = special_tokens
        self.takes_parts = self._shows([{"type": "text", "text": _PROBE}])
        """Whether content may be a list of parts; engines join the texts with line ends for a template that can't."""
        self.takes_text = self._shows(_PROBE)

    def render(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str:
        """Render a prompt up to the start of the answer.

        Raises:
            TemplateRefused: the template raised, or does not work with these messages.
        """
        template = self._with_tools if tools else self._default
        try:
            return template.render(
                messages=messages,
                tools=tools or None,
                documents=None,
                add_generation_prompt=True,
                **self._special_tokens,
            )
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise TemplateRefused(type(error).__name__) from error

    def _shows(self, content: object) -> bool:
        try:
            text = self.render([{"role": "user", "content": content}], [])
        except TemplateRefused:
            return False
        return _PROBE in text and "'type'" not in text and '"type"' not in text


def read_template(folder: Path, now: Clock) -> ChatTemplate | None:
    """Read a tokenizer folder's chat template.

    Args:
        folder: with tokenizer_config.json, and perhaps chat_template.jinja.
        now: local time, for templates that write the date.

    Returns:
        None when the model has none.

    Raises:
        ConfigError: unreadable, or not a template.
    """
    path = folder / "tokenizer_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        sources = _sources(folder, config)
        return ChatTemplate(sources, _special_tokens(config), now) if sources else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, jinja2.TemplateError) as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error


def _sources(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    separate = folder / "chat_template.jinja"
    if separate.exists():
        return {"default": separate.read_text(encoding="utf-8")}
    match config.get("chat_template"):
        case None:
            return {}
        case str() as source:
            return {"default": source}
        case several:
            return {item["name"]: item["template"] for item in several}


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """A token is written as text or as an object with `content`."""
    found = {name: config[name] for name in _TOKEN_NAMES if config.get(name) is not None}
    return {name: token if isinstance(token, str) else token["content"] for name, token in found.items()}


def _tojson(value: object, *, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
