"""Users, groups, projects and keys."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Make them."""
    counter = op.create_table(
        "account_revision",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account_revision"),
    )
    op.bulk_insert(counter, [{"id": 1, "number": 1}])
    op.create_table(
        "users",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("email", sa.String(200), nullable=False),
        sa.Column("issuer", sa.String(500)),
        sa.Column("subject", sa.String(500)),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("admin", sa.Boolean, nullable=False),
        *_rights(),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("told_groups", sa.JSON, nullable=False),
        sa.Column("told_tiers", sa.JSON),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("issuer", "subject", name="uq_users_issuer"),
    )
    op.create_table(
        "groups",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        *_rights(),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
        sa.UniqueConstraint("name", name="uq_groups_name"),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("keeps_content", sa.Boolean, nullable=False),
        *_rights(),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("name", name="uq_projects_name"),
    )
    _members("memberships", "group_id", "groups")
    _members("project_members", "project_id", "projects")
    op.create_table(
        "keys",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("prefix", sa.String(32), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64)),
        sa.Column("project_id", sa.String(64)),
        sa.Column("admin", sa.Boolean, nullable=False),
        sa.Column("whole", sa.Boolean, nullable=False),
        *_rights(),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger),
        sa.Column("revoked", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("sha256", name="uq_keys_sha256"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_keys_user_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_keys_project_id"),
    )
    for column in ("prefix", "user_id", "project_id"):
        op.create_index(f"ix_keys_{column}", "keys", [column])


def downgrade() -> None:
    """Drop them."""
    for table in ("keys", "project_members", "memberships", "projects", "groups", "users", "account_revision"):
        op.drop_table(table)


def _rights() -> list[sa.Column[object]]:
    return [
        sa.Column("tiers", sa.JSON),
        sa.Column("models", sa.JSON),
        sa.Column("clusters", sa.JSON),
        sa.Column("privacy", sa.String(200)),
    ]


def _members(table: str, column: str, of: str) -> None:
    op.create_table(
        table,
        sa.Column(column, sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint(column, "user_id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint([column], [f"{of}.id"], name=f"fk_{table}_{column}", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=f"fk_{table}_user_id", ondelete="CASCADE"),
    )
