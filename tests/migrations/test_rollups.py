"""Revision 0006 on a database that holds trades and quotes already: their candles outlive them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, text

from alembic_timescaledb import server
from arbstore import migrations
from arbstore.database import Database, Store
from arbstore.models import CandleRollup
from arbstore.records import CandleSource, Symbol
from tests.services.bars import DAY, Row, assert_right, hard_quotes, hard_trades, rows_of
from tests.services.cases import open_market
from tests.services.test_refreshed_rollups import run_jobs

TABLES = ("trade_snapshots", "book_ticker_snapshots")
SOURCES = (CandleSource.TRADES, CandleSource.QUOTES)
Rows = dict[CandleSource, list[Row]]


async def all_rows(store: Store, symbol: Symbol) -> Rows:
    return {source: await rows_of(store, symbol, source) for source in SOURCES}


async def filled(db: Database) -> tuple[Symbol, Rows]:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    async with db.begin() as store:
        symbol = (await open_market(store)).btc
        for age in (20 * DAY, timedelta(hours=64), DAY):
            await store.trades.insert(hard_trades(symbol, now - age))
            await store.book_tickers.insert(hard_quotes(symbol, now - age))
        return symbol, await all_rows(store, symbol)


async def assert_candles(db: Database, symbol: Symbol, expected: Rows) -> None:
    async with db.begin() as store:
        for source in SOURCES:
            await assert_right(store, symbol, expected[source], source)


async def test_candles_of_rows_that_were_there_before_outlive_them(committed_db: Database) -> None:
    db = committed_db
    async with db.engine.connect() as connection:
        await connection.run_sync(migrations.downgrade, "0005")
        symbol, before = await filled(db)
        await connection.run_sync(migrations.upgrade)
        has_policies = (await connection.run_sync(server.edition)).has_policies
        await connection.run_sync(server.pause_policies)
        await connection.commit()
    await assert_candles(db, symbol, before)
    if has_policies:
        await run_jobs(db, "policy_refresh_continuous_aggregate", "trade_candles_1m", "quote_candles_1m")
        async with db.engine.begin() as connection:
            for table in TABLES:  # as the server's own job does it, a day later
                await connection.execute(select(func.drop_chunks(table, text("INTERVAL '2 days'"))))
    else:
        async with db.begin() as store:
            await store.maintenance.cleanup(dict.fromkeys(TABLES, 2 * DAY))
    async with db.begin() as store:
        left = await all_rows(store, symbol)
    for source in SOURCES:
        assert 0 < len(left[source]) < len(before[source]) / 2
    await assert_candles(db, symbol, before)


async def test_what_the_policies_look_for_is_left_to_them(committed_db: Database) -> None:
    async with committed_db.engine.connect() as connection:
        await connection.run_sync(migrations.downgrade, "0005")
        await filled(committed_db)
        await connection.run_sync(migrations.upgrade)
        newest = await connection.scalar(select(func.max(CandleRollup.timestamp)))
        if (await connection.run_sync(server.edition)).has_policies:
            assert newest is not None
            assert timedelta(hours=59) < datetime.now(UTC) - newest < timedelta(hours=64)
        else:
            assert newest is None  # a cleanup makes them
