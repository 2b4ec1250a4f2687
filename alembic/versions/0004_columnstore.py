"""The time-series tables are stored by column once their rows are old enough."""

from __future__ import annotations

from datetime import timedelta

from alembic import op

import alembic_timescaledb.operations  # noqa: F401 # gives op its hypertables

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

HOURS_6 = timedelta(hours=6)
DAY = timedelta(days=1)
DAYS_30 = timedelta(days=30)

# Each table's series, and the age at which its rows move: long before they go, and long after the last that come late.
COLUMNSTORES = {
    "book_ticker_snapshots": (["symbol_id"], HOURS_6),
    "trade_snapshots": (["symbol_id"], HOURS_6),  # and sorted by trade_id too: an upsert looks for it
    "funding_rate_snapshots": (["symbol_id"], DAY),
    "ticks": (["symbol_id"], DAY),
    "candles": (["symbol_id", "timeframe"], DAYS_30),
    "balance_snapshots": (["exchange_id", "asset_name"], DAY),
    "arbitrage_opportunities": (["symbol_id", "sell_exchange_id"], DAY),
    "order_flow_metrics": (["symbol_id", "window_seconds"], DAY),
    "collector_status": (["exchange_id", "collector"], DAY),
}


def upgrade() -> None:
    for table, (series, after) in COLUMNSTORES.items():
        order = ["timestamp DESC", "trade_id DESC"] if table == "trade_snapshots" else ["timestamp DESC"]
        op.enable_columnstore(table, segment_by=series, order_by=order)
        op.add_columnstore_policy(table, after=after)


def downgrade() -> None:
    for table in reversed(COLUMNSTORES):
        op.remove_columnstore_policy(table)
        op.disable_columnstore(table)
