"""What has been used, and the ledger, as the running gateway tells them."""

import asyncio
import csv
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.table import Table

from stream_cli.chat import find, refusal
from stream_core.audit.verify import Checking
from stream_core.errors import ConfigError, UpstreamUnavailable

MEASURES: Final = ("tokens", "requests", "dollars", "gpu_hours")
_PATIENCE: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=120.0)
_BAR: Final = 30
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_SUMS: Final = ("requests", "prompt_tokens", "completion_tokens", "dollars", "gpu_hours")


@dataclass(frozen=True, slots=True)
class Told:
    """What a verification found."""

    ok: bool
    entries: int
    chains: int
    faults: list[str]


def ask(home: Path, groups: Sequence[str], only: Mapping[str, str]) -> dict[str, Any]:
    """Ask for the usage; errors as of `chat.find`, or the gateway's own words.

    Args:
        home: state folder of `stream up`.
        groups: by what it is added up.
        only: further parameters.
    """
    parameters = [*(("group_by", group) for group in groups), *only.items()]
    return dict(asyncio.run(_json(home, "/usage", parameters)))


def bar(value: float, most: float) -> str:
    """Draw a value as a bar, in eighths of a character; what is not nothing is seen."""
    if most <= 0 or value <= 0:
        return ""
    eighths = max(1, round(value / most * _BAR * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def measure(row: Mapping[str, Any], of: str) -> float:
    """Give what a bar shows of a row."""
    return row["prompt_tokens"] + row["completion_tokens"] if of == "tokens" else float(row[of])


def show(told: Mapping[str, Any], of: str, console: Console | None = None) -> None:
    """Print the rows, each with its bar."""
    rows, groups = told["data"], told["group_by"]
    console = console or Console()
    if not rows:
        console.print(f"nothing was used from {told['first']} to {told['last']}")
        return
    table = Table(box=None, pad_edge=False, title=f"{told['first']} to {told['last']}", title_justify="left")
    for group in groups:
        table.add_column(group)
    for name in ("requests", "prompt", "answer", "dollars", "GPU h"):
        table.add_column(name, justify="right")
    table.add_column(of.replace("_", " "))
    most = max(measure(row, of) for row in rows)
    for row in rows:
        names = [str(row[group]) or "-" for group in groups]
        table.add_row(*names, *_cells(row), bar(measure(row, of), most))
    table.add_row(*["all", *[""] * len(groups)][: len(groups)], *_cells(_total(rows)), "")
    console.print(table)
    if told["has_more"]:
        console.print("there is more: ask for fewer days, or by less")


def write_csv(path: Path, told: Mapping[str, Any]) -> None:
    """Write the rows to a file.

    Raises:
        ConfigError: it can't be written.
    """
    names = [*told["group_by"], *_SUMS]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(told["data"])
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", param="--csv") from error


def export(home: Path, path: Path, parameters: Mapping[str, str]) -> int:
    """Write the ledger to a private file, or to standard output.

    Returns:
        Bytes.

    Raises:
        ConfigError: it can't be written.
    """
    if str(path) == "-":
        return asyncio.run(_stream(home, sys.stdout.fileno(), parameters))
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", param="FILE") from error
    try:
        return asyncio.run(_stream(home, target, parameters))
    finally:
        os.close(target)


def verify_gateway(home: Path) -> Told:
    """Let the gateway check its ledger, with what it remembers of the chains' ends."""
    told = asyncio.run(_json(home, "/audit/verify", []))
    return Told(told["ok"], told["entries"], told["chains"], told["faults"])


def verify_file(path: Path) -> Told:
    """Check an exported ledger here; that its newest entries are there it can't tell.

    Raises:
        ConfigError: it can't be read.
    """
    checking = Checking()
    try:
        with path.open("rb") as file:
            for line in file:
                checking.look(line.rstrip(b"\n"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", param="FILE") from error
    seen = checking.finish()
    return Told(not seen.faults, seen.entries, len(seen.chains), seen.faults)


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['requests']:,}",
        f"{row['prompt_tokens']:,}",
        f"{row['completion_tokens']:,}",
        f"{row['dollars']:,.4f}",
        f"{row['gpu_hours']:,.4f}",
    ]


def _total(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: sum(row[name] for row in rows) for name in _SUMS}


async def _json(home: Path, path: str, parameters: Sequence[tuple[str, str]]) -> Any:
    server = find(home)
    headers = {"Authorization": f"Bearer {server.key}"}
    url = f"{server.base_url}{path}"
    try:
        async with (
            aiohttp.ClientSession(timeout=_PATIENCE, headers=headers) as session,
            session.get(url, params=list(parameters)) as response,
        ):
            if response.status != HTTPStatus.OK:
                raise refusal(response.status, await response.read())
            return await response.json()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UpstreamUnavailable(f"{url}: {error or type(error).__name__}") from error


async def _stream(home: Path, target: int, parameters: Mapping[str, str]) -> int:
    server = find(home)
    headers = {"Authorization": f"Bearer {server.key}"}
    url, size = f"{server.base_url}/audit", 0
    try:
        async with (
            aiohttp.ClientSession(timeout=_PATIENCE, headers=headers) as session,
            session.get(url, params=dict(parameters)) as response,
        ):
            if response.status != HTTPStatus.OK:
                raise refusal(response.status, await response.read())
            async for data in response.content.iter_any():
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(target, rest) :]
                size += len(data)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UpstreamUnavailable(f"{url}: {error or type(error).__name__}") from error
    return size
