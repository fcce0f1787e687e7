"""The training script's pure parts: what becomes of the sources, and that the shipped files fit the committed code."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

import stream_engine

ENGINE = Path(__file__).parents[2] / "engine"


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package `train` beside the script, with its modules that need no torch."""
    monkeypatch.syspath_prepend(str(ENGINE))
    import train.conversations  # noqa: PLC0415  (importable only now)
    import train.python_docs  # noqa: PLC0415
    import train.questions  # noqa: PLC0415
    import train.tokens  # noqa: PLC0415
    import train.tool_calls  # noqa: PLC0415
    import train.written  # noqa: PLC0415

    return train


def test_shipped_template_is_the_committed_one(train: Any) -> None:
    """`tokenizer_config.json` beside the demo model carries the template that the script writes."""
    demo = Path(stream_engine.__file__).parent / "demo"
    config = json.loads((demo / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["chat_template"] == train.tokens.CHAT_TEMPLATE


def test_long_answers_become_short_prose(train: Any) -> None:
    """Headings, code, links and lead-ins vanish from a Markdown answer; labelled points become questions."""
    answer = (
        "That is a good plan for the week! Here are some steps:\n\n### Step 1\n"
        "1. **Quiet Area**: Find a quiet spot in your home. Close the door behind you.\n"
        "```python\nprint(1)\n```\n- See [this](https://example.org/x).\n"
    )
    messages = [
        {"role": "user", "content": "How do I work at home? ->-> 1,2"},
        {"role": "assistant", "content": answer},
    ]
    found = list(train.conversations.from_long_chat(messages, random.Random(0)))  # noqa: S311
    texts = [turn.text for talk in found for turn in talk]
    assert "How do I work at home?" in texts
    assert any(text.startswith("That is a good plan for the week!") for text in texts)
    assert any("quiet area" in text for text in texts)
    assert not any(mark in text for text in texts for mark in ("```", "**", "https", "Here are", "->->"))


def test_share_alike_rows_can_be_left_out(train: Any, tmp_path: Path) -> None:
    """Without share-alike, and always for licences that are not free, rows are not read."""
    messages = [{"role": "user", "content": "Hi there."}, {"role": "assistant", "content": "Hello to you."}]
    rows = [
        {"kind": "task_dialogue", "licence": licence, "messages": messages, "qa": []}
        for licence in ("MIT", "CC-BY-SA-4.0", "CC-BY-NC-4.0")
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert len(train.conversations.load(path, 0)) == 2
    assert len(train.conversations.load(path, 0, share_alike=False)) == 1


def test_documentation_becomes_questions(train: Any) -> None:
    """A documented function becomes a question with the first sentences of its description, markup removed."""
    text = (
        ".. function:: lcm(*integers)\n\n   Return the least common :term:`multiple` of the ``int`` arguments.\n"
        "   See :func:`~math.gcd` too.\n\n   .. versionadded:: 3.9\n"
    )
    ((question, answer),) = train.python_docs.from_source(text, random.Random(0))  # noqa: S311
    assert "`lcm`" in question.text
    assert answer.text == "Return the least common multiple of the `int` arguments. See math.gcd too."


def test_written_answers_are_whole(train: Any) -> None:
    """Every entry of the written file has questions and answers, and no answer is a fragment."""
    entries = list(train.written.from_text((ENGINE / "train" / "written.txt").read_text(encoding="utf-8")))
    assert len(entries) > 90
    for questions, answers in entries:
        assert all(questions)
        assert answers
        assert all(answer[-1] in ".!?" for answer in answers)


def test_tool_conversations_have_the_templates_form(train: Any) -> None:
    """The calls that the model learns from are what the chat template writes for the same messages."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    environment = ImmutableSandboxedEnvironment()
    environment.filters["tojson"] = json.dumps
    template = environment.from_string(train.tokens.CHAT_TEMPLATE)
    for system, question, call, *_ in train.tool_calls.conversations(1, 20):
        tools = [json.loads(line) for line in system.text.splitlines() if line.startswith('{"type"')]
        body = json.loads(call.text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
        messages = [
            {"role": "user", "content": question.text},
            {"role": "assistant", "content": None, "tool_calls": [{"function": body}]},
        ]
        text = template.render(messages=messages, tools=tools, bos_token="<|begin|>")
        expected = "<|begin|>" + "".join(f"<|{t.role}|>{t.text}<|end|>" for t in (system, question, call))
        assert text == expected


def test_exam_questions_are_answered_without_a_claim(train: Any, tmp_path: Path) -> None:
    """Exam questions lose their options and get an answer that names the field only."""
    row = {"prompt": "What is 2?\n\nA. 1\nB. 2", "domain": "mathematics", "licence": "MIT"}
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps(row))
    ((question, answer),) = train.questions.load([path], 0)
    assert question.text == "What is 2?"
    assert "mathematics" in answer.text
