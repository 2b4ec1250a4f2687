"""What accounts hold and what the desk's own programs say."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from alembic import op

import alembic_timescaledb.operations  # noqa: F401 # gives op its hypertables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "balance_snapshots",
        sa.Column("exchange_id", sa.SmallInteger(), nullable=False, comment="exchanges.id"),
        sa.Column("asset_name", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False, comment="the exchange's clock"),
        sa.Column("available_balance", sa.Numeric(), nullable=False),
        sa.Column("locked_balance", sa.Numeric(), nullable=False),
        sa.Column("frozen_balance", sa.Numeric(), nullable=False),
        sa.Column("borrowing_balance", sa.Numeric(), nullable=False),
        sa.Column("interest_balance", sa.Numeric(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the collector received it",
        ),
        sa.CheckConstraint(
            "available_balance >= 0 AND available_balance < 'Infinity'",
            name=op.f("ck_balance_snapshots_available_balance"),
        ),
        sa.CheckConstraint(
            "borrowing_balance >= 0 AND borrowing_balance < 'Infinity'",
            name=op.f("ck_balance_snapshots_borrowing_balance"),
        ),
        sa.CheckConstraint(
            "frozen_balance >= 0 AND frozen_balance < 'Infinity'",
            name=op.f("ck_balance_snapshots_frozen_balance"),
        ),
        sa.CheckConstraint(
            "interest_balance >= 0 AND interest_balance < 'Infinity'",
            name=op.f("ck_balance_snapshots_interest_balance"),
        ),
        sa.CheckConstraint(
            "locked_balance >= 0 AND locked_balance < 'Infinity'",
            name=op.f("ck_balance_snapshots_locked_balance"),
        ),
        sa.ForeignKeyConstraint(
            ["exchange_id"], ["exchanges.id"], name=op.f("fk_balance_snapshots_exchange_id_exchanges")
        ),
        sa.PrimaryKeyConstraint("exchange_id", "asset_name", "timestamp", name=op.f("pk_balance_snapshots")),
        comment="balances of accounts, in units of the asset",
    )
    op.create_hypertable("balance_snapshots", "timestamp", chunk_interval=timedelta(hours=6))
    op.add_retention_policy("balance_snapshots", drop_after=timedelta(days=14))

    op.create_table(
        "arbitrage_opportunities",
        sa.Column("symbol_id", sa.Integer(), nullable=False, comment="the bought symbol: symbols.id"),
        sa.Column("sell_exchange_id", sa.SmallInteger(), nullable=False, comment="exchanges.id"),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False, comment="the exchange's clock"),
        sa.Column("buy_exchange_id", sa.SmallInteger(), nullable=False),
        sa.Column("buy_price", sa.Double(), nullable=False),
        sa.Column("sell_price", sa.Double(), nullable=False),
        sa.Column("quantity", sa.Double(), nullable=False),
        sa.Column("spread_bps", sa.Double(), nullable=False),
        sa.Column("net_profit", sa.Double(), nullable=True, comment="in the quote currency, after fees"),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the collector received it",
        ),
        sa.CheckConstraint(
            "buy_price > 0 AND buy_price < 'Infinity'", name=op.f("ck_arbitrage_opportunities_buy_price")
        ),
        sa.CheckConstraint(
            "net_profit > '-Infinity' AND net_profit < 'Infinity'",
            name=op.f("ck_arbitrage_opportunities_net_profit"),
        ),
        sa.CheckConstraint("quantity >= 0 AND quantity < 'Infinity'", name=op.f("ck_arbitrage_opportunities_quantity")),
        sa.CheckConstraint(
            "sell_price > 0 AND sell_price < 'Infinity'", name=op.f("ck_arbitrage_opportunities_sell_price")
        ),
        sa.CheckConstraint(
            "spread_bps > '-Infinity' AND spread_bps < 'Infinity'",
            name=op.f("ck_arbitrage_opportunities_spread_bps"),
        ),
        sa.CheckConstraint("duration_ms >= 0", name=op.f("ck_arbitrage_opportunities_duration_ms")),
        sa.ForeignKeyConstraint(
            ["buy_exchange_id"],
            ["exchanges.id"],
            name=op.f("fk_arbitrage_opportunities_buy_exchange_id_exchanges"),
        ),
        sa.ForeignKeyConstraint(
            ["sell_exchange_id"],
            ["exchanges.id"],
            name=op.f("fk_arbitrage_opportunities_sell_exchange_id_exchanges"),
        ),
        sa.ForeignKeyConstraint(
            ["symbol_id"], ["symbols.id"], name=op.f("fk_arbitrage_opportunities_symbol_id_symbols")
        ),
        sa.PrimaryKeyConstraint("symbol_id", "sell_exchange_id", "timestamp", name=op.f("pk_arbitrage_opportunities")),
        comment="chances to buy on one exchange and sell on another",
    )
    op.create_hypertable("arbitrage_opportunities", "timestamp", chunk_interval=timedelta(hours=6))
    op.add_retention_policy("arbitrage_opportunities", drop_after=timedelta(days=14))

    op.create_table(
        "order_flow_metrics",
        sa.Column("symbol_id", sa.Integer(), nullable=False, comment="the series: symbols.id"),
        sa.Column("window_seconds", sa.Integer(), nullable=False, comment="length of the window"),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False, comment="the exchange's clock"),
        sa.Column("ofi_score", sa.Double(), nullable=False),
        sa.Column("microprice", sa.Double(), nullable=False),
        sa.Column("mid_price", sa.Double(), nullable=False),
        sa.Column("spread_bps", sa.Double(), nullable=False),
        sa.Column("book_imbalance", sa.Double(), nullable=False),
        sa.Column("trade_imbalance", sa.Double(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the collector received it",
        ),
        sa.CheckConstraint("microprice > 0 AND microprice < 'Infinity'", name=op.f("ck_order_flow_metrics_microprice")),
        sa.CheckConstraint("mid_price > 0 AND mid_price < 'Infinity'", name=op.f("ck_order_flow_metrics_mid_price")),
        sa.CheckConstraint(
            "ofi_score > '-Infinity' AND ofi_score < 'Infinity'", name=op.f("ck_order_flow_metrics_ofi_score")
        ),
        sa.CheckConstraint(
            "spread_bps > '-Infinity' AND spread_bps < 'Infinity'",
            name=op.f("ck_order_flow_metrics_spread_bps"),
        ),
        sa.CheckConstraint("book_imbalance BETWEEN -1 AND 1", name=op.f("ck_order_flow_metrics_book_imbalance")),
        sa.CheckConstraint("trade_imbalance BETWEEN -1 AND 1", name=op.f("ck_order_flow_metrics_trade_imbalance")),
        sa.CheckConstraint("window_seconds > 0", name=op.f("ck_order_flow_metrics_window_seconds")),
        sa.ForeignKeyConstraint(["symbol_id"], ["symbols.id"], name=op.f("fk_order_flow_metrics_symbol_id_symbols")),
        sa.PrimaryKeyConstraint("symbol_id", "window_seconds", "timestamp", name=op.f("pk_order_flow_metrics")),
        comment="order-flow metrics",
    )
    op.create_hypertable("order_flow_metrics", "timestamp", chunk_interval=timedelta(hours=1))
    op.add_retention_policy("order_flow_metrics", drop_after=timedelta(days=7))

    op.create_table(
        "collector_status",
        sa.Column("exchange_id", sa.SmallInteger(), nullable=False, comment="exchanges.id"),
        sa.Column("collector", sa.Text(), nullable=False),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False, comment="the exchange's clock"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("messages_per_second", sa.Double(), nullable=True),
        sa.Column("last_message_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the collector received it",
        ),
        sa.CheckConstraint(
            "messages_per_second >= 0 AND messages_per_second < 'Infinity'",
            name=op.f("ck_collector_status_messages_per_second"),
        ),
        sa.CheckConstraint(
            "status IN ('starting', 'running', 'degraded', 'stopped', 'failed')",
            name=op.f("ck_collector_status_status"),
        ),
        sa.ForeignKeyConstraint(
            ["exchange_id"], ["exchanges.id"], name=op.f("fk_collector_status_exchange_id_exchanges")
        ),
        sa.PrimaryKeyConstraint("exchange_id", "collector", "timestamp", name=op.f("pk_collector_status")),
        comment="state of the collectors",
    )
    op.create_hypertable("collector_status", "timestamp", chunk_interval=timedelta(hours=6))
    op.add_retention_policy("collector_status", drop_after=timedelta(days=7))


def downgrade() -> None:
    op.remove_retention_policy("collector_status")
    op.drop_table("collector_status")
    op.remove_retention_policy("order_flow_metrics")
    op.drop_table("order_flow_metrics")
    op.remove_retention_policy("arbitrage_opportunities")
    op.drop_table("arbitrage_opportunities")
    op.remove_retention_policy("balance_snapshots")
    op.drop_table("balance_snapshots")
