"""Candles made from our own trades and quotes: a table that keeps them, and views that a server keeps computed.

The views, the reads and the roll-ups of a cleanup all select the columns that are defined here.
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
from arbstore.models.series import BookTickerSnapshot, TradeSnapshot
from arbstore.records import CandleSource

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

# Well within the retention of the rows: a refresh over removed rows would remove their candles too.
_MINUTES_REFRESH = Refresh(start_offset=2 * DAY + 12 * HOUR, end_offset=MINUTE, every=5 * MINUTE)
# The views below these have no retention, so every change is followed, however old.
_HOURS_REFRESH = Refresh(start_offset=None, end_offset=HOUR, every=30 * MINUTE)
_DAYS_REFRESH = Refresh(start_offset=None, end_offset=HOUR, every=6 * HOUR)


class CandleRollup(Base):
    """One-minute candles of rows that were removed or may be. They are kept forever; `source` names the rows."""

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


# The columns of a candle, with their types. Candles of quotes leave out volume, turnover and number of trades. Candles
# of trades leave out the number of quotes.
_KEY = ("symbol_id", "source")
COLUMNS = {column.name: column.type for column in CandleRollup.__table__.c if column.name not in _KEY}


def stored_columns(stored: FromClause) -> list[ColumnElement[Any]]:
    """Return the columns of stored candles, null for those that they leave out."""
    return [stored.c[name] if name in stored.c else cast(null(), kind).label(name) for name, kind in COLUMNS.items()]


def from_trades(trades: FromClause) -> list[ColumnElement[Any]]:
    """Return the columns of a candle of trades. Trades of one instant are sorted by their ids as text."""
    order = trades.c.timestamp, trades.c.trade_id
    return [
        *_prices(trades.c.price, *order),
        func.sum(trades.c.quantity).label("volume"),
        func.sum(trades.c.price * trades.c.quantity).label("turnover"),
        func.count().label("num_trades"),
        func.max(trades.c.created_at).label("created_at"),
    ]


def from_quotes(quotes: FromClause) -> list[ColumnElement[Any]]:
    """Return the columns of a candle of the mids of quotes, (bid + ask) / 2."""
    return [
        *_prices((quotes.c.bid_price + quotes.c.ask_price) / literal_column("2", Double), quotes.c.timestamp),
        func.count().label("num_quotes"),
        func.max(quotes.c.created_at).label("created_at"),
    ]


def merged(shorter: FromClause) -> list[ColumnElement[Any]]:
    """Return the columns of a longer candle that is made of shorter ones, which may leave columns out."""
    return [
        _first(shorter.c.open, shorter.c.timestamp).label("open"),
        func.max(shorter.c.high).label("high"),
        func.min(shorter.c.low).label("low"),
        _last(shorter.c.close, shorter.c.timestamp).label("close"),
        *(func.sum(shorter.c[name]).label(name) for name in ("volume", "turnover") if name in shorter.c),
        *(
            cast(func.sum(shorter.c[name]), BigInteger).label(name)
            for name in ("num_trades", "num_quotes")
            if name in shorter.c
        ),
        func.max(shorter.c.created_at).label("created_at"),
    ]


def _prices(price: ColumnElement[Any], *order: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    return [
        _first(price, *order).label("open"),
        func.max(price).label("high"),
        func.min(price).label("low"),
        _last(price, *order).label("close"),
    ]


# TimescaleDB's first() and last() need a row type to sort by two columns, and parallel workers cannot pass rows on.
def _first(value: ColumnElement[Any], *order: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.array_agg(aggregate_order_by(value, *order))[1]


def _last(value: ColumnElement[Any], *order: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.array_agg(aggregate_order_by(value, *order))[func.count()]


@dataclass(frozen=True, slots=True)
class RollUp:
    """How the candles of one source are made: their rows, their columns, and their views."""

    source: CandleSource
    rows: Table
    columns: tuple[ColumnElement[Any], ...]
    minutes: ContinuousAggregate
    hours: ContinuousAggregate
    days: ContinuousAggregate

    @property
    def views(self) -> tuple[ContinuousAggregate, ...]:
        """The views, each after the view that it reads."""
        return self.minutes, self.hours, self.days


def _roll_up(source: CandleSource, rows: Table, columns: list[ColumnElement[Any]], name: str) -> RollUp:
    minutes = _view(f"{name}_1m", rows, MINUTE, columns, _MINUTES_REFRESH, 7 * DAY)
    hours = _view(f"{name}_1h", minutes.table, HOUR, merged(minutes.table), _HOURS_REFRESH, 365 * DAY)
    days = _view(f"{name}_1d", hours.table, DAY, merged(hours.table), _DAYS_REFRESH, 3650 * DAY)
    return RollUp(source, rows, tuple(columns), minutes, hours, days)


def _view(
    name: str, over: Table, width: timedelta, columns: list[ColumnElement[Any]], refresh: Refresh, chunk: timedelta
) -> ContinuousAggregate:
    bucket = time_bucket(width, over.c.timestamp)
    query = select(over.c.symbol_id, bucket.label("timestamp"), *columns).group_by(over.c.symbol_id, bucket)
    return ContinuousAggregate(name, Base.metadata, query, refresh=refresh, chunk_interval=chunk)


_TRADES: Table = TradeSnapshot.__table__
_QUOTES: Table = BookTickerSnapshot.__table__

ROLL_UPS: Mapping[CandleSource, RollUp] = MappingProxyType(
    {
        CandleSource.TRADES: _roll_up(CandleSource.TRADES, _TRADES, from_trades(_TRADES), "trade_candles"),
        CandleSource.QUOTES: _roll_up(CandleSource.QUOTES, _QUOTES, from_quotes(_QUOTES), "quote_candles"),
    }
)
