"""Exchanges and symbols."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "exchanges",
        sa.Column("id", sa.SmallInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("enum_value", sa.Text(), nullable=False, comment="{EXCHANGE_NAME}_{MARKET_TYPE}"),
        sa.Column("exchange_name", sa.Text(), nullable=False),
        sa.Column("market_type", sa.Text(), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "enum_value = exchange_name || '_' || market_type AND enum_value ~ '^[A-Z0-9]+(_[A-Z0-9]+)+$'",
            name=op.f("chk_enum_format"),
        ),
        sa.CheckConstraint(
            "market_type IN ('SPOT', 'FUTURES', 'MARGIN', 'OPTIONS', 'FOREX')",
            name=op.f("ck_exchanges_market_type"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exchanges")),
        sa.UniqueConstraint("enum_value", name=op.f("uq_exchanges_enum_value")),
        comment="markets of exchanges, such as BINANCE_SPOT",
    )

    op.create_table(
        "symbols",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("exchange_id", sa.SmallInteger(), nullable=False),
        sa.Column("symbol_base", sa.Text(), nullable=False),
        sa.Column("symbol_quote", sa.Text(), nullable=False),
        sa.Column("exchange_symbol", sa.Text(), nullable=False, comment="the exchange's own spelling"),
        sa.Column("symbol_type", sa.Text(), nullable=False),
        sa.Column("expiry", sa.DateTime(timezone=True), nullable=True, comment="of dated contracts"),
        sa.Column(
            "contract_size",
            sa.Double(),
            nullable=True,
            comment="worth of one contract: base units (linear) or quote units (inverse)",
        ),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("listed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delisted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("contract_size > 0 AND contract_size < 'Infinity'", name=op.f("ck_symbols_contract_size")),
        sa.CheckConstraint(
            "symbol_type IN ('SPOT', 'PERPETUAL', 'FUTURE', 'OPTION', 'FOREX')",
            name=op.f("ck_symbols_symbol_type"),
        ),
        sa.CheckConstraint(
            "symbol_base = upper(symbol_base) AND symbol_quote = upper(symbol_quote)",
            name=op.f("ck_symbols_upper_case"),
        ),
        sa.ForeignKeyConstraint(["exchange_id"], ["exchanges.id"], name=op.f("fk_symbols_exchange_id_exchanges")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_symbols")),
        comment="what is traded on each exchange",
    )
    op.create_index(
        "uq_symbols_active_exchange_symbol",
        "symbols",
        ["exchange_id", "exchange_symbol"],
        unique=True,
        postgresql_where=sa.text("is_active"),
    )
    op.create_index(
        "uq_symbols_active_pair",
        "symbols",
        ["exchange_id", "symbol_base", "symbol_quote", "symbol_type", "expiry"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("is_active"),
    )


def downgrade() -> None:
    op.drop_table("symbols")
    op.drop_table("exchanges")
