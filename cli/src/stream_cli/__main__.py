"""The `stream` command. Each command imports what it needs when it runs, so that `stream --help` is quick."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_cli import backup_commands, insight_commands, judge
from stream_cli.account_commands import groups_app, limits_app, projects_app, users_app
from stream_cli.batch_commands import batch_app
from stream_cli.capacity.command import capacity
from stream_cli.command import HOME, HomeOption, clear_errors
from stream_cli.key_commands import keys_app
from stream_cli.usage_commands import audit_app, usage
from stream_core.errors import ConfigError, StreamError

if TYPE_CHECKING:
    from stream_cli.chat import Conversation

_BEGUN = time.monotonic()
VERSION = "0.1.0"

app = typer.Typer(
    name="stream",
    help="One OpenAI-compatible endpoint in front of local, HPC and cloud models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help needs no rich, which costs a tenth of a second
    pretty_exceptions_enable=False,  # its local variables could be keys and prompts
)
models_app = typer.Typer(help="Models of the embedded engine.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
app.add_typer(users_app, name="users")
app.add_typer(groups_app, name="groups")
app.add_typer(projects_app, name="projects")
app.add_typer(limits_app, name="limits")
app.add_typer(models_app, name="models")
app.add_typer(batch_app, name="batch")
app.add_typer(judge.app, name="judge")
app.command()(insight_commands.doctor)
app.command()(insight_commands.top)
app.command()(usage)
app.add_typer(audit_app, name="audit")
app.command()(capacity)
app.command()(backup_commands.backup)
app.command()(backup_commands.restore)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"stream-cli {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


@app.command()
def up(
    port: Annotated[
        int | None,
        typer.Option(envvar="STREAM_PORT", min=0, max=65535, help="Of the gateway; 0 takes a free one. [8080]"),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address of the gateway. [127.0.0.1]")] = None,
    config: Annotated[
        Path | None, typer.Option(envvar="STREAM_CONFIG", help="Deployment file. [./stream.yaml, where it exists]")
    ] = None,
    only: Annotated[str, typer.Option(help="Start these programs only, e.g. nats,judge.")] = "",
    home: HomeOption = HOME,
    cloud: Annotated[
        bool, typer.Option("--cloud", help="Use the provider whose key is in the environment; it costs money.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="Of the embedded engine: demo, a path, or a name; looks for no other engine then.")
    ] = "",
    wait: Annotated[float, typer.Option(min=1, help="Seconds until everything must be ready.")] = 180.0,
) -> None:
    """Start everything on this machine; Ctrl-C stops it."""
    with clear_errors():
        from stream_cli.prepare import Options  # noqa: PLC0415
        from stream_cli.terminal import Terminal  # noqa: PLC0415
        from stream_cli.up import up as run  # noqa: PLC0415

        names = tuple(name.strip() for name in only.split(",") if name.strip())
        run(Options(home, host, port, config, names, cloud, model, wait), Terminal(_BEGUN))


@app.command()
def status(home: HomeOption = HOME) -> None:
    """Show what of a running `stream up` is alive; exit code 1 unless everything is."""
    from stream_cli.home import Home  # noqa: PLC0415
    from stream_cli.status import status as look  # noqa: PLC0415

    root = home.expanduser().absolute()
    lines = look(Home(root))
    if not lines:
        typer.echo(f"nothing runs under {root}")
    for line in lines:
        typer.echo(f"{line.name:<14}{'alive' if line.alive else 'DEAD':<7}pid {line.pid:<9}{line.note}".rstrip())
    raise typer.Exit(0 if lines and all(line.alive for line in lines) else 1)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="Deployment file.")] = Path("stream.yaml"),
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of the file instead.")] = False,
) -> None:
    """Check a deployment file; errors name file, line and field."""
    import json  # noqa: PLC0415

    from stream_cli import check as checking  # noqa: PLC0415

    if schema:
        typer.echo(json.dumps(checking.schema(), indent=2))
        return
    try:
        deployment = checking.check(file)
    except ConfigError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{file} is right")
    for line in checking.summary(deployment):
        typer.echo(f"  {line}")


@app.command()
def chat(
    question: Annotated[str | None, typer.Argument(help="Without one: a conversation, until Ctrl-D.")] = None,
    model: Annotated[str, typer.Option(help="auto, a tier, or tier/model.")] = "auto",
    home: HomeOption = HOME,
) -> None:
    """Ask the running gateway, and see who answers."""
    with clear_errors():
        from stream_cli.chat import Conversation, find  # noqa: PLC0415

        conversation = Conversation(find(home), model)
        if question is not None:
            _ask(conversation, question)
            return
    while True:
        try:
            question = input("\n> ")
        except (EOFError, KeyboardInterrupt):
            typer.echo()
            return
        if question.strip():
            try:
                _ask(conversation, question)
            except StreamError as error:
                typer.echo(f"\nstream: {error.message}", err=True)
            except KeyboardInterrupt:
                typer.echo("\n(stopped)")


def _ask(conversation: "Conversation", question: str) -> None:
    import asyncio  # noqa: PLC0415

    def write(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    answered = asyncio.run(conversation.ask(question, write))
    reason = f" ({answered.reason})" if answered.reason else ""
    typer.echo(f"\n\n[{answered.tier}: {answered.model}{reason}]")
    if answered.demo:
        typer.echo("[demo model: answers are not to be believed]")


@models_app.command("list")
def models_list(home: HomeOption = HOME) -> None:
    """List the models on this machine, in the order in which the engine considers them."""
    with clear_errors():
        from stream_cli.models import run  # noqa: PLC0415

        raise typer.Exit(run("models", [], home))


@models_app.command(
    "pull", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def models_pull(context: typer.Context, home: HomeOption = HOME) -> None:
    """Download a model: NAME of the catalogue or org/name[:quantisation]; further options are the engine's."""
    with clear_errors():
        from stream_cli.models import run  # noqa: PLC0415

        raise typer.Exit(run("pull", context.args, home))


def main() -> None:
    """Run the command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
