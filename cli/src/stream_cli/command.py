"""What all commands share: the state folder's option, and errors as one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from stream_core.errors import StreamError

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="STREAM_HOME", show_envvar=False, help="State folder (env STREAM_HOME).")
]
HOME: Final = Path(".stream")


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print one of our errors as its message and leave with code 1."""
    try:
        yield
    except StreamError as error:
        field = f"{error.param}: " if error.param else ""
        typer.echo(f"stream: {field}{error.message}", err=True)
        raise typer.Exit(1) from error
