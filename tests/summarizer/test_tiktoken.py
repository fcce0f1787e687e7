"""A file of ranks counts as merging by rank does; what is no such file is refused, and its model's counts estimated."""

import base64
import itertools
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from stream_core.errors import ConfigError
from stream_summarizer.tiktoken_file import MAX_BYTES, MAX_TOKEN_BYTES, SPLITS, read_tiktoken_file
from stream_summarizer.tokens import Counter, Counters

from .building import NOON, calling, conversation, counter_of, deployment, said, text

BYTES: Final = [bytes([byte]) for byte in range(256)]
LONGER: Final = [
    *(b"th", b"he", b"the", b" a", b" th", b"at", b"hat", b"ath", b"er", b"us", b"ser", b"user", b"ss", b"'s", b"aa"),
    *(b"aaa", b"aaaaa", b"12", b"123", b"3,", b"..", b"  ", b"\n\n", b" \n", b"\r\n", b"!\n", b"/a", b"<|", b"|>"),
    *("会".encode()[:2], "会".encode(), "议".encode()[1:], "会议".encode(), "\u017f".encode(), "\u3000".encode()),
]
"""Some overlap, some are halves of a letter, and some can be made of two pairs."""
marks: Final = st.text(alphabet="ahtuser1 .'!/\n\r\t\u3000\u017f\u0301S", max_size=60)


def written(tokens: list[bytes]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


def ranks_file(folder: Path, stem: str, tokens: list[bytes]) -> Path:
    path = folder / f"{stem}.tiktoken"
    path.write_bytes(written(tokens))
    return path


def merged(piece: bytes, ranks: dict[bytes, int]) -> int:
    """Count by the definition: of neighbours that make a token the lowest rank is merged first, from the left."""
    if piece in ranks:
        return 1
    parts = [piece[at : at + 1] for at in range(len(piece))]
    while found := [(ranks[a + b], at) for at, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in ranks]:
        at = min(found)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return len(parts)


def pieces(stem: str, whole: str) -> list[str]:
    return [piece for piece, _ in pre_tokenizers.Split(Regex(SPLITS[stem]), "isolated").pre_tokenize_str(whole)]


@pytest.fixture(scope="module", params=sorted(SPLITS))
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Counter]:
    """Return a known name, and the counter by a small file of that name."""
    stem: str = request.param
    return stem, counter_of(ranks_file(tmp_path_factory.mktemp(stem), stem, BYTES + LONGER))


@settings(deadline=None, max_examples=150)
@given(whole=text | marks)
@example(whole="aaaaaaaa!\n/a")
@example(whole="aaaaaaaa \n th \r\n\n  ")
def test_it_counts_as_the_definition_does(named: tuple[str, Counter], whole: str) -> None:
    """A text has as many tokens as the naive merging of its pieces makes, counted by lines or not."""
    stem, counter = named
    ranks = {token: rank for rank, token in enumerate(BYTES + LONGER)}
    assert counter.exact
    assert counter.text(whole) == sum(merged(piece.encode(), ranks) for piece in pieces(stem, whole))


@settings(deadline=None, max_examples=60)
@given(tokens=st.lists(st.binary(min_size=2, max_size=6).map(bytes.lower), max_size=40, unique=True), data=st.data())
def test_any_ranks(tmp_path_factory: pytest.TempPathFactory, tokens: list[bytes], data: st.DataObject) -> None:
    """Ranks in no order that training gives merge by the definition, too: every pair counts that makes a token."""
    word = data.draw(st.text(alphabet="abc", min_size=1, max_size=12))
    tokens += [
        cut for cut in {word[a : a + n].encode() for a in range(9) for n in (2, 3)} - set(tokens) if len(cut) > 1
    ]
    path = ranks_file(tmp_path_factory.mktemp("any"), "cl100k_base", BYTES + data.draw(st.permutations(tokens)))
    ranks = {base64.b64decode(line.split()[0]): rank for rank, line in enumerate(path.read_bytes().splitlines())}
    assert len(read_tiktoken_file(path).encode(word)) == merged(word.encode(), ranks)


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("cl100k_base", ["He", "'ll", " pay", " ", "123", "45", ".", " It", "'\u017f", "\r\n", " ", " so"]),
        ("cl100k_base", ["a", "!\n\n", "/b", " \n", "HTMLparser", "'S", "  \n\t "]),
        ("o200k_base", ["He'll", " pay", " ", "123", "45", ".", " It'\u017f", "\r\n", " ", " so"]),
        ("o200k_base", ["a", "!\n\n/", "b", " \n", "HTMLparser'S", "  \n", "\t "]),
        ("o200k_base", ["camel", "Case", " ne\u0301", "+\u0301x\u0928\u094d\u0926\u0940"]),
        ("cl100k_base", ["camelCase", " ne", "\u0301+\u0301", "x\u0928", "\u094d\u0926", "\u0940"]),
    ],
)
def test_it_splits_as_published(stem: str, expected: list[str]) -> None:
    """Each row: a name, and the pieces into which tiktoken 0.14 splits their text."""
    assert pieces(stem, "".join(expected)) == expected


@pytest.mark.parametrize(
    ("messages", "tools", "tokens", "exact"),
    [
        ([said("user", "Hi!")], [], 3 + (3 + 4 + 3), True),
        (
            [said("system", ""), said("user", "é"), said("assistant", "b")],
            [],
            3 + (3 + 6) + (3 + 4 + 2) + (3 + 9 + 1),
            True,
        ),
        ([said("user", "Hi!") | {"name": "Bo", "tool_calls": None}], [], 3 + (3 + 4 + 3) + (1 + 2), True),
        ([said("user", "<|im_start|>")], [], 3 + (3 + 4 + 12), True),
        ([said("user", [{"type": "text", "text": "Hi!"}])], [], 3 + (3 + 4 + 3), False),
        ([said("user", "Hi!"), calling("a")], [], None, False),
        ([said("user", "Hi!")], [{"type": "function", "function": {"name": "look_up"}}], None, False),
    ],
)
def test_a_prompt_by_the_published_frame(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]], tokens: int | None, exact: bool, tmp_path: Path
) -> None:
    """Each row: a prompt, its tokens where each byte is one (None: not published), and whether that is exact."""
    talk = conversation(messages, tools)
    count = counter_of(ranks_file(tmp_path, "o200k_base", BYTES)).prompt(talk.messages, talk.tools)
    assert count.exact is exact
    if tokens is None:
        assert count.tokens > 3 + (3 + 4 + 3)
    else:
        assert count.tokens == tokens


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("p50k_base", written(BYTES), r"known are \['cl100k_base', 'o200k_base'\]"),
        ("cl100k_base", b"", "256 of the 256 single bytes are no tokens"),
        ("cl100k_base", written(BYTES[:-1]), "1 of the 256 single bytes"),
        ("cl100k_base", written(BYTES)[:-2], "line 256 has the rank of another"),
        ("cl100k_base", written(BYTES)[:-4], "line 256 is no token"),
        ("cl100k_base", b"\x00\xff\xfe", "line 1 is no token"),
        ("cl100k_base", b"YQ== 0 1\n", "line 1 is no token"),
        ("cl100k_base", b"Y!Q== 0\n", "line 1 is no token"),
        ("cl100k_base", b"YQ== 1e3\n", "line 1 is no token"),
        ("cl100k_base", written([*BYTES, b"a"]), "twice"),
        ("cl100k_base", written([bytes(MAX_TOKEN_BYTES + 1)]), "1,025 bytes, at most 1,024"),
        ("cl100k_base", b"\n" * (MAX_BYTES + 1), "more than 16,777,216 bytes"),
    ],
    ids=itertools.count(),
)
def test_refused(name: str, data: bytes, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each row: what is no usable file of ranks, and the words that say so; its model's counts are estimates."""
    path = tmp_path / f"{name}.tiktoken"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=f"tokenizer: .*{words}"):
        read_tiktoken_file(path)
    assert not counter_of(path).exact
    assert "token counts are estimates: tokenizer: " in caplog.text


def test_a_missing_file_is_refused_at_the_start(tmp_path: Path) -> None:
    """A configured file that is not there ends the program, with its name."""
    with pytest.raises(ConfigError, match=r"no o200k_base.tiktoken in "):
        Counters(deployment(tmp_path / "o200k_base.tiktoken"), 1600, lambda: NOON)
