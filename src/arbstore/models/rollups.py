"""Candles made of our own trades and quotes: the table that outlives them, and the views that a server keeps computed.

What a bar is stands here once: the views, the reads and the roll-ups of a cleanup all select these columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    Double,
    FromClause,
    Table,
    Text,
    cast,
    func,
    literal_column,
    null,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Mapped, mapped_column

from alembic_timescaledb import ContinuousAggregate, Hypertable, Refresh, time_bucket
from arbstore.models.base import Base, Real, ReceivedAt, SymbolKey, Timestamp, above_zero, not_below_zero, one_of
from arbstore.models.market import BookTickerSnapshot, TradeSnapshot
from arbstore.records import CandleSource

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

# Well inside the retention of the rows: a refresh where they are gone would take their candles too.
_MINUTES_REFRESH = Refresh(start_offset=2 * DAY + 12 * HOUR, end_offset=MINUTE, every=5 * MINUTE)
# What these are made of has no retention: all that became of it is followed, however old.
_HOURS_REFRESH = Refresh(start_offset=None, end_offset=HOUR, every=30 * MINUTE)
_DAYS_REFRESH = Refresh(start_offset=None, end_offset=HOUR, every=6 * HOUR)


class CandleRollup(Base):
    """One-minute bars of rows that were removed, or may be; kept for good. `source` is what they are made of."""

    __tablename__ = "candle_rollups"
    __table_args__ = (
        one_of("source", [CandleSource.TRADES, CandleSource.QUOTES]),
        *above_zero("open", "high", "low", "close"),
        *not_below_zero("volume", "turnover"),
        CheckConstraint("num_trades > 0", name="num_trades"),
        CheckConstraint("num_quotes > 0", name="num_quotes"),
        CheckConstraint("low <= LEAST(open, close) AND high >= GREATEST(open, close)", name="range"),
        {"comment": "candles of one minute, of rows that may be gone", "info": Hypertable(timedelta(days=7)).info},
    )

    symbol_id: Mapped[SymbolKey]
    source: Mapped[str] = mapped_column(Text, primary_key=True, comment="what they are made of: trades, quotes")
    timestamp: Mapped[Timestamp] = mapped_column(comment="when the minute begins")
    open: Mapped[Real]
    high: Mapped[Real]
    low: Mapped[Real]
    close: Mapped[Real]
    volume: Mapped[Real | None]
    turnover: Mapped[Real | None] = mapped_column(comment="the sum of price * quantity")
    num_trades: Mapped[int | None] = mapped_column(BigInteger)
    num_quotes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[ReceivedAt] = mapped_column(comment="when the last of its rows was received")


# What a bar says, by name; of quotes there is no volume, turnover and number of trades, of trades no number of quotes.
BAR = {column.name: column.type for column in CandleRollup.__table__.c if column.name not in ("symbol_id", "source")}


def bar_of(stored: FromClause) -> list[ColumnElement[Any]]:
    """Return the columns of stored bars, null for what they do not say."""
    return [stored.c[name] if name in stored.c else cast(null(), kind).label(name) for name, kind in BAR.items()]


def trade_bar(trades: FromClause) -> list[ColumnElement[Any]]:
    """Return what a bar says of trades; those of one instant are in the order of their ids as text."""
    order = trades.c.timestamp, trades.c.trade_id
    return [
        *_prices(trades.c.price, *order),
        func.sum(trades.c.quantity).label("volume"),
        func.sum(trades.c.price * trades.c.quantity).label("turnover"),
        func.count().label("num_trades"),
        func.max(trades.c.created_at).label("created_at"),
    ]


def quote_bar(quotes: FromClause) -> list[ColumnElement[Any]]:
    """Return what a bar says of the mids of quotes, (bid + ask) / 2."""
    return [
        *_prices((quotes.c.bid_price + quotes.c.ask_price) / literal_column("2", Double), quotes.c.timestamp),
        func.count().label("num_quotes"),
        func.max(quotes.c.created_at).label("created_at"),
    ]


def merged_bar(bars: FromClause) -> list[ColumnElement[Any]]:
    """Return what a longer bar says that is made of shorter ones; sums where they have any."""
    return [
        _first(bars.c.open, bars.c.timestamp).label("open"),
        func.max(bars.c.high).label("high"),
        func.min(bars.c.low).label("low"),
        _last(bars.c.close, bars.c.timestamp).label("close"),
        *(func.sum(bars.c[name]).label(name) for name in ("volume", "turnover") if name in bars.c),
        *(
            cast(func.sum(bars.c[name]), BigInteger).label(name)
            for name in ("num_trades", "num_quotes")
            if name in bars.c
        ),
        func.max(bars.c.created_at).label("created_at"),
    ]


def _prices(price: ColumnElement[Any], *order: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    return [
        _first(price, *order).label("open"),
        func.max(price).label("high"),
        func.min(price).label("low"),
        _last(price, *order).label("close"),
    ]


# Not TimescaleDB's first() and last(): by two columns they take a row, which parallel workers cannot hand over.
def _first(value: ColumnElement[Any], *order: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.array_agg(aggregate_order_by(value, *order))[1]


def _last(value: ColumnElement[Any], *order: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.array_agg(aggregate_order_by(value, *order))[func.count()]


@dataclass(frozen=True, slots=True)
class RollUp:
    """How the candles of one source are made: of which rows, what a bar says of them, and the views of it."""

    source: CandleSource
    rows: Table
    bar: tuple[ColumnElement[Any], ...]
    minutes: ContinuousAggregate
    hours: ContinuousAggregate
    days: ContinuousAggregate

    @property
    def views(self) -> tuple[ContinuousAggregate, ...]:
        """The views, each after the one that it is stacked on."""
        return self.minutes, self.hours, self.days


def _roll_up(source: CandleSource, rows: Table, bar: list[ColumnElement[Any]], name: str) -> RollUp:
    minutes = _view(f"{name}_1m", rows, MINUTE, bar, _MINUTES_REFRESH, 7 * DAY)
    hours = _view(f"{name}_1h", minutes.table, HOUR, merged_bar(minutes.table), _HOURS_REFRESH, 365 * DAY)
    days = _view(f"{name}_1d", hours.table, DAY, merged_bar(hours.table), _DAYS_REFRESH, 3650 * DAY)
    return RollUp(source, rows, tuple(bar), minutes, hours, days)


def _view(
    name: str, over: Table, width: timedelta, bar: list[ColumnElement[Any]], refresh: Refresh, chunk: timedelta
) -> ContinuousAggregate:
    bucket = time_bucket(width, over.c.timestamp)
    query = select(over.c.symbol_id, bucket.label("timestamp"), *bar).group_by(over.c.symbol_id, bucket)
    return ContinuousAggregate(name, Base.metadata, query, refresh=refresh, chunk_interval=chunk)


_TRADES: Table = TradeSnapshot.__table__
_QUOTES: Table = BookTickerSnapshot.__table__

ROLL_UPS: Mapping[CandleSource, RollUp] = MappingProxyType(
    {
        CandleSource.TRADES: _roll_up(CandleSource.TRADES, _TRADES, trade_bar(_TRADES), "trade_candles"),
        CandleSource.QUOTES: _roll_up(CandleSource.QUOTES, _QUOTES, quote_bar(_QUOTES), "quote_candles"),
    }
)
