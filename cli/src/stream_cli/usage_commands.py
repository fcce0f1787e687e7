"""`stream usage` and `stream audit`: the commands. What they do is in `usage`, loaded when one runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from stream_cli.command import HOME, HomeOption, clear_errors
from stream_core.errors import ConfigError

audit_app = typer.Typer(help="The ledger of requests: who, where to, what it cost. For administrators.")
_From = Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD, UTC. [30 days ago]")]
_To = Annotated[str, typer.Option("--to", help="Last day. [today]")]


def usage(
    by: Annotated[
        str, typer.Option(help="Add up by day, key, user, project, tier, model; a list with commas.")
    ] = "day",
    of: Annotated[str, typer.Option(help="What the bars show: tokens, requests, dollars, gpu_hours.")] = "tokens",
    first: _From = "",
    last: _To = "",
    user: Annotated[str, typer.Option(help="Of this user only; for administrators.")] = "",
    project: Annotated[str, typer.Option(help="Of this project only.")] = "",
    key: Annotated[str, typer.Option(help="Of this key only.")] = "",
    csv: Annotated[Path | None, typer.Option("--csv", help="Write it there instead.")] = None,
    home: HomeOption = HOME,
) -> None:
    """Show what has been used, with bars: your own usage, or as an administrator everybody's."""
    with clear_errors():
        from stream_cli import usage as using  # noqa: PLC0415

        if of not in using.MEASURES:
            raise ConfigError(f"{of!r} is not one of {', '.join(using.MEASURES)}", param="--of")
        groups = [name.strip() for name in by.split(",") if name.strip()]
        only = {"user": user, "project": project, "key": key, "from": first, "to": last}
        told = using.ask(home, groups, {name: value for name, value in only.items() if value})
        if csv is not None:
            using.write_csv(csv, told)
            typer.echo(f"{csv}: {len(told['data']):,} rows")
        else:
            using.show(told, of)


@audit_app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="Made with mode 0600; `-` is standard output.")],
    form: Annotated[str, typer.Option("--format", help="jsonl, which can be verified, or csv.")] = "jsonl",
    first: _From = "",
    last: _To = "",
    home: HomeOption = HOME,
) -> None:
    """Write the ledger to a file."""
    with clear_errors():
        from stream_cli import usage as using  # noqa: PLC0415

        if form not in {"jsonl", "csv"}:
            raise ConfigError(f"{form!r} is neither jsonl nor csv", param="--format")
        only = {"form": form, "from": first, "to": last}
        count = using.export(home, file, {name: value for name, value in only.items() if value})
        if str(file) != "-":
            typer.echo(f"{file}: {count:,} bytes")


@audit_app.command("verify")
def verify(
    file: Annotated[Path | None, typer.Argument(help="A whole ledger as JSONL; without one the gateway's.")] = None,
    home: HomeOption = HOME,
) -> None:
    """Check that nothing was taken out, put in, changed or moved; exit code 1 if something was."""
    with clear_errors():
        from stream_cli import usage as using  # noqa: PLC0415

        told = using.verify_file(file) if file is not None else using.verify_gateway(home)
        typer.echo(f"{told.entries:,} entries in {told.chains:,} chains: {'whole' if told.ok else 'NOT WHOLE'}")
        for fault in told.faults:
            typer.echo(f"  {fault}", err=True)
        sys.stdout.flush()
        raise typer.Exit(0 if told.ok else 1)
