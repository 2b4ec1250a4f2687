"""Candles made of trades and of quotes: the same answer on every edition."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from arbstore.database import Database, Store
from arbstore.errors import UnknownExchangeError, UnknownSymbolError, ValidationError
from arbstore.ingest import ingest
from arbstore.records import Candle, Origin, StoredCandle
from tests.conftest import NOON, quote
from tests.ingest.reading import historic
from tests.services.bars import (
    BEGINS,
    DAY,
    HOUR,
    MICROSECOND,
    MINUTE,
    PAIR,
    SECOND,
    assert_right,
    assert_same,
    hard_quotes,
    hard_trades,
    rows_of,
    seen,
    trade,
)
from tests.services.cases import Case, Market

TRADES, QUOTES = Origin.TRADES, Origin.QUOTES
both = pytest.mark.parametrize("origin", [TRADES, QUOTES])


async def fill(store: Store, market: Market, start: datetime = NOON) -> None:
    for symbol, at in ((market.btc, start), (market.eth, start + 7 * SECOND)):
        await store.trades.insert(hard_trades(symbol, at))
        await store.book_tickers.insert(hard_quotes(symbol, at))


async def history(store: Store, timeframe: str, origin: str = TRADES, **window: Any) -> list[StoredCandle]:
    return await store.candles.history(*PAIR, timeframe, origin=origin, **window)


def minutes(candles: Sequence[StoredCandle]) -> list[int]:
    return [round((candle.timestamp - NOON) / MINUTE) for candle in candles]


@both
async def test_candles_are_those_of_their_rows(store: Store, market: Market, origin: Origin) -> None:
    await fill(store, market)
    for symbol in (market.btc, market.eth):
        await assert_right(store, symbol, await rows_of(store, symbol, origin), origin)


@both
async def test_candles_are_those_of_their_rows_where_sessions_have_another_zone(
    store: Store, market: Market, origin: Origin
) -> None:
    await store.session.execute(text("SET LOCAL TIME ZONE 'America/New_York'"))
    await fill(store, market, datetime(2024, 3, 31, 22, 30, tzinfo=UTC))  # over the end of a month, and of a quarter
    await assert_right(store, market.btc, await rows_of(store, market.btc, origin), origin)


async def test_a_candle_says_what_it_is_of(store: Store, market: Market) -> None:
    late = NOON + 59 * SECOND
    await store.trades.insert([trade(market.btc, NOON, 1, 10.0, 3.0), trade(market.btc, late, 2, 20.0, 1.0)])
    assert await history(store, "1M") == [
        StoredCandle(
            symbol_id=market.btc.id,
            timestamp=datetime(2024, 8, 1, tzinfo=UTC),
            created_at=late + SECOND,
            origin=TRADES,
            timeframe="1M",
            is_closed=True,
            open=10.0,
            high=20.0,
            low=10.0,
            close=20.0,
            volume=4.0,
            vwap=12.5,
            num_trades=2,
            exchange="BINANCE_SPOT",
            symbol_base="BTC",
            symbol_quote="USDT",
            exchange_symbol="BTCUSDT",
        )
    ]


async def test_quotes_have_mids_and_nothing_that_is_of_trades(store: Store, market: Market) -> None:
    await store.book_tickers.insert([quote(market.btc, 100.0), quote(market.btc, 103.0, NOON + SECOND)])
    (found,) = await history(store, "1m", QUOTES)
    assert (found.open, found.high, found.low, found.close) == (100.5, 103.5, 100.5, 103.5)
    assert (found.volume, found.vwap, found.num_trades) == (None, None, None)


async def test_trades_of_one_instant_open_and_close_in_the_order_of_the_table(store: Store, market: Market) -> None:
    # As they came, which the server would keep without an index.
    await store.session.execute(text("SET LOCAL enable_indexscan = off"))
    for price, trade_id in enumerate(["b", "9", "10", "a"], 1):
        await store.trades.insert([trade(market.btc, NOON, trade_id, float(price))])
    stored = await store.trades.history(*PAIR)
    (found,) = await history(store, "1m")
    assert (found.open, found.close) == (stored[0].price, stored[-1].price)


async def test_feeds_are_asked_unless_told_otherwise(store: Store, market: Market) -> None:
    feed = Case(Candle).row(market, timeframe="1m")
    await store.candles.insert([feed])
    await store.trades.insert([trade(market.btc, NOON, 1, 10.0)])
    assert [row.open for row in await store.candles.history(*PAIR, "1m")] == [feed.open]
    assert [row.open for row in await history(store, "1m", "Feed")] == [feed.open]
    assert [row.open for row in await history(store, "1m", "TRADES")] == [10.0]
    assert [row.open for row in await store.candles.history_by_id(market.btc.id)] == [feed.open]
    assert [row.open for row in await store.candles.history_by_id(market.btc.id, timeframe="5m")] == []


async def test_no_rows_are_no_candles(store: Store, market: Market) -> None:
    await store.trades.insert([trade(market.eth, NOON, 1, 10.0)])
    for origin in (TRADES, QUOTES):
        assert await history(store, "1m", origin) == []
        assert await history(store, "1d", origin, limit=3, since=NOON) == []


async def sparse(store: Store, market: Market) -> None:
    """A trade in each of the minutes 0, 1, 2, 10 and 100."""
    await store.trades.insert(
        trade(market.btc, NOON + minute * MINUTE + 30 * SECOND, 1, 10.0 + minute) for minute in (0, 1, 2, 10, 100)
    )


WINDOWS: list[tuple[datetime | None, datetime | None, list[int]]] = [
    (None, None, [0, 1, 2, 10, 100]),
    (NOON + MINUTE, NOON + 10 * MINUTE, [1, 2]),
    (NOON + MICROSECOND, NOON + 2 * MINUTE, [1]),
    (NOON, NOON + MICROSECOND, [0]),  # the whole bar, though its rows are later
    (NOON, NOON, []),
    (NOON + 11 * MINUTE, None, [100]),
    (NOON + 101 * MINUTE, None, []),
    (None, NOON, []),
    (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), [0, 1, 2, 10, 100]),
    (datetime.max.replace(tzinfo=UTC), None, []),
    (None, datetime.min.replace(tzinfo=UTC), []),
]


async def test_a_window_is_of_when_bars_begin(store: Store, market: Market) -> None:
    await sparse(store, market)
    for since, until, expected in WINDOWS:
        assert minutes(await history(store, "1m", since=since, until=until)) == expected, (since, until)


async def test_a_limit_takes_the_newest_however_far_apart_they_are(store: Store, market: Market) -> None:
    await sparse(store, market)
    assert minutes(await history(store, "1m", limit=1)) == [100]
    assert minutes(await history(store, "1m", limit=2)) == [10, 100]
    assert minutes(await history(store, "1m", limit=4)) == [1, 2, 10, 100]
    assert minutes(await history(store, "1m", limit=10**9)) == [0, 1, 2, 10, 100]
    assert minutes(await history(store, "1m", limit=2, until=NOON + 10 * MINUTE)) == [1, 2]
    assert minutes(await history(store, "1m", limit=9, since=NOON + 2 * MINUTE)) == [2, 10, 100]
    assert minutes(await history(store, "1h", limit=1)) == [60]


@both
async def test_any_limit_and_window_is_a_part_of_the_whole(store: Store, market: Market, origin: Origin) -> None:
    await fill(store, market)
    for timeframe in ("1m", "5m", "1h"):
        whole = await history(store, timeframe, origin)
        for limit in (1, 2, 7, 50, 10_000):
            assert await history(store, timeframe, origin, limit=limit) == whole[-limit:]
            until = whole[len(whole) // 2].timestamp
            before = [candle for candle in whole if candle.timestamp < until]
            assert await history(store, timeframe, origin, limit=limit, until=until) == before[-limit:]
            assert await history(store, timeframe, origin, until=until) == before


UNEVEN = [
    ("7m", "does not divide a day"),
    ("5h", "does not divide a day"),
    ("2d", "does not divide a day"),
    ("2w", "does not divide a day"),
    ("5M", "does not divide a year"),
    ("7s", "does not divide a day"),
    ("fast", "such as 1m"),
]


async def test_a_timeframe_that_comes_out_uneven_is_refused(store: Store, market: Market) -> None:
    for timeframe, reason in UNEVEN:
        with pytest.raises(ValidationError, match=reason) as caught:
            await history(store, timeframe)
        assert caught.value.field == "timeframe"


async def test_what_is_no_question_is_refused(store: Store, market: Market) -> None:
    for field, wanted in (("origin", {"origin": "ticks"}), ("since", {"since": NOON, "until": NOON - DAY})):
        with pytest.raises(ValidationError) as caught:
            await history(store, "1m", **wanted)
        assert caught.value.field == field
    for limit in (0, -1):
        with pytest.raises(ValidationError, match="from 1 to"):
            await history(store, "1m", limit=limit)
    with pytest.raises(ValidationError, match="missing"):
        await store.candles.history_by_id(market.btc.id, origin=TRADES)
    with pytest.raises(UnknownSymbolError):
        await store.candles.history("BINANCE_SPOT", "DOGE", "USDT", "1m", origin=TRADES)
    with pytest.raises(UnknownExchangeError):
        await store.candles.history("KRAKEN_SPOT", "BTC", "USDT", "1m", origin=TRADES)


async def test_candles_of_real_recordings_are_those_of_their_rows(db: Database, recordings: Path) -> None:
    files = sorted((recordings / "ticks").glob("binance_usdm_*.jsonl.gz"))
    await ingest(db, files, historic(exchange="BINANCE_FUTURES"))
    async with db.begin() as store:
        for base in ("BTC", "ETH"):
            for origin in (TRADES, QUOTES):
                (newest, *_) = await store.trades.latest("BINANCE_FUTURES", base)
                symbol = await store.symbols.get_one(newest.symbol_id)
                rows = await rows_of(store, symbol, origin)
                assert len(rows) > 400
                await assert_right(store, symbol, rows, origin)


async def old_and_young(store: Store, market: Market) -> datetime:
    """Fill hours that are over their retention and one that is not, and return the end of the former."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 3 * DAY - 5 * HOUR
    await fill(store, market, end - 5 * HOUR)
    await fill(store, market, end + 4 * DAY)
    return end


async def whole(store: Store, market: Market, origin: Origin) -> dict[str, list[Any]]:
    found = {}
    for symbol in (market.btc, market.eth):
        for timeframe in BEGINS:
            candles = await store.candles.history_by_id(symbol.id, timeframe=timeframe, origin=origin)
            found[f"{symbol.symbol_base} {timeframe}"] = seen(candles)
    return found


def assert_all_same(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    assert found.keys() == expected.keys()
    for name, candles in found.items():
        assert_same(candles, expected[name])


@pytest.mark.parametrize(("origin", "batch_size"), [(TRADES, 1_000), (QUOTES, 97)])
async def test_candles_outlive_their_rows(store: Store, market: Market, origin: Origin, batch_size: int) -> None:
    await old_and_young(store, market)
    before = await whole(store, market, origin)
    rows = len(await rows_of(store, market.btc, origin))
    cleaned = await store.maintenance.cleanup(batch_size=batch_size)
    assert sum(done.rows + done.chunks for done in cleaned) > 0
    assert len(await rows_of(store, market.btc, origin)) < rows
    assert_all_same(await whole(store, market, origin), before)
    await store.maintenance.cleanup(dict.fromkeys(("trade_snapshots", "book_ticker_snapshots"), HOUR))
    assert_all_same(await whole(store, market, origin), before)
