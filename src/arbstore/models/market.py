"""What markets say: quotes, trades, funding rates, ticks and candles.

A key begins with the series and ends with the time; it serves both "latest" and "history", and there is no other
index: each is paid for on every row. The columnstore groups by the series and sorts by the time too, and takes rows
when they are older than those that usually come late: an upsert still finds them there, at a higher price.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import BigInteger, CheckConstraint, Text
from sqlalchemy.orm import Mapped, mapped_column

from alembic_timescaledb import Columnstore, Hypertable
from arbstore.models.base import (
    Base,
    Exact,
    Moment,
    Real,
    ReceivedAt,
    SymbolKey,
    Timestamp,
    above_zero,
    finite,
    not_below_zero,
    one_of,
)
from arbstore.records import Side


class BookTickerSnapshot(Base):
    """Best bid and ask. Crossed books are real, and accepted."""

    __tablename__ = "book_ticker_snapshots"
    __table_args__ = (
        *above_zero("bid_price", "ask_price"),
        *not_below_zero("bid_qty", "ask_qty"),
        {
            "comment": "best bid and ask",
            "info": Hypertable(
                timedelta(minutes=30),
                retention=timedelta(days=3),
                columnstore=Columnstore(timedelta(hours=6), segment_by=["symbol_id"], order_by=["timestamp DESC"]),
            ).info,
        },
    )

    symbol_id: Mapped[SymbolKey]
    timestamp: Mapped[Timestamp]
    bid_price: Mapped[Real]
    bid_qty: Mapped[Real]
    ask_price: Mapped[Real]
    ask_qty: Mapped[Real]
    created_at: Mapped[ReceivedAt]


class TradeSnapshot(Base):
    """Trades. The exchange's id is in the key: hundreds share a millisecond."""

    __tablename__ = "trade_snapshots"
    __table_args__ = (
        *above_zero("price"),
        *not_below_zero("quantity"),
        one_of("side", list(Side)),
        {
            "comment": "trades",
            "info": Hypertable(
                timedelta(minutes=30),
                retention=timedelta(days=3),
                columnstore=Columnstore(
                    timedelta(hours=6), segment_by=["symbol_id"], order_by=["timestamp DESC", "trade_id DESC"]
                ),
            ).info,
        },
    )

    symbol_id: Mapped[SymbolKey]
    timestamp: Mapped[Timestamp]
    trade_id: Mapped[str] = mapped_column(Text, primary_key=True, comment="the exchange's id of the trade")
    price: Mapped[Real]
    quantity: Mapped[Real]
    side: Mapped[str] = mapped_column(Text, comment="the aggressor's")
    created_at: Mapped[ReceivedAt]


class FundingRateSnapshot(Base):
    """Funding rates, exact: they are summed."""

    __tablename__ = "funding_rate_snapshots"
    __table_args__ = (
        *finite("funding_rate"),
        *above_zero("mark_price", "index_price"),
        {
            "comment": "funding rates of perpetuals",
            "info": Hypertable(
                timedelta(hours=1),
                retention=timedelta(days=14),
                columnstore=Columnstore(timedelta(days=1), segment_by=["symbol_id"], order_by=["timestamp DESC"]),
            ).info,
        },
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
    __table_args__ = (
        *above_zero("bid", "ask"),
        *not_below_zero("volume"),
        {
            "comment": "quotes without sizes",
            "info": Hypertable(
                timedelta(hours=1),
                retention=timedelta(days=7),
                columnstore=Columnstore(timedelta(days=1), segment_by=["symbol_id"], order_by=["timestamp DESC"]),
            ).info,
        },
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
    """Bars as feeds deliver them; kept for good."""

    __tablename__ = "candles"
    __table_args__ = (
        *above_zero("open", "high", "low", "close", "vwap"),
        *not_below_zero("volume"),
        CheckConstraint("num_trades >= 0", name="num_trades"),
        CheckConstraint("low <= LEAST(open, close) AND high >= GREATEST(open, close)", name="range"),
        {
            "comment": "open, high, low and close",
            "info": Hypertable(
                timedelta(days=7),
                columnstore=Columnstore(
                    timedelta(days=30), segment_by=["symbol_id", "timeframe"], order_by=["timestamp DESC"]
                ),
            ).info,
        },
    )

    symbol_id: Mapped[SymbolKey]
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
