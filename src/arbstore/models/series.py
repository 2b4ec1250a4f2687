"""The time series tables.

A key begins with the series and ends with the time, so it serves both `latest` and `history`. There is no other index,
because every index costs time on every row. The columnstore groups rows by the series and sorts them by the time. It
takes rows that are older than those that usually come late: an upsert still finds them there, but more slowly.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Integer, SmallInteger, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from alembic_timescaledb import Columnstore, RetentionJob
from arbstore.models.base import (
    Base,
    Exact,
    ExchangeKey,
    Moment,
    Real,
    ReceivedAt,
    SymbolKey,
    Timestamp,
    above_zero,
    finite,
    not_below_zero,
    one_of,
    series_table,
)
from arbstore.records import CollectorState, Origin, Side

# It makes the minutes of rows into candles before it drops the rows.
_KEEP_CANDLES = RetentionJob("arbstore_keep_candles", every=timedelta(minutes=5))


class BookTickerSnapshot(Base):
    """Best bid and ask. Crossed books are real, and can be stored."""

    __tablename__ = "book_ticker_snapshots"
    __table_args__ = series_table(
        *above_zero("bid_price", "ask_price"),
        *not_below_zero("bid_qty", "ask_qty"),
        comment="best bid and ask",
        chunk=timedelta(minutes=30),
        retention=timedelta(days=3),
        retention_job=_KEEP_CANDLES,
        columnstore=Columnstore(timedelta(hours=6), segment_by=["symbol_id"], order_by=["timestamp DESC"]),
    )

    symbol_id: Mapped[SymbolKey]
    timestamp: Mapped[Timestamp]
    bid_price: Mapped[Real]
    bid_qty: Mapped[Real]
    ask_price: Mapped[Real]
    ask_qty: Mapped[Real]
    created_at: Mapped[ReceivedAt]


class TradeSnapshot(Base):
    """Trades. The exchange's id is part of the key, because hundreds of trades share a millisecond."""

    __tablename__ = "trade_snapshots"
    __table_args__ = series_table(
        *above_zero("price"),
        *not_below_zero("quantity"),
        one_of("side", list(Side)),
        comment="trades",
        chunk=timedelta(minutes=30),
        retention=timedelta(days=3),
        retention_job=_KEEP_CANDLES,
        columnstore=Columnstore(
            timedelta(hours=6), segment_by=["symbol_id"], order_by=["timestamp DESC", "trade_id DESC"]
        ),
    )

    symbol_id: Mapped[SymbolKey]
    timestamp: Mapped[Timestamp]
    trade_id: Mapped[str] = mapped_column(Text, primary_key=True, comment="the exchange's id of the trade")
    price: Mapped[Real]
    quantity: Mapped[Real]
    side: Mapped[str] = mapped_column(Text, comment="the aggressor's")
    created_at: Mapped[ReceivedAt]


class FundingRateSnapshot(Base):
    """Funding rates. They are summed, so they are exact decimals."""

    __tablename__ = "funding_rate_snapshots"
    __table_args__ = series_table(
        *finite("funding_rate"),
        *above_zero("mark_price", "index_price"),
        comment="funding rates of perpetuals",
        chunk=timedelta(hours=1),
        retention=timedelta(days=14),
        columnstore=Columnstore(timedelta(days=1), segment_by=["symbol_id"], order_by=["timestamp DESC"]),
    )

    symbol_id: Mapped[SymbolKey]
    timestamp: Mapped[Timestamp]
    funding_rate: Mapped[Exact] = mapped_column(comment="a fraction: 0.0001 is one basis point")
    funding_time: Mapped[Moment] = mapped_column(comment="when this rate settles")
    next_funding_time: Mapped[Moment | None]
    mark_price: Mapped[Exact | None]
    index_price: Mapped[Exact | None]
    created_at: Mapped[ReceivedAt]


class Tick(Base):
    """Bid and ask without sizes, as brokers quote foreign exchange."""

    __tablename__ = "ticks"
    __table_args__ = series_table(
        *above_zero("bid", "ask"),
        *not_below_zero("volume"),
        comment="quotes without sizes",
        chunk=timedelta(hours=1),
        retention=timedelta(days=7),
        columnstore=Columnstore(timedelta(days=1), segment_by=["symbol_id"], order_by=["timestamp DESC"]),
    )

    symbol_id: Mapped[SymbolKey]
    timestamp: Mapped[Timestamp]
    bid: Mapped[Real]
    ask: Mapped[Real]
    volume: Mapped[Real | None]
    event_type: Mapped[str | None] = mapped_column(Text)
    use_case: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[ReceivedAt]


class Candle(Base):
    """Candles that feeds deliver, and minutes made of trades and quotes. They are kept forever."""

    __tablename__ = "candles"
    __table_args__ = series_table(
        *above_zero("open", "high", "low", "close", "vwap"),
        *not_below_zero("volume"),
        one_of("origin", list(Origin)),
        CheckConstraint("num_trades >= 0", name="num_trades"),
        CheckConstraint("low <= LEAST(open, close) AND high >= GREATEST(open, close)", name="range"),
        comment="open, high, low and close",
        chunk=timedelta(days=7),
        columnstore=Columnstore(
            timedelta(days=30), segment_by=["symbol_id", "origin", "timeframe"], order_by=["timestamp DESC"]
        ),
    )

    symbol_id: Mapped[SymbolKey]
    origin: Mapped[str] = mapped_column(
        Text, primary_key=True, comment="feed, mark, index, mid: as delivered; trades, quotes: made here"
    )
    timeframe: Mapped[str] = mapped_column(Text, primary_key=True, comment="length of the bar: 1m, 1h, 1d")
    timestamp: Mapped[Timestamp] = mapped_column(comment="when the bar begins")
    open: Mapped[Real]
    high: Mapped[Real]
    low: Mapped[Real]
    close: Mapped[Real]
    volume: Mapped[Real | None]
    vwap: Mapped[Real | None]
    num_trades: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[ReceivedAt]
    is_closed: Mapped[bool] = mapped_column(server_default=text("true"), comment="the bar has ended")
    rows_gone: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="it was made here, and cannot be made again"
    )


class BalanceSnapshot(Base):
    """Balances. They are summed and reconciled, and some assets have 18 decimals, so they are exact."""

    __tablename__ = "balance_snapshots"
    __table_args__ = series_table(
        *not_below_zero(
            "available_balance", "locked_balance", "frozen_balance", "borrowing_balance", "interest_balance"
        ),
        comment="balances of accounts, in units of the asset",
        chunk=timedelta(hours=6),
        retention=timedelta(days=14),
        columnstore=Columnstore(
            timedelta(days=1), segment_by=["exchange_id", "asset_name"], order_by=["timestamp DESC"]
        ),
    )

    exchange_id: Mapped[ExchangeKey]
    asset_name: Mapped[str] = mapped_column(Text, primary_key=True)
    timestamp: Mapped[Timestamp]
    available_balance: Mapped[Exact]
    locked_balance: Mapped[Exact]
    frozen_balance: Mapped[Exact]
    borrowing_balance: Mapped[Exact]
    interest_balance: Mapped[Exact]
    created_at: Mapped[ReceivedAt]


class ArbitrageOpportunity(Base):
    """Seen chances to buy on one exchange and sell on another."""

    __tablename__ = "arbitrage_opportunities"
    __table_args__ = series_table(
        *above_zero("buy_price", "sell_price"),
        *not_below_zero("quantity"),
        *finite("spread_bps", "net_profit"),
        CheckConstraint("duration_ms >= 0", name="duration_ms"),
        comment="chances to buy on one exchange and sell on another",
        chunk=timedelta(hours=6),
        retention=timedelta(days=14),
        columnstore=Columnstore(
            timedelta(days=1), segment_by=["symbol_id", "sell_exchange_id"], order_by=["timestamp DESC"]
        ),
    )

    symbol_id: Mapped[SymbolKey] = mapped_column(comment="the bought symbol: symbols.id")
    sell_exchange_id: Mapped[ExchangeKey]
    timestamp: Mapped[Timestamp]
    buy_exchange_id: Mapped[int] = mapped_column(SmallInteger, ForeignKey("exchanges.id"))
    buy_price: Mapped[Real]
    sell_price: Mapped[Real]
    quantity: Mapped[Real]
    spread_bps: Mapped[Real]
    net_profit: Mapped[Real | None] = mapped_column(comment="in the quote currency, after fees")
    duration_ms: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[ReceivedAt]


class OrderFlowMetrics(Base):
    """Order-flow metrics over a window that ends at the timestamp."""

    __tablename__ = "order_flow_metrics"
    __table_args__ = series_table(
        *above_zero("microprice", "mid_price"),
        *finite("ofi_score", "spread_bps"),
        CheckConstraint("window_seconds > 0", name="window_seconds"),
        CheckConstraint("book_imbalance BETWEEN -1 AND 1", name="book_imbalance"),
        CheckConstraint("trade_imbalance BETWEEN -1 AND 1", name="trade_imbalance"),
        comment="order-flow metrics",
        chunk=timedelta(hours=1),
        retention=timedelta(days=7),
        columnstore=Columnstore(
            timedelta(days=1), segment_by=["symbol_id", "window_seconds"], order_by=["timestamp DESC"]
        ),
    )

    symbol_id: Mapped[SymbolKey]
    window_seconds: Mapped[int] = mapped_column(Integer, primary_key=True, comment="length of the window")
    timestamp: Mapped[Timestamp]
    ofi_score: Mapped[Real]
    microprice: Mapped[Real]
    mid_price: Mapped[Real]
    spread_bps: Mapped[Real]
    book_imbalance: Mapped[Real]
    trade_imbalance: Mapped[Real | None]
    created_at: Mapped[ReceivedAt]


class CollectorStatus(Base):
    """States that collectors report."""

    __tablename__ = "collector_status"
    __table_args__ = series_table(
        one_of("status", list(CollectorState)),
        *not_below_zero("messages_per_second"),
        comment="state of the collectors",
        chunk=timedelta(hours=6),
        retention=timedelta(days=7),
        columnstore=Columnstore(
            timedelta(days=1), segment_by=["exchange_id", "collector"], order_by=["timestamp DESC"]
        ),
    )

    exchange_id: Mapped[ExchangeKey]
    collector: Mapped[str] = mapped_column(Text, primary_key=True)
    timestamp: Mapped[Timestamp]
    status: Mapped[str] = mapped_column(Text)
    messages_per_second: Mapped[Real | None]
    last_message_at: Mapped[Moment | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[ReceivedAt]
