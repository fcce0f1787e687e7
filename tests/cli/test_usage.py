"""`stream usage` draws what it is told, and `stream audit verify FILE` needs no gateway."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from stream_cli.__main__ import app
from stream_cli.usage import bar, show, write_csv
from stream_core.audit.entries import Chain, Fields

TOLD = {
    "first": "2026-04-01",
    "last": "2026-04-02",
    "group_by": ["day", "tier"],
    "has_more": False,
    "data": [
        {"day": "2026-04-01", "tier": "local", "requests": 2, "prompt_tokens": 30, "completion_tokens": 10}
        | {"dollars": 0.0, "gpu_hours": 0.25},
        {"day": "2026-04-02", "tier": "", "requests": 1, "prompt_tokens": 60, "completion_tokens": 20}
        | {"dollars": 1.5, "gpu_hours": 0.0},
    ],
}


@pytest.mark.parametrize(("value", "drawn"), [(0, ""), (0.001, "▏"), (50, "█" * 15), (100, "█" * 30)])
def test_a_bar(value: float, drawn: str) -> None:
    """Its length is the value's share; what is not nothing is seen."""
    assert bar(value, 100) == drawn


def test_the_table() -> None:
    """Each row has its numbers and its bar, and the sum stands below."""
    screen = io.StringIO()
    show(TOLD, "tokens", Console(file=screen, width=120))
    lines = [line.split() for line in screen.getvalue().splitlines()]
    assert ["2026-04-01", "local", "2", "30", "10", "0.0000", "0.2500", "█" * 15] in lines
    assert ["2026-04-02", "-", "1", "60", "20", "1.5000", "0.0000", "█" * 30] in lines
    assert ["all", "3", "90", "30", "1.5000", "0.2500"] in lines


def test_csv(tmp_path: Path) -> None:
    """The same numbers for programs."""
    write_csv(tmp_path / "usage.csv", TOLD)
    assert (tmp_path / "usage.csv").read_text().splitlines()[1] == "2026-04-01,local,2,30,10,0.0,0.25"


def test_verify_a_file(tmp_path: Path) -> None:
    """A whole ledger is exit code 0, one with an entry changed is 1 and says which."""
    chain = Chain("c")
    lines = [chain.add("opened", 1.0), *(chain.add("request", 1.0, Fields(str(n), 1.0)) for n in range(5))]
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    found = CliRunner().invoke(app, ["audit", "verify", str(path)])
    assert (found.exit_code, found.stdout) == (0, "6 entries in 1 chains: whole\n")
    path.write_bytes(path.read_bytes().replace(b'"id":"2"', b'"id":"9"'))
    found = CliRunner().invoke(app, ["audit", "verify", str(path)])
    assert found.exit_code == 1
    assert "NOT WHOLE" in found.stdout
    assert "entry 4: the entry before it is not the one" in found.output
