"""The tables of the accounts, as the newest migration leaves them."""

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

ID_LENGTH: Final = 64
NAME_LENGTH: Final = 200
SUBJECT_LENGTH: Final = 500

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def _rights() -> list[Column[object]]:
    """Columns of what somebody may use: lists of names, null for everything."""
    return [
        Column("tiers", JSON(none_as_null=True)),
        Column("models", JSON(none_as_null=True)),
        Column("clusters", JSON(none_as_null=True)),
        Column("privacy", String(NAME_LENGTH)),
    ]


revision = Table(
    "account_revision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),
)
"""One row, whose number grows with every change: replicas look at it, and changes wait for each other at it."""

users = Table(
    "users",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("email", String(NAME_LENGTH), nullable=False),
    Column("issuer", String(SUBJECT_LENGTH)),
    Column("subject", String(SUBJECT_LENGTH)),
    Column("disabled", Boolean, nullable=False),
    Column("admin", Boolean, nullable=False),
    *_rights(),
    Column("limits", JSON, nullable=False),
    Column("told_groups", JSON, nullable=False),
    Column("told_tiers", JSON(none_as_null=True)),
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("issuer", "subject"),
)

groups = Table(
    "groups",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    Column("name", String(NAME_LENGTH), nullable=False, unique=True),
    *_rights(),
    Column("created", BigInteger, nullable=False),
)

memberships = Table(
    "memberships",
    metadata,
    Column("group_id", ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
)

projects = Table(
    "projects",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    Column("name", String(NAME_LENGTH), nullable=False, unique=True),
    Column("disabled", Boolean, nullable=False),
    Column("keeps_content", Boolean, nullable=False),
    *_rights(),
    Column("limits", JSON, nullable=False),
    Column("created", BigInteger, nullable=False),
)

project_members = Table(
    "project_members",
    metadata,
    Column("project_id", ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    Column("name", Text, nullable=False),
    Column("prefix", String(32), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("user_id", ForeignKey("users.id")),
    Column("project_id", ForeignKey("projects.id")),
    Column("admin", Boolean, nullable=False),
    Column("whole", Boolean, nullable=False),
    *_rights(),
    Column("limits", JSON, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("revoked", BigInteger),
    Column("origin", String(ID_LENGTH)),
    Column("replaced_by", String(ID_LENGTH)),
    Column("valid_until", BigInteger),
    Index(None, "prefix"),
    Index(None, "user_id"),
    Index(None, "project_id"),
)
