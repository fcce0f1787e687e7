"""`stream backup` and `stream restore`: the commands. What they do is in `backup`, loaded when one runs."""

from pathlib import Path
from typing import Annotated

import typer

from stream_cli.command import HOME, HomeOption, clear_errors

_Config = Annotated[
    Path | None, typer.Option(envvar="STREAM_CONFIG", help="Deployment file. [./stream.yaml, where it exists]")
]


def backup(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="To be made; readable by its owner only.")],
    config: _Config = None,
    home: HomeOption = HOME,
) -> None:
    """Save accounts, ledger, files, batches, responses and leases, while everything runs; secrets are not in it."""
    with clear_errors():
        from stream_cli.backup import Work, run  # noqa: PLC0415

        raise typer.Exit(run(Work(home, ("save", str(folder.absolute())), config, alone=False)))


def restore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Of a backup.")],
    replace: Annotated[bool, typer.Option("--replace", help="Delete what is there.")] = False,
    replicas: Annotated[int, typer.Option(min=0, max=5, help="Copies of each stream; 0: as before.")] = 0,
    config: _Config = None,
    home: HomeOption = HOME,
) -> None:
    """Bring a backup back, with `stream up` stopped; whatever is there is left alone without --replace."""
    with clear_errors():
        from stream_cli.backup import Work, run  # noqa: PLC0415

        arguments = ["load", str(folder.absolute())]
        arguments += ["--replace"] if replace else []
        arguments += ["--replicas", str(replicas)] if replicas else []
        raise typer.Exit(run(Work(home, arguments, config, alone=True)))
