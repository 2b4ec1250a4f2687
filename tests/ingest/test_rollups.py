"""Files of trades and quotes that are older than what a server makes candles of: their candles outlive them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from arbstore.database import Database
from arbstore.ingest import Expired, IngestOptions, ingest
from arbstore.models import CandleRollup
from arbstore.records import CandleSource, Symbol
from tests.ingest.reading import book_ticker, trade, write
from tests.services.bars import DAY, HOUR, MINUTE, SECOND, Row, assert_right, rows_of
from tests.services.test_refreshed_rollups import refreshed_db, run_jobs

__all__ = ["refreshed_db"]

FUTURES = "BINANCE_FUTURES"
MINUTES = ("trade_candles_1m", "quote_candles_1m")
TABLES = ("trade_snapshots", "book_ticker_snapshots")
SOURCES = (CandleSource.TRADES, CandleSource.QUOTES)


def ago(age: timedelta) -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0) - age


def lines(times: Iterable[datetime], price: float = 100.0) -> list[str]:
    found = []
    for number, at in enumerate(times):
        stamp = {"T": round(at.timestamp() * 1000)}
        found.append(trade(t=round(at.timestamp()), p=str(price + number), **stamp))
        found.append(book_ticker(b=str(price + number), a=str(price + number + 1), **stamp))
    return found


async def written(db: Database, folder: Path, found: Sequence[str], expired: Expired = Expired.ANYWAY) -> Symbol:
    await ingest(db, [write(folder / "a.jsonl", *found)], IngestOptions(exchange=FUTURES, expired=expired))
    async with db.begin() as store:
        (newest,) = await store.trades.latest()
        return await store.symbols.get_one(newest.symbol_id)


async def rows(db: Database, symbol: Symbol) -> dict[CandleSource, list[Row]]:
    async with db.begin() as store:
        return {source: await rows_of(store, symbol, source) for source in SOURCES}


async def assert_candles(db: Database, symbol: Symbol, expected: dict[CandleSource, list[Row]]) -> None:
    async with db.begin() as store:
        for source in SOURCES:
            assert expected[source]
            await assert_right(store, symbol, expected[source], source)


async def rolled_up(db: Database) -> list[datetime]:
    statement = select(CandleRollup.timestamp).where(CandleRollup.source == "trades").order_by(CandleRollup.timestamp)
    async with db.begin() as store:
        return list(await store.session.scalars(statement))


@pytest.mark.parametrize("age", [20 * DAY, timedelta(hours=61)])
async def test_candles_outlive_rows_that_no_refresh_reaches(
    refreshed_db: Database, tmp_path: Path, age: timedelta
) -> None:
    db, old = refreshed_db, ago(age)
    symbol = await written(db, tmp_path, lines([old, old + 59 * SECOND, old + MINUTE, ago(HOUR)]))
    before = await rows(db, symbol)
    await run_jobs(db, "policy_refresh_continuous_aggregate", *MINUTES)
    async with db.begin() as store:
        for table in TABLES:
            await store.session.execute(
                select(func.drop_chunks(table, ago(timedelta(0)) - DAY))  # as the server's own job does it
            )
    assert len((await rows(db, symbol))[CandleSource.TRADES]) == 1
    await assert_candles(db, symbol, before)
    await run_jobs(db, "policy_refresh_continuous_aggregate", *MINUTES)
    await assert_candles(db, symbol, before)


@pytest.mark.parametrize("expired", [Expired.ANYWAY, Expired.KEEP])
async def test_what_comes_late_is_in_the_candles_with_all_that_was_there(
    refreshed_db: Database, tmp_path: Path, expired: Expired
) -> None:
    db, old = refreshed_db, ago(20 * DAY)
    symbol = await written(db, tmp_path, lines([old, old + 3 * MINUTE]), expired)
    late = [old + SECOND * n for n in (1, 7, 50, 70, 190)]
    await written(db, tmp_path, lines(late, 200.0), expired)
    before = await rows(db, symbol)
    assert len(before[CandleSource.TRADES]) == 7
    await assert_candles(db, symbol, before)
    await run_jobs(db, "policy_refresh_continuous_aggregate", *MINUTES)
    await assert_candles(db, symbol, before)


async def test_only_the_minutes_of_old_days_are_rolled_up(refreshed_db: Database, tmp_path: Path) -> None:
    between, young = ago(10 * DAY), ago(2 * DAY)
    async with refreshed_db.begin() as store:
        await store.maintenance.set_retention("trade_snapshots", None)
        await store.maintenance.set_retention("book_ticker_snapshots", None)
    symbol = await written(refreshed_db, tmp_path, lines([young]))
    async with refreshed_db.begin() as store:  # not by a file: of a day that no file is of
        await store.trades.insert(
            [
                {
                    "symbol_id": symbol.id,
                    "timestamp": between,
                    "trade_id": "1",
                    "price": 1.0,
                    "quantity": 1.0,
                    "side": "buy",
                }
            ]
        )
    old = [ago(20 * DAY), ago(5 * DAY)]
    await written(refreshed_db, tmp_path, lines([*old, young + SECOND]))
    assert await rolled_up(refreshed_db) == old


async def test_where_a_cleanup_makes_the_candles_an_ingest_makes_none(db: Database, tmp_path: Path) -> None:
    async with db.begin() as store:
        if await store.candles.unrefreshed_before("trades") is not None:
            pytest.skip("the server keeps candles computed")
    symbol = await written(db, tmp_path, lines([ago(20 * DAY)]))
    before = await rows(db, symbol)
    assert await rolled_up(db) == []
    async with db.begin() as store:
        await store.maintenance.cleanup()
    assert len(await rolled_up(db)) == 1
    await assert_candles(db, symbol, before)
