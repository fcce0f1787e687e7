"""The live screen of `stream top`."""

import time
from collections.abc import Callable
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream_cli.top import Look, Now, between

_MS: Final = 1000


def watch(look: Callable[[], Look], every_s: float) -> None:
    """Show what goes on until Ctrl-C.

    Args:
        look: at all programs.
        every_s: seconds between two looks.
    """
    before = look()
    with Live(render(between(before, None), live=False), console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(every_s)
            now = look()
            live.update(render(between(now, before), live=True), refresh=True)
            before = now


def render(now: Now, *, live: bool) -> RenderableType:
    """Draw it.

    Args:
        now: what goes on.
        live: numbers are a second's; else they are all since the programs' start.
    """
    head = Text(f"{now.streams} under way, {now.waiting} waiting, {now.relays} workers connected", style="bold")
    per = "/s" if live else ""
    tiers = Table("tier", "", f"requests{per}", f"failed{per}", f"tokens{per}", "first token p50", "p99", box=None)
    for tier in now.tiers:
        state = Text("up", style="green") if tier.up else Text("away", style="yellow")
        told = (_number(tier.requests), _number(tier.failed), _number(tier.tokens))
        tiers.add_row(tier.name, state, *told, _ms(tier.first_token_p50_s), _ms(tier.first_token_p99_s))
    pools = Table("cluster", "model", "pilots", "running", "waiting", box=None)
    for pool in now.pools:
        pilots = ", ".join(f"{count} {state}" for state, count in pool.pilots.items()) or "none"
        pools.add_row(pool.cluster, pool.model, pilots, str(pool.running), str(pool.waiting))
    parts: list[RenderableType] = [head, Text(), tiers, Text(), pools]
    if now.away:
        parts += [Text(), Text(f"no numbers from {', '.join(now.away)}", style="yellow")]
    return Group(*parts)


def _number(value: float) -> str:
    return f"{value:,.1f}" if value % 1 else f"{value:,.0f}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * _MS:,.0f} ms"
