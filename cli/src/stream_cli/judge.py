"""`stream judge`: the judge's own commands, as child processes with our input, output and exit code."""

import subprocess
import sys
from importlib.util import find_spec

import typer

app = typer.Typer(help="Fit the judge to your own outcomes; plan what goes to the cloud.", no_args_is_help=True)
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command("calibrate", context_settings=_PASSED_ON)
def calibrate(context: typer.Context) -> None:
    """Fit the judge to outcomes: FILE of JSONL with prompt, tier, good; --picture draws the reliability."""
    raise typer.Exit(_run("calibrate", context.args))


@app.command("plan", context_settings=_PASSED_ON)
def plan(context: typer.Context) -> None:
    """Pick the threshold for a GOAL such as "at most 15 % to the cloud"; --picture draws the curve."""
    raise typer.Exit(_run("plan", context.args))


def _run(module: str, arguments: list[str]) -> int:
    if find_spec("stream_judge") is None:
        typer.echo(f"stream: stream_judge is not installed beside {sys.executable}; run `make up`", err=True)
        return 1
    command = [sys.executable, "-m", f"stream_judge.{module}", *arguments]
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 130  # the terminal's Ctrl-C reached the child as well
