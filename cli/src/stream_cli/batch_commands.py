"""`stream batch`: the commands. What they do is in `batch`, loaded when one runs."""

from pathlib import Path
from typing import Annotated

import typer

from stream_cli.command import HOME, HomeOption, clear_errors

batch_app = typer.Typer(help="Run a file of requests, at lower priority than conversations.", no_args_is_help=True)
OutputOption = Annotated[Path | None, typer.Option("--output", help="Where answers go. [FILE.results.jsonl]")]


@batch_app.command("run")
def run(
    file: Annotated[Path, typer.Argument(help="JSONL: one request a line, as OpenAI's batch API has them.")],
    model: Annotated[str, typer.Option(help="For all lines, whatever they say.")] = "",
    output: OutputOption = None,
    window: Annotated[str, typer.Option(help="How long it may take: a number and s, m, h or d.")] = "24h",
    watch: Annotated[bool, typer.Option(help="Stay until it has ended; without, print its id and leave.")] = True,
    home: HomeOption = HOME,
) -> None:
    """Upload a file, run it, write answers and errors; exit code 0 when all lines succeeded."""
    with clear_errors():
        from stream_cli.batch import Outputs, Session, goes_on  # noqa: PLC0415

        with Session(home) as session:
            batch = session.start(file, model=model, window=window)
            with goes_on(batch):
                typer.echo(batch)
                if watch:
                    raise typer.Exit(session.follow(batch, Outputs.of(str(file), output)))


@batch_app.command("follow")
def follow(
    batch: Annotated[str, typer.Argument(metavar="ID")],
    output: Annotated[Path | None, typer.Option("--output", help="Where answers go. [ID.results.jsonl]")] = None,
    home: HomeOption = HOME,
) -> None:
    """Follow a batch to its end, and write its answers and errors."""
    with clear_errors():
        from stream_cli.batch import Outputs, Session, goes_on  # noqa: PLC0415

        with Session(home) as session, goes_on(batch):
            raise typer.Exit(session.follow(batch, Outputs.of(batch, output)))


@batch_app.command("cancel")
def cancel(batch: Annotated[str, typer.Argument(metavar="ID")], home: HomeOption = HOME) -> None:
    """Stop a batch: running lines are cut off, finished ones stay."""
    with clear_errors():
        from stream_cli.batch import Session  # noqa: PLC0415

        with Session(home) as session:
            typer.echo(f"{batch} is {session.cancel(batch)}")
