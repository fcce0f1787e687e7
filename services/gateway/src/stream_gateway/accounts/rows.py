"""Records of accounts as rows of their tables, and back. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import asdict

from stream_core.api_keys import Limits
from stream_gateway.accounts.records import Group, Key, Project, Record, Rights, User

Row = Mapping[str, Any]


def row_of(record: Record) -> dict[str, Any]:
    """Write a record's row; memberships have tables of their own."""
    row: dict[str, Any] = {"id": record.id, "name": record.name, "created": record.created}
    row |= _rights_row(record.rights)
    if not isinstance(record, Group):
        row["limits"] = limits_row(record.limits)
    match record:
        case User():
            row |= {"email": record.email, "disabled": record.disabled, "admin": record.admin}
            row |= {"issuer": record.issuer or None, "subject": record.subject or None}
            row |= told_row(record)
        case Project():
            row |= {"disabled": record.disabled, "keeps_content": record.keeps_content}
        case Key():
            row |= {"prefix": record.prefix, "sha256": record.sha256, "admin": record.admin, "whole": record.whole}
            row |= {"user_id": record.user or None, "project_id": record.project or None}
            row |= {"expires": record.expires, "revoked": record.revoked, "valid_until": record.valid_until}
            row |= {"origin": record.origin or None, "replaced_by": record.replaced_by or None}
        case Group():
            pass
    return row


def told_row(user: User) -> dict[str, Any]:
    """Write what a user's token told."""
    return {"told_groups": sorted(user.told_groups), "told_tiers": _listed(user.told_tiers)}


def limits_row(limits: Limits) -> dict[str, Any]:
    """Write limits: those that there are."""
    return {name: value for name, value in asdict(limits).items() if value is not None}


def user_of(row: Row, groups: Iterable[str] = ()) -> User:
    """Read a user."""
    return User(
        id=row["id"],
        name=row["name"],
        email=row["email"],
        issuer=row["issuer"] or "",
        subject=row["subject"] or "",
        disabled=row["disabled"],
        admin=row["admin"],
        rights=_rights(row),
        limits=Limits(**row["limits"]),
        groups=frozenset(groups),
        told_groups=frozenset(row["told_groups"]),
        told_tiers=_set(row["told_tiers"]),
        created=row["created"],
    )


def group_of(row: Row) -> Group:
    """Read a group."""
    return Group(id=row["id"], name=row["name"], rights=_rights(row), created=row["created"])


def project_of(row: Row, members: Iterable[str] = ()) -> Project:
    """Read a project."""
    return Project(
        id=row["id"],
        name=row["name"],
        disabled=row["disabled"],
        keeps_content=row["keeps_content"],
        rights=_rights(row),
        limits=Limits(**row["limits"]),
        members=frozenset(members),
        created=row["created"],
    )


def key_of(row: Row) -> Key:
    """Read a key."""
    return Key(
        id=row["id"],
        name=row["name"],
        prefix=row["prefix"],
        sha256=row["sha256"],
        user=row["user_id"] or "",
        project=row["project_id"] or "",
        admin=row["admin"],
        whole=row["whole"],
        rights=_rights(row),
        limits=Limits(**row["limits"]),
        created=row["created"],
        expires=row["expires"],
        revoked=row["revoked"],
        origin=row["origin"] or "",
        replaced_by=row["replaced_by"] or "",
        valid_until=row["valid_until"],
    )


def _rights(row: Row) -> Rights:
    return Rights(_set(row["tiers"]), _set(row["models"]), _set(row["clusters"]), row["privacy"])


def _rights_row(rights: Rights) -> dict[str, Any]:
    return {
        "tiers": _listed(rights.tiers),
        "models": _listed(rights.models),
        "clusters": _listed(rights.clusters),
        "privacy": rights.privacy,
    }


def _set(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _listed(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)
