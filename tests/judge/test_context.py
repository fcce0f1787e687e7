"""Which text of a conversation is judged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_judge.context import Turn, is_courtesy, refers_back, select
from stream_judge.excerpt import PIECES, WHOLE, excerpt

HARD = "Prove that every finite group of odd order is solvable."
EASY = "What is the capital of France?"


def talk(*messages: str) -> list[Turn]:
    """Alternate user and assistant turns, the user first."""
    return [Turn("assistant" if index % 2 else "user", text) for index, text in enumerate(messages)]


@pytest.mark.parametrize(
    "message",
    [
        "continue",
        "Continue, please.",
        "go on",
        "and in French?",
        "And what about the even case?",
        "now prove it",
        "Now do the same for three dimensions.",
        "why?",
        "Why not?",
        "explain that",
        "Can you fix it?",
        "shorter",
        "in German",
        "yes, please do",
        "what if n is negative?",
        "Translate your answer to Spanish",
        "is that right?",
        "weiter",
        "et en anglais ?",
        "继续",
        "more details",
    ],
)
def test_refers_back(message: str) -> None:
    """A message that needs what was said before it inherits the thread's question."""
    assert refers_back(message)
    question = select(talk(HARD, "A proof.", message))
    assert question.inherited
    assert question.text == f"{HARD}\n\n{message}"
    assert question.depth == 2


@pytest.mark.parametrize(
    "message",
    [
        "Why is the sky blue?",
        "What is the capital of France?",
        "Write a Python function that merges two sorted lists.",
        "How do I make bread without yeast?",
        "What time is it in Tokyo?",
        "In which year did the war end?",
        "Expand (x+1)^3 into a polynomial",
        "A long message that happens to say it and that, but which stands on its own: " + "words " * 30,
    ],
)
def test_stands_on_its_own(message: str) -> None:
    """A message that can be understood alone is judged alone, whatever came before."""
    assert not refers_back(message)
    question = select(talk(HARD, "A proof.", message))
    assert (question.text, question.inherited) == (message, False)


@pytest.mark.parametrize("message", ["thanks!", "Thank you so much", "hi", "Great", "Danke!", "ありがとう"])
def test_courtesy_inherits_nothing(message: str) -> None:
    """Thanks in a hard thread are judged as thanks."""
    assert is_courtesy(message)
    assert not select(talk(HARD, "A proof.", message)).inherited


def test_chain_leads_to_the_anchor() -> None:
    """Several messages that lean on each other all count, the oldest first, courtesies between them do not."""
    question = select(talk(HARD, "…", "thanks!", "…", "now in detail", "…", "and in French?"))
    assert question.text == f"{HARD}\n\nnow in detail\n\nand in French?"
    assert question.length == len(HARD) + len("now in detail") + len("and in French?")


def test_long_chain_is_bounded() -> None:
    """However long a thread of "continue" is, the anchor and the nearest messages are what is judged."""
    question = select(talk(HARD, *(["…", "continue"] * 40)))
    assert question.text.startswith(HARD)
    assert question.text.count("continue") == 4


def test_without_an_anchor_the_assistant_is_the_thread() -> None:
    """When the tail holds no question of the user's, the answer that is continued sets the difficulty."""
    question = select([Turn("assistant", "Let G be a minimal counterexample."), Turn("user", "go on")])
    assert question.text == "Let G be a minimal counterexample.\n\ngo on"


def test_other_roles_are_not_judged() -> None:
    """System prompts and tool results do not change the text that is judged."""
    turns = [Turn("system", HARD), Turn("user", EASY), Turn("assistant", ""), Turn("tool", HARD)]
    assert select(turns).text == EASY


@pytest.mark.parametrize("turns", [[], [Turn("user", "")], [Turn("user", " \n"), Turn("assistant", "")]])
def test_nothing_said(turns: list[Turn]) -> None:
    """A conversation without text gives an empty question, not an error."""
    assert select(turns).text == ""


def test_only_a_system_prompt() -> None:
    """Without any user turn the last text there is gets judged."""
    assert select([Turn("system", "You are kind.")]).text == "You are kind."


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "tool", "?"]), st.text(max_size=200))))
def test_any_conversation(turns: list[tuple[str, str]]) -> None:
    """Any conversation gives one bounded question, always the same."""
    conversation = [Turn(role, text) for role, text in turns]
    question = select(conversation)
    assert question == select(conversation)
    assert len(question.text) <= WHOLE + 1000
    assert question.depth <= len(turns)


def test_excerpt_is_bounded_and_sees_all_parts() -> None:
    """Of a megabyte, head, tail and pieces from all over are read; a short text is read whole."""
    text = "".join(f"{number:07d} " for number in range(130_000))
    cut = excerpt(text)
    assert WHOLE <= len(cut) <= WHOLE + 10
    assert cut.startswith(text[:1000])
    assert cut.endswith(text[-1000:])
    assert {int(word) * PIECES // 130_000 for word in cut.split() if len(word) == 7} == set(range(PIECES))
    assert excerpt(text[:WHOLE]) == text[:WHOLE]
