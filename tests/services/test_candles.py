"""Candles as feeds deliver them: their origin, their spelling, and which of two is complete."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from arbstore.database import Store
from arbstore.errors import ValidationError
from arbstore.records import Origin, StoredCandle
from tests.conftest import NOON
from tests.services.bars import DAY, HOUR, MINUTE, PAIR, SECOND, trade
from tests.services.cases import Market


def bar(
    market: Market, timeframe: str = "1h", at: datetime = NOON, close: float = 1.0, **fields: Any
) -> dict[str, Any]:
    prices = dict.fromkeys(("open", "high", "low"), close)
    return {"symbol_id": market.btc.id, "timeframe": timeframe, "timestamp": at, "close": close} | prices | fields


async def history(store: Store, timeframe: str = "1h", **more: Any) -> list[StoredCandle]:
    return await store.candles.history(*PAIR, timeframe, **more)


async def test_candles_of_one_time_are_kept_apart_by_their_origin(store: Store, market: Market) -> None:
    delivered = [origin for origin in Origin if not origin.is_made]
    await store.candles.insert(bar(market, close=1.0 + number, origin=one) for number, one in enumerate(delivered))
    assert [[row.close for row in await history(store, origin=one)] for one in delivered] == [
        [1.0],
        [2.0],
        [3.0],
        [4.0],
    ]
    assert [row.close for row in await history(store)] == [1.0]
    assert [row.origin for row in await store.candles.latest(origin="Mark")] == [Origin.MARK]
    assert [row.origin for row in await store.candles.latest()] == [Origin.FEED]


@pytest.mark.parametrize("more", [0, 600], ids=["few", "copied"])
async def test_an_unfinished_candle_never_replaces_a_complete_one(store: Store, market: Market, more: int) -> None:
    others = [bar(market, "1m", NOON + number * MINUTE) for number in range(more)]
    for closed, close in ((False, 1.0), (True, 2.0), (False, 3.0)):
        await store.candles.insert([bar(market, close=close, is_closed=closed), *others])
    assert [(row.close, row.is_closed) for row in await history(store)] == [(2.0, True)]
    await store.candles.insert([bar(market, close=4.0, is_closed=True), *others])  # a correction of the feed
    batch = [bar(market, at=NOON + HOUR, close=close, is_closed=close == 6.0) for close in (5.0, 6.0, 7.0)]
    assert (await store.candles.insert([*batch, *others])).superseded == 2
    assert [row.close for row in await history(store)] == [4.0, 6.0]


async def test_a_candle_without_a_word_is_closed_if_it_was_received_after_its_end(store: Store, market: Market) -> None:
    received = {NOON: NOON + HOUR, NOON + HOUR: NOON + 2 * HOUR - SECOND}
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    await store.candles.insert([bar(market, at=at, created_at=when) for at, when in received.items()])
    await store.candles.insert([bar(market, at=hour - HOUR), bar(market, at=hour)])
    assert [row.is_closed for row in await history(store)] == [True, False, True, False]


MISPLACED = [
    ("1m", SECOND),
    ("1h", MINUTE),
    ("4h", HOUR),
    ("1d", HOUR),
    ("1w", 12 * HOUR),  # noon of a Thursday, at midnight of the next day
    ("1M", 12 * HOUR),
    ("7m", SECOND),
    ("3d", HOUR),
]


async def test_a_bar_that_does_not_begin_where_its_timeframe_does_is_refused(store: Store, market: Market) -> None:
    for timeframe, beyond in MISPLACED:
        with pytest.raises(ValidationError, match=f"is not when a bar of {timeframe} begins") as caught:
            await store.candles.insert([bar(market), bar(market, timeframe, NOON + beyond)])
        assert (caught.value.row, caught.value.field) == (1, "timestamp")
    midnight, monday = NOON - 12 * HOUR, NOON - 12 * HOUR - 3 * DAY
    good = {"4h": NOON, "1d": midnight, "3d": midnight, "7m": NOON, "1w": monday, "1M": midnight - 7 * DAY}
    await store.candles.insert(bar(market, timeframe, at) for timeframe, at in good.items())
    assert await history(store) == []


async def test_candles_that_are_made_here_cannot_be_written(store: Store, market: Market) -> None:
    for origin in ("trades", "quotes"):
        with pytest.raises(ValidationError, match="such candles are made here") as caught:
            await store.candles.insert([bar(market), bar(market, origin=origin)])
        assert (caught.value.row, caught.value.field) == (1, "origin")


async def test_a_length_has_one_spelling(store: Store, market: Market) -> None:
    await store.candles.insert([bar(market, "60m"), bar(market, " 3600S ", close=2.0)])
    assert [(row.timeframe, row.close) for row in await history(store, "60M".lower())] == [("1h", 2.0)]


async def test_candles_shorter_than_a_minute_are_made_of_rows(store: Store, market: Market) -> None:
    moments = [NOON + number * timedelta(milliseconds=700) for number in range(20)]
    await store.trades.insert(trade(market.btc, at, number, 1.0 + number) for number, at in enumerate(moments))
    for length in (1, 5, 15, 90):
        found = await history(store, f"{length}s", origin="trades")
        begins = [at - (at - NOON) % timedelta(seconds=length) for at in moments]
        assert [row.timestamp for row in found] == sorted(set(begins))
        assert [row.num_trades for row in found] == [begins.count(row.timestamp) for row in found]
    assert await history(store, "1s", origin="trades", limit=2) == (await history(store, "1s", origin="trades"))[-2:]
