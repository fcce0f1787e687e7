"""Keys that are exchanged for new ones, and go on beside them for a while."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("keys", sa.Column("origin", sa.String(64)))
    op.add_column("keys", sa.Column("replaced_by", sa.String(64)))
    op.add_column("keys", sa.Column("valid_until", sa.BigInteger))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("keys", "valid_until")
    op.drop_column("keys", "replaced_by")
    op.drop_column("keys", "origin")
