"""`stream keys`: in the store of a running gateway, else in the key file, which needs none."""

import time
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from stream_cli.command import HOME, HomeOption, clear_errors

keys_app = typer.Typer(help="API keys of the gateway.", no_args_is_help=True)
KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `stream keys list` shows it.")]
TiersOption = Annotated[str, typer.Option(help="Tiers it may use, e.g. local,hpc. [all]")]
ModelsOption = Annotated[str, typer.Option(help="Models it may use. [all]")]
ClustersOption = Annotated[str, typer.Option(help="Clusters it may use on tiers of kind hpc. [all]")]
PrivacyOption = Annotated[str | None, typer.Option(help="Class of all its requests. [the policy's default]")]
LimitsOption = Annotated[
    list[str] | None, typer.Option(help="What it may spend, e.g. requests_per_minute=60,dollars_per_month=5.")
]


@keys_app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    tiers: TiersOption = "",
    privacy: PrivacyOption = None,
    clusters: ClustersOption = "",
    models: ModelsOption = "",
    full_context: Annotated[bool, typer.Option(help="Never condense its conversations.")] = False,
    expires: Annotated[str, typer.Option(help="90d, 12h, or a day such as 2027-01-31. [never]")] = "",
    user: Annotated[str, typer.Option(help="Id of the user whose it is.")] = "",
    project: Annotated[str, typer.Option(help="Id of the project that it works for.")] = "",
    limits: LimitsOption = None,
    admin: Annotated[bool, typer.Option(help="Let it use the admin API.")] = False,
    home: HomeOption = HOME,
) -> None:
    """Make a key; it is shown once."""
    with clear_errors():
        from stream_cli import accounts, keys  # noqa: PLC0415
        from stream_cli.home import open_home  # noqa: PLC0415
        from stream_core.errors import ConfigError  # noqa: PLC0415

        now = time.time()
        fields: dict[str, Any] = {
            "tiers": accounts.names(tiers),
            "models": accounts.names(models),
            "clusters": accounts.names(clusters),
            "privacy": privacy,
            "expires": accounts.moment(expires, now) if expires else None,
            "admin": admin,
        }
        told = accounts.limits(limits or ())
        running = accounts.Admin.running(home)
        if running is not None:
            fields |= {"name": name, "user": user, "project": project, "whole": full_context, "limits": told}
            key = str(running.ask("POST", "/keys", fields)["key"])
        elif user or project:
            words = "users and projects are the gateway's: start `stream up` first"
            raise ConfigError(words, param="--user" if user else "--project")
        else:
            key = keys.create(open_home(home).keys, name, now=now, whole=full_context, limits=told, **fields)
        typer.echo(key)
        typer.echo("This is the only time it is shown.", err=True)


@keys_app.command("list")
def list_keys(home: HomeOption = HOME) -> None:
    """List keys, without the keys themselves."""
    with clear_errors():
        from stream_cli import accounts, keys  # noqa: PLC0415
        from stream_cli.home import Home  # noqa: PLC0415

        running = accounts.Admin.running(home)
        if running is not None:
            found = running.all("keys")
        else:
            found = [keys.shown(record) for record in keys.read(Home(home.expanduser().absolute()).keys)]
        for key in found:
            made = time.strftime("%Y-%m-%d", time.gmtime(key["created"]))
            may = accounts.allowed(key) + (" (never condensed)" if key["whole"] else "")
            may += " (admin)" if key["admin"] else ""
            words = (key["id"], f"{key['prefix']}...", made, _state(key, time.time()), may)
            more = [accounts.bounded(key), key.get("user"), key.get("project")]
            typer.echo("  ".join([*words, key["privacy"] or "default", *filter(None, more), key["name"]]))


@keys_app.command("revoke")
def revoke(key_id: KeyId, home: HomeOption = HOME) -> None:
    """Revoke a key for good."""
    with clear_errors():
        from stream_cli import accounts, keys  # noqa: PLC0415
        from stream_cli.home import Home  # noqa: PLC0415

        path = Home(home.expanduser().absolute()).keys
        running = accounts.Admin.running(home)
        of_file = any(record.id == key_id for record in keys.read(path))
        if of_file or running is None:
            name = keys.revoke(path, key_id).name
        else:
            name = running.ask("POST", f"/keys/{quote(key_id, safe='')}/revoke")["name"]
        typer.echo(f"{key_id} ({name}) is revoked")


@keys_app.command("rotate")
def rotate(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(help="How long the old one goes on: a number and s, m, h or d.")] = "24h",
    home: HomeOption = HOME,
) -> None:
    """Exchange a key for a new one with the same rights, files and batches; the new one is shown once."""
    with clear_errors():
        from stream_cli import accounts, keys  # noqa: PLC0415
        from stream_cli.home import Home  # noqa: PLC0415
        from stream_core.errors import ConfigError  # noqa: PLC0415

        if any(record.id == key_id for record in keys.read(Home(home.expanduser().absolute()).keys)):
            words = f"{key_id} is a key of the key file, which can't be exchanged: make another one, then revoke it"
            raise ConfigError(words, param="id")
        body = {"overlap_s": accounts.seconds(overlap, "--overlap")}
        path = f"/keys/{quote(key_id, safe='')}/rotate"
        made = accounts.Admin.of(home).ask("POST", path, body)
        typer.echo(made["key"])
        typer.echo(f"This is the only time it is shown. {key_id} goes on for {overlap}.", err=True)


def _state(key: Mapping[str, Any], now: float) -> str:
    if key["revoked"] is not None:
        return "revoked"
    if key["expires"] is not None and key["expires"] <= now:
        return "expired"
    until = key.get("valid_until")
    if until is None:
        return "valid"
    return f"replaced by {key['replaced_by']}" + (" (still valid)" if until > now else "")
