"""The engine's last words: readable, bounded, without its secrets."""

import pytest

from stream_worker.engine_log import MAX_LINE, MAX_TAIL, EngineLog, secrets_of, tail

KEY = "sk-drawn-for-this-engine"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"", ""),
        (b"one\n\n  two  \r\n", "one\ntwo"),
        (b"start\nLoading shards:  0%\rLoading shards: 40%\r", "start\nLoading shards: 40%"),
        (b"\x1b[1;36m(EngineCore pid=7)\x1b[0;0m INFO ready\x1b]0;title\x07", "(EngineCore pid=7) INFO ready"),
        (b"\xff\xfebell\x07 and nul\x00", "\ufffd\ufffdbell  and nul"),
        (f"api_key={KEY}, again {KEY}".encode(), "api_key=***, again ***"),
    ],
    ids=["nothing", "lines", "a progress bar", "colours", "no text", "the key"],
)
def test_what_is_shown(written, shown):
    """What a terminal would have made of it, without what it must not tell."""
    assert tail(written, frozenset({KEY})) == shown


def test_only_the_end_and_whole_lines(tmp_path):
    """A long log is cut at a line; one endless line is cut anyway."""
    lines = "".join(f"line {number} {'x' * 50}\n" for number in range(1000))
    shown = tail(lines.encode(), frozenset())
    assert shown.startswith("line ")
    assert lines.endswith(shown + "\n")
    assert MAX_TAIL - 100 < len(shown) <= MAX_TAIL
    log = EngineLog(tmp_path / "engine.log", frozenset())
    log.path.write_bytes(b"y" * 100_000)
    assert log.tail() == "y" * MAX_TAIL
    assert log.last_line() == "y" * MAX_LINE


def test_an_earlier_engines_words_are_not_this_ones(tmp_path):
    """After a restart into the same file only the new engine speaks; a file that is not there says nothing."""
    path = tmp_path / "engine.log"
    assert EngineLog(path, frozenset()).tail() == ""
    path.write_bytes(b"the first one died\n")
    log = EngineLog(path, frozenset())
    assert log.tail() == ""
    with path.open("ab") as file:
        file.write(b"the second one starts\n")
    assert log.tail() == "the second one starts"


def test_which_values_are_secret():
    """Its own key, and what the environment names as one; short or ordinary values are words like others."""
    environment = {"HF_TOKEN": "hf_0123456789", "MODEL": "some-model-name", "API_KEY": "short"}
    assert secrets_of(environment, KEY) == {KEY, "hf_0123456789"}
