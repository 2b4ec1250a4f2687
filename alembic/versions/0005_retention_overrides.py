"""Retention that operators set."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "retention_overrides",
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("keep_for", sa.Interval(), nullable=True, comment="null: for good"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("keep_for > INTERVAL '0'", name=op.f("ck_retention_overrides_keep_for")),
        sa.PrimaryKeyConstraint("table_name", name=op.f("pk_retention_overrides")),
        comment="retention set by operators: it wins over what the models declare",
    )


def downgrade() -> None:
    op.drop_table("retention_overrides")
