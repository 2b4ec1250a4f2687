"""Candles made of trades and quotes: the table that outlives them, and the views that a server keeps computed."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
from alembic import op

from alembic_timescaledb.operations import edition_of  # and gives op its hypertables and aggregates

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TRADE_CANDLES_1M = """
SELECT symbol_id, time_bucket(INTERVAL '1 minute', timestamp) AS timestamp,
  (array_agg(price ORDER BY timestamp, trade_id))[1] AS open, max(price) AS high, min(price) AS low,
  (array_agg(price ORDER BY timestamp, trade_id))[count(*)] AS close,
  sum(quantity) AS volume, sum(price * quantity) AS turnover, count(*) AS num_trades, max(created_at) AS created_at
FROM trade_snapshots GROUP BY symbol_id, time_bucket(INTERVAL '1 minute', timestamp)
"""
QUOTE_CANDLES_1M = """
SELECT symbol_id, time_bucket(INTERVAL '1 minute', timestamp) AS timestamp,
  (array_agg((bid_price + ask_price) / 2 ORDER BY timestamp))[1] AS open,
  max((bid_price + ask_price) / 2) AS high, min((bid_price + ask_price) / 2) AS low,
  (array_agg((bid_price + ask_price) / 2 ORDER BY timestamp))[count(*)] AS close,
  count(*) AS num_quotes, max(created_at) AS created_at
FROM book_ticker_snapshots GROUP BY symbol_id, time_bucket(INTERVAL '1 minute', timestamp)
"""
LONGER_TRADE_CANDLES = """
SELECT symbol_id, time_bucket(INTERVAL '{length}', timestamp) AS timestamp,
  (array_agg(open ORDER BY timestamp))[1] AS open, max(high) AS high, min(low) AS low,
  (array_agg(close ORDER BY timestamp))[count(*)] AS close,
  sum(volume) AS volume, sum(turnover) AS turnover, CAST(sum(num_trades) AS bigint) AS num_trades,
  max(created_at) AS created_at
FROM {shorter} GROUP BY symbol_id, time_bucket(INTERVAL '{length}', timestamp)
"""
LONGER_QUOTE_CANDLES = """
SELECT symbol_id, time_bucket(INTERVAL '{length}', timestamp) AS timestamp,
  (array_agg(open ORDER BY timestamp))[1] AS open, max(high) AS high, min(low) AS low,
  (array_agg(close ORDER BY timestamp))[count(*)] AS close,
  CAST(sum(num_quotes) AS bigint) AS num_quotes, max(created_at) AS created_at
FROM {shorter} GROUP BY symbol_id, time_bucket(INTERVAL '{length}', timestamp)
"""
# What is there already and older than the policies below look for: the server would drop it without a candle.
ROLL_UP = """
INSERT INTO candle_rollups
  (symbol_id, source, timestamp, open, high, low, close, volume, turnover, num_trades, num_quotes, created_at)
SELECT symbol_id, '{source}', timestamp, open, high, low, close, {counted}, created_at
FROM ({bars}) bars
"""
TOO_OLD = "timestamp < time_bucket(INTERVAL '1 minute', now() - INTERVAL '59 hours')"


def upgrade() -> None:
    op.create_table(
        "candle_rollups",
        sa.Column("symbol_id", sa.Integer(), nullable=False, comment="the series: symbols.id"),
        sa.Column("source", sa.Text(), nullable=False, comment="what they are made of: trades, quotes"),
        sa.Column("timestamp", sa.DateTime(timezone=True), nullable=False, comment="when the minute begins"),
        sa.Column("open", sa.Double(), nullable=False),
        sa.Column("high", sa.Double(), nullable=False),
        sa.Column("low", sa.Double(), nullable=False),
        sa.Column("close", sa.Double(), nullable=False),
        sa.Column("volume", sa.Double(), nullable=True),
        sa.Column("turnover", sa.Double(), nullable=True, comment="the sum of price * quantity"),
        sa.Column("num_trades", sa.BigInteger(), nullable=True),
        sa.Column("num_quotes", sa.BigInteger(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="when the last of its rows was received",
        ),
        sa.CheckConstraint("source IN ('trades', 'quotes')", name=op.f("ck_candle_rollups_source")),
        sa.CheckConstraint("open > 0 AND open < 'Infinity'", name=op.f("ck_candle_rollups_open")),
        sa.CheckConstraint("high > 0 AND high < 'Infinity'", name=op.f("ck_candle_rollups_high")),
        sa.CheckConstraint("low > 0 AND low < 'Infinity'", name=op.f("ck_candle_rollups_low")),
        sa.CheckConstraint("close > 0 AND close < 'Infinity'", name=op.f("ck_candle_rollups_close")),
        sa.CheckConstraint("volume >= 0 AND volume < 'Infinity'", name=op.f("ck_candle_rollups_volume")),
        sa.CheckConstraint("turnover >= 0 AND turnover < 'Infinity'", name=op.f("ck_candle_rollups_turnover")),
        sa.CheckConstraint("num_trades > 0", name=op.f("ck_candle_rollups_num_trades")),
        sa.CheckConstraint("num_quotes > 0", name=op.f("ck_candle_rollups_num_quotes")),
        sa.CheckConstraint(
            "low <= LEAST(open, close) AND high >= GREATEST(open, close)", name=op.f("ck_candle_rollups_range")
        ),
        sa.ForeignKeyConstraint(["symbol_id"], ["symbols.id"], name=op.f("fk_candle_rollups_symbol_id_symbols")),
        sa.PrimaryKeyConstraint("symbol_id", "source", "timestamp", name=op.f("pk_candle_rollups")),
        comment="candles of one minute, of rows that may be gone",
    )
    op.create_hypertable("candle_rollups", "timestamp", chunk_interval=timedelta(days=7))

    if edition_of(op.get_context()).has_policies:
        for source, bars, counted in (
            ("trades", TRADE_CANDLES_1M, "volume, turnover, num_trades, NULL"),
            ("quotes", QUOTE_CANDLES_1M, "NULL, NULL, NULL, num_quotes"),
        ):
            old = bars.strip().replace(" GROUP BY", f" WHERE {TOO_OLD} GROUP BY")
            op.execute(ROLL_UP.strip().format(source=source, counted=counted, bars=old))

    minutes = timedelta(minutes=1)
    for name, shortest, longer in (
        ("trade_candles", TRADE_CANDLES_1M, LONGER_TRADE_CANDLES),
        ("quote_candles", QUOTE_CANDLES_1M, LONGER_QUOTE_CANDLES),
    ):
        op.create_continuous_aggregate(f"{name}_1m", shortest, chunk_interval=timedelta(days=7))
        op.add_continuous_aggregate_policy(
            f"{name}_1m", start_offset=timedelta(days=2, hours=12), end_offset=minutes, every=5 * minutes
        )
        hours = longer.format(length="1 hour", shorter=f"{name}_1m")
        op.create_continuous_aggregate(f"{name}_1h", hours, chunk_interval=timedelta(days=365))
        op.add_continuous_aggregate_policy(
            f"{name}_1h", start_offset=None, end_offset=timedelta(hours=1), every=30 * minutes
        )
        days = longer.format(length="1 day", shorter=f"{name}_1h")
        op.create_continuous_aggregate(f"{name}_1d", days, chunk_interval=timedelta(days=3650))
        op.add_continuous_aggregate_policy(
            f"{name}_1d", start_offset=None, end_offset=timedelta(hours=1), every=timedelta(hours=6)
        )


def downgrade() -> None:
    for name in ("quote_candles", "trade_candles"):
        for length in ("1d", "1h", "1m"):
            op.remove_continuous_aggregate_policy(f"{name}_{length}")
            op.drop_continuous_aggregate(f"{name}_{length}")
    op.drop_table("candle_rollups")
