"""What candles of trades and quotes have to be, worked out row by row; and rows that are hard to get right."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import fsum, isclose
from typing import NamedTuple

from arbstore.database import Store
from arbstore.records import BookTicker, Origin, Side, StoredCandle, Symbol, Trade

PAIR = ("BINANCE_SPOT", "BTC", "USDT")
MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
FOREVER = datetime(2000, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)


class Bar(NamedTuple):
    """A candle, as far as its rows say it."""

    timestamp: datetime
    open: float
    high: float
    low: float
    close: float
    num_trades: int | None
    created_at: datetime
    volume: float | None
    vwap: float | None


@dataclass(frozen=True)
class Row:
    """A price that was paid or quoted."""

    timestamp: datetime
    created_at: datetime
    price: float
    quantity: float | None


BEGINS: dict[str, Callable[[datetime], datetime]] = {
    "1m": lambda at: at.replace(second=0, microsecond=0),
    "5m": lambda at: at.replace(minute=at.minute // 5 * 5, second=0, microsecond=0),
    "90m": lambda at: (day := begin_of_day(at)) + (at - day) // (90 * MINUTE) * 90 * MINUTE,
    "1h": lambda at: at.replace(minute=0, second=0, microsecond=0),
    "4h": lambda at: at.replace(hour=at.hour // 4 * 4, minute=0, second=0, microsecond=0),
    "1d": lambda at: begin_of_day(at),
    "1w": lambda at: begin_of_day(at) - at.weekday() * DAY,
    "1M": lambda at: begin_of_day(at).replace(day=1),
    "3M": lambda at: begin_of_day(at).replace(day=1, month=(at.month - 1) // 3 * 3 + 1),
    "12M": lambda at: begin_of_day(at).replace(day=1, month=1),
}


def begin_of_day(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def bars(rows: Iterable[Row], timeframe: str) -> list[Bar]:
    """Return the candles of rows that are in their order."""
    buckets: dict[datetime, list[Row]] = {}
    for row in rows:
        buckets.setdefault(BEGINS[timeframe](row.timestamp), []).append(row)
    return [bar(begin, buckets[begin]) for begin in sorted(buckets)]


def bar(begin: datetime, rows: Sequence[Row]) -> Bar:
    prices = [row.price for row in rows]
    traded = [(row.price, row.quantity) for row in rows if row.quantity is not None]
    volume = fsum(quantity for _, quantity in traded) if traded else None
    return Bar(
        timestamp=begin,
        open=prices[0],
        high=max(prices),
        low=min(prices),
        close=prices[-1],
        num_trades=len(traded) or None,
        created_at=max(row.created_at for row in rows),
        volume=volume,
        vwap=fsum(price * quantity for price, quantity in traded) / volume if volume else None,
    )


async def rows_of(store: Store, symbol: Symbol, origin: Origin) -> list[Row]:
    """Return what is stored of the symbol, in the order of its table."""
    if origin is Origin.TRADES:
        trades = await store.trades.history_by_id(symbol.id)
        return [Row(trade.timestamp, trade.created_at, trade.price, trade.quantity) for trade in trades]
    quotes = await store.book_tickers.history_by_id(symbol.id)
    return [Row(quote.timestamp, quote.created_at, quote.mid, None) for quote in quotes]


def seen(candles: Iterable[StoredCandle]) -> list[Bar]:
    return [Bar(*(getattr(candle, name) for name in Bar._fields)) for candle in candles]


def assert_same(found: Sequence[Bar], expected: Sequence[Bar]) -> None:
    """Prices, counts and times are equal; sums, which depend on the order of their rows, to 1e-12."""
    assert [bar[:7] for bar in found] == [bar[:7] for bar in expected]
    for name in ("volume", "vwap"):
        for mine, theirs in zip(found, expected, strict=True):
            one, other = getattr(mine, name), getattr(theirs, name)
            assert one == other or isclose(one, other, rel_tol=1e-12, abs_tol=0.0), (name, mine, theirs)


def trade(symbol: Symbol, at: datetime, trade_id: object, price: float, quantity: float = 1.0) -> Trade:
    return Trade(
        symbol_id=symbol.id,
        timestamp=at,
        trade_id=str(trade_id),
        price=price,
        quantity=quantity,
        side=Side.BUY,
        created_at=at + SECOND,
    )


def hard_trades(symbol: Symbol, start: datetime) -> list[Trade]:
    """Return trades of some hours: ties, gaps, edges of bars, lonely ones, nothing traded, sums of unlike sizes."""
    dice = random.Random(7)  # noqa: S311 # no secret
    made: list[tuple[datetime, object, float, float]] = []
    for _ in range(300):  # hundreds in one instant, whose ids have no order of their own
        made.append((start, dice.randrange(10**9), 100 + dice.random(), dice.random()))
    for minute in (0, 1, 2, 7, 59, 60, 61, 119, 180):  # both edges of bars of every length
        at = start + minute * MINUTE
        made += [(at, "first", 90 + minute, 1e-9), (at - MICROSECOND, "last", 200 - minute, 1e9)]
        made += [(at + MINUTE - MICROSECOND, f"a{n}", 100 + n, 0.1) for n in (9, 10, 100)]
    made.append((start + 95 * MINUTE, "nothing", 101.5, 0.0))
    made.append((start + 100 * MINUTE, "lonely", 1e-8, 123.456))
    for number in range(2_000):
        made.append((start + dice.randrange(3_600) * SECOND, number, 100 + dice.gauss(0, 1), dice.expovariate(1)))
    return [trade(symbol, *row) for row in made]


def hard_quotes(symbol: Symbol, start: datetime) -> list[BookTicker]:
    dice = random.Random(8)  # noqa: S311 # no secret
    moments = {start + dice.randrange(4 * 3_600) * SECOND + dice.randrange(3) * MICROSECOND for _ in range(2_000)}
    moments |= {start + n * MINUTE - MICROSECOND * edge for n in (0, 1, 60, 61, 120) for edge in (0, 1)}
    bids = {at: 100 + dice.gauss(0, 1) for at in moments}
    return [
        BookTicker(
            symbol_id=symbol.id,
            timestamp=at,
            bid_price=bid,
            bid_qty=1.0,
            ask_price=bid + dice.gauss(0.1, 0.2),  # some are crossed
            ask_qty=2.0,
            created_at=at + SECOND,
        )
        for at, bid in bids.items()
    ]


async def assert_right(store: Store, symbol: Symbol, rows: Sequence[Row], origin: Origin, *frames: str) -> None:
    """The candles of the timeframes, of all by default, are those of the rows."""
    for timeframe in frames or BEGINS:
        found = await store.candles.history_by_id(symbol.id, timeframe=timeframe, origin=origin)
        assert_same(seen(found), bars(rows, timeframe))
