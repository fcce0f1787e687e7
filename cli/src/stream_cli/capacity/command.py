"""`stream capacity`: the plan as a table, or as JSON."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import typer

from stream_cli.command import clear_errors
from stream_core.errors import ConfigError


def capacity(
    streams: Annotated[int, typer.Option(help="Open at once.")],
    tokens_per_s: Annotated[float, typer.Option(help="Of one stream.")] = 40.0,
    clusters: Annotated[int, typer.Option(help="HPC clusters.")] = 1,
    answer_tokens: Annotated[float, typer.Option(help="Of an answer, on average.")] = 400.0,
    judged: Annotated[float, typer.Option(help="Share of requests that ask for auto.")] = 1.0,
    condensed: Annotated[float, typer.Option(help="Share of requests whose conversation is condensed.")] = 0.05,
    streams_per_worker: Annotated[int, typer.Option(help="Requests that a worker's engine runs at once.")] = 64,
    together: Annotated[float, typer.Option(help="Tokens of one worker for one gateway at the same time.")] = 1.0,
    use: Annotated[float, typer.Option(help="Share of a core that may be busy.")] = 0.6,
    spare: Annotated[int, typer.Option(help="Replicas more than needed.")] = 1,
    nats_cores: Annotated[int, typer.Option(help="Of a NATS node.")] = 8,
    nic_gbit: Annotated[float, typer.Option(help="Of a network card.")] = 10.0,
    costs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Output of bench-capacity, bench-judge-rpc or bench-summarizer, instead of what is built in."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Size every part for a load, from measured costs: replicas, cores, memory, bandwidth, and what ends first."""
    with clear_errors():
        from stream_cli.capacity.costs import load as load_costs  # noqa: PLC0415  (`stream --help` needs none of it)
        from stream_cli.capacity.plan import Hardware, Load, plan  # noqa: PLC0415

        planned = plan(
            Load(streams, tokens_per_s, clusters, answer_tokens, judged, condensed, streams_per_worker, together),
            Hardware(use, spare, nats_cores, nic_gbit),
            load_costs([(str(path), _read(path)) for path in costs or []]),
        )
        if as_json:
            import json  # noqa: PLC0415

            told = dataclasses.asdict(planned)
            for need in told["needs"]:
                need["headroom"] = None if math.isinf(need["headroom"]) else need["headroom"]
            typer.echo(json.dumps(told, indent=2))
            return
        row = "{:<13} {:>9} {:>10} {:>11} {:>9}   {}"
        typer.echo(f"{streams:,} streams of {tokens_per_s:g} tokens/s on {clusters} cluster(s)\n")
        typer.echo(row.format("part", "replicas", "cores", "memory GiB", "Gbit/s", "from"))
        for need in planned.needs:
            numbers = (f"{need.replicas:,}", f"{need.cores:,.1f}", f"{need.memory_gib:,.1f}", f"{need.gbit:,.2f}")
            typer.echo(row.format(need.part, *numbers, need.basis))
        typer.echo(f"\nNATS: {planned.layout}\nFirst end: {planned.bottleneck}\nAssumed:")
        for assumption in planned.assumptions:
            typer.echo(f"  - {assumption}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read {path}: {error}", param="--costs") from error
