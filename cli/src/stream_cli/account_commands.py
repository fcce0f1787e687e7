"""`stream users`, `groups`, `projects` and `limits`: what the running gateway's store knows, and how it is changed."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from stream_cli.command import HOME, HomeOption, clear_errors
from stream_cli.key_commands import ClustersOption, LimitsOption, ModelsOption, PrivacyOption, TiersOption

users_app = typer.Typer(help="Users of the running gateway.", no_args_is_help=True)
groups_app = typer.Typer(help="Groups of users, who may use the same.", no_args_is_help=True)
projects_app = typer.Typer(help="Projects that keys and users work for.", no_args_is_help=True)
limits_app = typer.Typer(help="What keys, users and projects may spend.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="For people.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]
UserId = Annotated[str, typer.Argument(metavar="USER", help="As `stream users list` shows it.")]
Kind = Annotated[str, typer.Argument(metavar="KIND", help="key, user or project.")]
EnabledOption = Annotated[bool | None, typer.Option("--enable/--disable", help="Let it in, or nobody through it.")]


def _ask(home: Path, method: str, path: str, **body: Any) -> Any:
    from stream_cli.accounts import Admin  # noqa: PLC0415

    return Admin.of(home).ask(method, path, body or None)


def _may(tiers: str, models: str, clusters: str, privacy: str | None) -> dict[str, Any]:
    """Write what somebody may use: what was given."""
    from stream_cli.accounts import names  # noqa: PLC0415

    lists = {"tiers": names(tiers), "models": names(models), "clusters": names(clusters), "privacy": privacy}
    return {name: value for name, value in lists.items() if value is not None}


def _limited(given: list[str] | None) -> dict[str, Any]:
    from stream_cli.accounts import limits  # noqa: PLC0415

    return {"limits": limits(given)} if given else {}


def _list(kind: str, home: Path, *more: str) -> None:
    from stream_cli.accounts import Admin, allowed, bounded  # noqa: PLC0415

    for account in Admin.of(home).all(kind):
        state = ["disabled"] if account.get("disabled") else []
        state += ["admin"] if account.get("admin") else []
        told = [str(account[name]) for name in more if account[name]]
        words = [account["id"], *state, allowed(account), account["privacy"] or "default", bounded(account), *told]
        typer.echo("  ".join([word for word in words if word] + [account["name"]]))


def _part(kind: str, id_: str) -> str:
    return f"/{kind}{_step(id_)}"


def _step(name: str) -> str:
    return f"/{quote(name, safe='')}"


@users_app.command("create")
def users_create(
    name: Name,
    email: Annotated[str, typer.Option(help="Where to reach them.")] = "",
    issuer: Annotated[str, typer.Option(help="Who vouches for them in tokens; with --subject.")] = "",
    subject: Annotated[str, typer.Option(help="Their `sub` there.")] = "",
    admin: Annotated[bool, typer.Option(help="Let their tokens use the admin API.")] = False,
    tiers: TiersOption = "",
    models: ModelsOption = "",
    clusters: ClustersOption = "",
    privacy: PrivacyOption = None,
    limits: LimitsOption = None,
    home: HomeOption = HOME,
) -> None:
    """Add a user and print the id; users of identity providers add themselves with their first token."""
    with clear_errors():
        told = {"name": name, "email": email, "issuer": issuer, "subject": subject, "admin": admin}
        may = _may(tiers, models, clusters, privacy)
        typer.echo(_ask(home, "POST", "/users", **told, **may, **_limited(limits))["id"])


@users_app.command("list")
def users_list(home: HomeOption = HOME) -> None:
    """List users."""
    with clear_errors():
        _list("users", home, "email", "issuer")


@users_app.command("change")
def users_change(
    id_: Id,
    enabled: EnabledOption = None,
    admin: Annotated[bool | None, typer.Option("--admin/--no-admin", help="Whether their tokens are admins'.")] = None,
    tiers: TiersOption = "",
    models: ModelsOption = "",
    clusters: ClustersOption = "",
    privacy: PrivacyOption = None,
    home: HomeOption = HOME,
) -> None:
    """Change a user; what is left out stays."""
    with clear_errors():
        told = {} if enabled is None else {"disabled": not enabled}
        told |= {} if admin is None else {"admin": admin}
        _ask(home, "PATCH", _part("users", id_), **told, **_may(tiers, models, clusters, privacy))
        typer.echo(f"{id_} is changed")


@groups_app.command("create")
def groups_create(
    name: Name,
    tiers: TiersOption = "",
    models: ModelsOption = "",
    clusters: ClustersOption = "",
    privacy: PrivacyOption = None,
    home: HomeOption = HOME,
) -> None:
    """Add a group and print its id; whose token names a group of this name is in it."""
    with clear_errors():
        typer.echo(_ask(home, "POST", "/groups", name=name, **_may(tiers, models, clusters, privacy))["id"])


@groups_app.command("list")
def groups_list(home: HomeOption = HOME) -> None:
    """List groups."""
    with clear_errors():
        _list("groups", home)


@groups_app.command("delete")
def groups_delete(id_: Id, home: HomeOption = HOME) -> None:
    """Delete a group; its users stay."""
    with clear_errors():
        _ask(home, "DELETE", _part("groups", id_))
        typer.echo(f"{id_} is deleted")


@projects_app.command("create")
def projects_create(
    name: Name,
    tiers: TiersOption = "",
    models: ModelsOption = "",
    clusters: ClustersOption = "",
    privacy: PrivacyOption = None,
    limits: LimitsOption = None,
    keep_content: Annotated[
        bool, typer.Option(help="Write its contents into the audit log, as far as their class allows.")
    ] = False,
    home: HomeOption = HOME,
) -> None:
    """Add a project and print its id."""
    with clear_errors():
        told = {"name": name, "keeps_content": keep_content, **_may(tiers, models, clusters, privacy)}
        typer.echo(_ask(home, "POST", "/projects", **told, **_limited(limits))["id"])


@projects_app.command("list")
def projects_list(home: HomeOption = HOME) -> None:
    """List projects."""
    with clear_errors():
        _list("projects", home)


@projects_app.command("change")
def projects_change(
    id_: Id,
    enabled: EnabledOption = None,
    keep_content: Annotated[
        bool | None, typer.Option(help="Write its contents into the audit log, as far as their class allows.")
    ] = None,
    tiers: TiersOption = "",
    models: ModelsOption = "",
    clusters: ClustersOption = "",
    privacy: PrivacyOption = None,
    home: HomeOption = HOME,
) -> None:
    """Change a project; what is left out stays."""
    with clear_errors():
        told = {} if enabled is None else {"disabled": not enabled}
        told |= {} if keep_content is None else {"keeps_content": keep_content}
        _ask(home, "PATCH", _part("projects", id_), **told, **_may(tiers, models, clusters, privacy))
        typer.echo(f"{id_} is changed")


@groups_app.command("join")
def groups_join(id_: Id, user: UserId, home: HomeOption = HOME) -> None:
    """Put a user into a group."""
    _enrol(home, "PUT", "groups", id_, user)


@groups_app.command("leave")
def groups_leave(id_: Id, user: UserId, home: HomeOption = HOME) -> None:
    """Take a user out of a group."""
    _enrol(home, "DELETE", "groups", id_, user)


@projects_app.command("join")
def projects_join(id_: Id, user: UserId, home: HomeOption = HOME) -> None:
    """Put a user into a project."""
    _enrol(home, "PUT", "projects", id_, user)


@projects_app.command("leave")
def projects_leave(id_: Id, user: UserId, home: HomeOption = HOME) -> None:
    """Take a user out of a project."""
    _enrol(home, "DELETE", "projects", id_, user)


def _enrol(home: Path, method: str, kind: str, id_: str, user: str) -> None:
    with clear_errors():
        _ask(home, method, _part(kind, id_) + _part("members", user))
        typer.echo(f"{user} is {'in' if method == 'PUT' else 'not in'} {id_}")


@limits_app.command("show")
def limits_show(kind: Kind, id_: Id, home: HomeOption = HOME) -> None:
    """Show the limits of a key, user or project."""
    with clear_errors():
        for name, value in _ask(home, "GET", _part("limits", kind) + _step(id_))["limits"].items():
            typer.echo(f"{name}={'none' if value is None else f'{value:g}'}")


@limits_app.command("set")
def limits_set(
    kind: Kind,
    id_: Id,
    limits: Annotated[list[str], typer.Argument(metavar="NAME=NUMBER...", help="`none` takes a limit away.")],
    home: HomeOption = HOME,
) -> None:
    """Set limits; those that are not named stay."""
    with clear_errors():
        from stream_cli import accounts  # noqa: PLC0415

        told = accounts.limits(limits)
        path = _part("limits", kind) + _step(id_)
        kept = _ask(home, "GET", path)["limits"]
        _ask(home, "PUT", path, **(kept | told))
        typer.echo(f"the limits of {id_} are changed")
