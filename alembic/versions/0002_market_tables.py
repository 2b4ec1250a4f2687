"""What markets say: quotes, trades, funding rates, ticks and candles."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from alembic import op

import alembic_timescaledb.operations  # noqa: F401 # gives op its hypertables

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "book_ticker_snapshots",
        sa.Column("symbol_id", sa.Integer(), nullable=False, comment="the series: symbols.id"),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False, comment="the exchange's clock"),
        sa.Column("bid_price", sa.Double(), nullable=False),
        sa.Column("bid_qty", sa.Double(), nullable=False),
        sa.Column("ask_price", sa.Double(), nullable=False),
        sa.Column("ask_qty", sa.Double(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the collector received it",
        ),
        sa.CheckConstraint("ask_price > 0 AND ask_price < 'Infinity'", name=op.f("ck_book_ticker_snapshots_ask_price")),
        sa.CheckConstraint("ask_qty >= 0 AND ask_qty < 'Infinity'", name=op.f("ck_book_ticker_snapshots_ask_qty")),
        sa.CheckConstraint("bid_price > 0 AND bid_price < 'Infinity'", name=op.f("ck_book_ticker_snapshots_bid_price")),
        sa.CheckConstraint("bid_qty >= 0 AND bid_qty < 'Infinity'", name=op.f("ck_book_ticker_snapshots_bid_qty")),
        sa.ForeignKeyConstraint(["symbol_id"], ["symbols.id"], name=op.f("fk_book_ticker_snapshots_symbol_id_symbols")),
        sa.PrimaryKeyConstraint("symbol_id", "timestamp", name=op.f("pk_book_ticker_snapshots")),
        comment="best bid and ask",
    )
    op.create_hypertable("book_ticker_snapshots", "timestamp", chunk_interval=timedelta(minutes=30))
    op.add_retention_policy("book_ticker_snapshots", drop_after=timedelta(days=3))

    op.create_table(
        "trade_snapshots",
        sa.Column("symbol_id", sa.Integer(), nullable=False, comment="the series: symbols.id"),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False, comment="the exchange's clock"),
        sa.Column("trade_id", sa.Text(), nullable=False, comment="the exchange's id of the trade"),
        sa.Column("price", sa.Double(), nullable=False),
        sa.Column("quantity", sa.Double(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False, comment="the aggressor's"),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the collector received it",
        ),
        sa.CheckConstraint("price > 0 AND price < 'Infinity'", name=op.f("ck_trade_snapshots_price")),
        sa.CheckConstraint("quantity >= 0 AND quantity < 'Infinity'", name=op.f("ck_trade_snapshots_quantity")),
        sa.CheckConstraint("side IN ('buy', 'sell')", name=op.f("ck_trade_snapshots_side")),
        sa.ForeignKeyConstraint(["symbol_id"], ["symbols.id"], name=op.f("fk_trade_snapshots_symbol_id_symbols")),
        sa.PrimaryKeyConstraint("symbol_id", "timestamp", "trade_id", name=op.f("pk_trade_snapshots")),
        comment="trades",
    )
    op.create_hypertable("trade_snapshots", "timestamp", chunk_interval=timedelta(minutes=30))
    op.add_retention_policy("trade_snapshots", drop_after=timedelta(days=3))

    op.create_table(
        "funding_rate_snapshots",
        sa.Column("symbol_id", sa.Integer(), nullable=False, comment="the series: symbols.id"),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False, comment="the exchange's clock"),
        sa.Column("funding_rate", sa.Numeric(), nullable=False, comment="a fraction: 0.0001 is one basis point"),
        sa.Column("funding_time", sa.DateTime(timezone=True), nullable=False, comment="when this rate settles"),
        sa.Column("next_funding_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("mark_price", sa.Numeric(), nullable=True),
        sa.Column("index_price", sa.Numeric(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the collector received it",
        ),
        sa.CheckConstraint(
            "funding_rate > '-Infinity' AND funding_rate < 'Infinity'",
            name=op.f("ck_funding_rate_snapshots_funding_rate"),
        ),
        sa.CheckConstraint(
            "index_price > 0 AND index_price < 'Infinity'", name=op.f("ck_funding_rate_snapshots_index_price")
        ),
        sa.CheckConstraint(
            "mark_price > 0 AND mark_price < 'Infinity'", name=op.f("ck_funding_rate_snapshots_mark_price")
        ),
        sa.ForeignKeyConstraint(
            ["symbol_id"], ["symbols.id"], name=op.f("fk_funding_rate_snapshots_symbol_id_symbols")
        ),
        sa.PrimaryKeyConstraint("symbol_id", "timestamp", name=op.f("pk_funding_rate_snapshots")),
        comment="funding rates of perpetuals",
    )
    op.create_hypertable("funding_rate_snapshots", "timestamp", chunk_interval=timedelta(hours=1))
    op.add_retention_policy("funding_rate_snapshots", drop_after=timedelta(days=14))

    op.create_table(
        "ticks",
        sa.Column("symbol_id", sa.Integer(), nullable=False, comment="the series: symbols.id"),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False, comment="the exchange's clock"),
        sa.Column("bid", sa.Double(), nullable=False),
        sa.Column("ask", sa.Double(), nullable=False),
        sa.Column("volume", sa.Double(), nullable=True),
        sa.Column("event_type", sa.Text(), nullable=True),
        sa.Column("use_case", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the collector received it",
        ),
        sa.CheckConstraint("ask > 0 AND ask < 'Infinity'", name=op.f("ck_ticks_ask")),
        sa.CheckConstraint("bid > 0 AND bid < 'Infinity'", name=op.f("ck_ticks_bid")),
        sa.CheckConstraint("volume >= 0 AND volume < 'Infinity'", name=op.f("ck_ticks_volume")),
        sa.ForeignKeyConstraint(["symbol_id"], ["symbols.id"], name=op.f("fk_ticks_symbol_id_symbols")),
        sa.PrimaryKeyConstraint("symbol_id", "timestamp", name=op.f("pk_ticks")),
        comment="quotes without sizes",
    )
    op.create_hypertable("ticks", "timestamp", chunk_interval=timedelta(hours=1))
    op.add_retention_policy("ticks", drop_after=timedelta(days=7))

    op.create_table(
        "candles",
        sa.Column("symbol_id", sa.Integer(), nullable=False, comment="the series: symbols.id"),
        sa.Column("timeframe", sa.Text(), nullable=False, comment="length of the bar: 1m, 1h, 1d"),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False, comment="when the bar begins"),
        sa.Column("open", sa.Double(), nullable=False),
        sa.Column("high", sa.Double(), nullable=False),
        sa.Column("low", sa.Double(), nullable=False),
        sa.Column("close", sa.Double(), nullable=False),
        sa.Column("volume", sa.Double(), nullable=True),
        sa.Column("vwap", sa.Double(), nullable=True),
        sa.Column("num_trades", sa.BigInteger(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the collector received it",
        ),
        sa.CheckConstraint("close > 0 AND close < 'Infinity'", name=op.f("ck_candles_close")),
        sa.CheckConstraint("high > 0 AND high < 'Infinity'", name=op.f("ck_candles_high")),
        sa.CheckConstraint("low > 0 AND low < 'Infinity'", name=op.f("ck_candles_low")),
        sa.CheckConstraint("open > 0 AND open < 'Infinity'", name=op.f("ck_candles_open")),
        sa.CheckConstraint("volume >= 0 AND volume < 'Infinity'", name=op.f("ck_candles_volume")),
        sa.CheckConstraint("vwap > 0 AND vwap < 'Infinity'", name=op.f("ck_candles_vwap")),
        sa.CheckConstraint(
            "low <= LEAST(open, close) AND high >= GREATEST(open, close)", name=op.f("ck_candles_range")
        ),
        sa.CheckConstraint("num_trades >= 0", name=op.f("ck_candles_num_trades")),
        sa.ForeignKeyConstraint(["symbol_id"], ["symbols.id"], name=op.f("fk_candles_symbol_id_symbols")),
        sa.PrimaryKeyConstraint("symbol_id", "timeframe", "timestamp", name=op.f("pk_candles")),
        comment="open, high, low and close",
    )
    op.create_hypertable("candles", "timestamp", chunk_interval=timedelta(days=7))


def downgrade() -> None:
    op.drop_table("candles")
    op.remove_retention_policy("ticks")
    op.drop_table("ticks")
    op.remove_retention_policy("funding_rate_snapshots")
    op.drop_table("funding_rate_snapshots")
    op.remove_retention_policy("trade_snapshots")
    op.drop_table("trade_snapshots")
    op.remove_retention_policy("book_ticker_snapshots")
    op.drop_table("book_ticker_snapshots")
