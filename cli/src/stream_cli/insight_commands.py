"""`stream doctor` and `stream top`."""

import json
from typing import Annotated

import typer

from stream_cli.command import HOME, HomeOption, clear_errors


def doctor(
    home: HomeOption = HOME,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Check services, config, certificates, broker permissions, clocks and tiers; exit code 1 if any is wrong."""
    from dataclasses import asdict  # noqa: PLC0415

    from stream_cli.doctor import examine  # noqa: PLC0415
    from stream_cli.home import Home  # noqa: PLC0415

    wrong = False
    for finding in examine(Home(home.expanduser().absolute())):
        wrong |= not finding.ok
        if as_json:
            typer.echo(json.dumps(asdict(finding)))
        else:
            typer.echo(f"{'ok' if finding.ok else 'WRONG':<7}{finding.area:<14}{finding.what:<18}{finding.words}")
    raise typer.Exit(1 if wrong else 0)


def top(
    home: HomeOption = HOME,
    at: Annotated[list[str] | None, typer.Option(help="Base URL of a service's numbers; may be repeated.")] = None,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print all since the start, and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: as JSON.")] = False,
) -> None:
    """Show what goes on: streams, tiers, first tokens, pilots."""
    with clear_errors():
        from stream_cli.home import Home  # noqa: PLC0415
        from stream_cli.top import between, look, places  # noqa: PLC0415

        where = places(Home(home.expanduser().absolute()), at or ())
        if once and as_json:
            typer.echo(json.dumps(between(look(where), None).as_json()))
            return
        from stream_cli import top_screen  # noqa: PLC0415

        if once:
            from rich.console import Console  # noqa: PLC0415

            Console(highlight=False).print(top_screen.render(between(look(where), None), live=False))
            return
        top_screen.watch(lambda: look(where), every)
