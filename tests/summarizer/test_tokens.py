"""Exact counts by tokenizer and template; estimates where something is not known."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from tokenizers import Tokenizer, pre_tokenizers

from stream_core.deployment import ClusterConfig, Deployment, ModelConfig, PoolConfig, TierConfig
from stream_core.errors import ConfigError
from stream_summarizer.tokens import Counter, Counters, EstimatingCounter, TokenizerCounter, models_of

from .building import NOON, answering, calling, conversation, counter_of, deployment, encode, make_folder, said, text

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


def plain_count(folder: Path, prompt: str) -> int:
    """Count as the library does when it is given the whole prompt at once."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    return len(tokenizer.encode(prompt, add_special_tokens=False).ids)


def tokens_of(counter: Counter, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> int:
    talk = conversation(messages, tools)
    return counter.prompt(talk.messages, talk.tools).tokens


def is_exact(counter: Counter, messages: list[dict[str, Any]]) -> bool:
    talk = conversation(messages)
    return counter.prompt(talk.messages, talk.tools).exact


@pytest.mark.parametrize(
    ("messages", "tools", "prompt"),
    [
        ([said("user", "Hi")], None, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (
            [said("system", "Be brief."), said("user", "Grüße 世界 👍")],
            None,
            (
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nGrüße 世界 👍<|im_end|>\n"
                "<|im_start|>assistant\n"
            ),
        ),
        (
            [said("user", [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])],
            None,
            "<|im_start|>user\none\ntwo<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            [said("user", "a"), calling("c"), answering("c", "b"), said("user", "d")],
            [TOOL],
            (
                f"<|im_start|>system\n{json.dumps(TOOL)}\n<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
                '<|im_start|>assistant\n<call>{"name": "look_up", "arguments": {"word": "tide"}}</call><|im_end|>\n'
                "<|im_start|>tool\nb<|im_end|>\n<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\n"
            ),
        ),
    ],
)
def test_prompt(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, prompt: str, folder: Path, exact: Counter
) -> None:
    """Each row: a conversation, and the prompt that an engine makes of it; their counts agree and are exact."""
    assert tokens_of(exact, messages, tools) == plain_count(folder, prompt)
    assert is_exact(exact, messages)


@given(text, text)
def test_pieces_count_like_the_whole(folder: Path, exact: Counter, first: str, second: str) -> None:
    """Counting piece by piece between special tokens, cached or not, gives what the library gives for all at once."""
    whole = f"<|im_start|>{first}<|im_end|>{second}"
    assert exact.text(whole) == plain_count(folder, whole)
    assert exact.text(whole) == plain_count(folder, whole)


def test_pieces_only_where_they_may(tmp_path: Path) -> None:
    """A tokenizer that marks the prompt's first word is never asked piece by piece."""
    folder = make_folder(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.save(str(folder / "tokenizer.json"))
    counter = counter_of(folder)
    prompt = "price<|im_end|>price of the hall<|im_start|>price"
    assert counter.text(prompt) == plain_count(folder, prompt)


@pytest.mark.parametrize(
    "messages",
    [
        [said("user", "Hi"), said("assistant", "The answer")],
        [said("user", [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}])],
        [said("user", "a"), {**calling("c"), "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{"}}]}],
    ],
)
def test_not_certain(messages: list[dict[str, Any]], exact: Counter) -> None:
    """A started answer, an image and arguments that are no JSON are counted, but not called exact."""
    assert not is_exact(exact, messages)
    assert tokens_of(exact, messages) > 0


def test_images_count(exact: Counter) -> None:
    """Each image counts the configured figure, whatever the size of its data."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    without = tokens_of(exact, [said("user", "Look.")])
    assert tokens_of(exact, [said("user", [{"type": "text", "text": "Look."}, image, image])]) == without + 3200


def test_refused_by_the_template(strict: Counter) -> None:
    """Where the template raises, the count is an estimate above that of its parts."""
    messages = [said("user", "one"), said("user", "two")]
    assert not is_exact(strict, messages)
    assert tokens_of(strict, messages) > strict.text("one") + strict.text("two")


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{{ messages[0].content | tojson }}", '"<ü>"'),
        ("{% for m in messages %}\n    {% if true %}\nx\n    {% endif %}\n{% endfor %}", "x\n"),
        ("{% for m in messages %}{% break %}{% endfor %}x", "x"),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{{ strftime_now('%d %b %Y') }}", "01 Jul 2026"),
        ("{{ bos_token }}{{ eos_token }}", "<s><|im_end|>"),
        ([{"name": "default", "template": "x"}, {"name": "tool_use", "template": "with tools"}], "x"),
    ],
)
def test_template_like_transformers(template: Any, prompt: str, tmp_path: Path) -> None:
    """Each row: a template, and what transformers makes of it."""
    folder = make_folder(tmp_path, template)
    assert tokens_of(counter_of(folder), [said("user", "<ü>")]) == plain_count(folder, prompt)


def test_template_for_tools(tmp_path: Path) -> None:
    """With tools, the template named `tool_use` is taken."""
    named = [{"name": "default", "template": "x"}, {"name": "tool_use", "template": "with tools"}]
    folder = make_folder(tmp_path, named)
    assert tokens_of(counter_of(folder), [said("user", "a")], [TOOL]) == plain_count(folder, "with tools")


def test_template_in_its_own_file(tmp_path: Path) -> None:
    """Newer folders keep the template beside the configuration; it wins."""
    folder = make_folder(tmp_path)
    (folder / "chat_template.jinja").write_text("own file")
    assert tokens_of(counter_of(folder), [said("user", "a")]) == plain_count(folder, "own file")


def test_template_is_caged(tmp_path: Path) -> None:
    """A template that reaches for Python's internals is refused; the count is an estimate."""
    folder = make_folder(tmp_path, "{{ messages.__class__.__mro__[1].__subclasses__() }}")
    assert not is_exact(counter_of(folder), [said("user", "a")])


@pytest.mark.parametrize("damage", ["no template", "template", "tokenizer", "configuration"])
def test_damaged_folder(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What can't be used is logged with its folder, and counts are estimates."""
    folder = make_folder(tmp_path, None if damage == "no template" else "{% if %}" if damage == "template" else "x")
    if damage in {"tokenizer", "configuration"}:
        (folder / ("tokenizer.json" if damage == "tokenizer" else "tokenizer_config.json")).write_text("{")
    assert isinstance(counter_of(folder), EstimatingCounter)
    assert str(folder) in caplog.text


def test_loaded_once_and_late(folder: Path) -> None:
    """A tokenizer is read when it is first asked for, and once for all models of one folder."""
    models = [ModelConfig(id="a", tokenizer=folder), ModelConfig(id="b", tokenizer=folder), ModelConfig(id="c")]
    tiers = [TierConfig(name="local", base_url="http://127.0.0.1:1/v1", models=models)]
    counters = Counters(Deployment(tiers=tiers), 1600, lambda: NOON)
    assert counters.of("local", "a") is counters.of("local", "b")
    assert counters.of("local", "") is counters.of("local", "a")
    assert isinstance(counters.of("local", "a"), TokenizerCounter)
    for tier, model in (("local", "c"), ("local", "z"), ("far", "a"), ("", "")):
        assert not counters.of(tier, model).exact


def test_pools_have_tokenizers_too(folder: Path) -> None:
    """The model of a cluster's pool is found under its tier."""
    pool = PoolConfig(model=ModelConfig(id="big", tokenizer=folder))
    tiers = [TierConfig(name="hpc", kind="hpc"), TierConfig(name="off", enabled=False, models=[ModelConfig(id="x")])]
    described = Deployment(tiers=tiers, clusters=[ClusterConfig(name="c1", pools=[pool])])
    assert set(models_of(described)) == {("hpc", "big")}
    assert Counters(described, 1600, lambda: NOON).of("hpc", "big").exact


def test_missing_folder(tmp_path: Path) -> None:
    """A configured folder without tokenizer.json stops the start, and the message names model, tier and folder."""
    with pytest.raises(ConfigError) as caught:
        Counters(deployment(tmp_path), 1600, lambda: NOON)
    assert caught.value.message == f"model 'tiny' of tier 'local': no tokenizer.json in {tmp_path}"


def test_estimates_are_above(exact: Counter) -> None:
    """For a plain conversation the estimate of a whole prompt is above the count of a usual vocabulary's size."""
    messages = [said("system", "Be brief."), said("user", "What is the price of the second part?")]
    talk = conversation(messages, [TOOL])
    estimated = EstimatingCounter(1600).prompt(talk.messages, talk.tools)
    assert not estimated.exact
    assert estimated.tokens > len(encode(messages)) // 4
    assert estimated.tokens > EstimatingCounter(1600).prompt(talk.messages, b"").tokens
