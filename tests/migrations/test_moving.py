"""Revision 0007 on a database that holds candles, rolled-up minutes and rows: all of them move, also after a kill."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from alembic_timescaledb import server
from arbstore import migrations
from arbstore.database import Database
from arbstore.records import Origin
from tests.services.bars import DAY, HOUR, MINUTE, Row, assert_right, hard_trades, rows_of
from tests.services.cases import Market, open_market

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
WEEK = 7 * DAY
ROLLED = (
    "INSERT INTO candle_rollups"
    " (symbol_id, source, timestamp, open, high, low, close, volume, turnover, num_trades, num_quotes) VALUES"
)


async def run(db: Database, statement: str, **values: Any) -> None:
    async with db.engine.begin() as connection:
        await connection.execute(text(statement), values)


async def deployed(db: Database, revision: str) -> None:
    async with db.engine.connect() as connection:
        await connection.run_sync(migrations.upgrade if revision == "head" else migrations.downgrade, revision)
        await connection.run_sync(server.pause_policies)
        await connection.commit()


async def filled(db: Database) -> Market:
    """Fill the schema of revision 0006: three weeks of feeds' candles, in columnstores where there are some."""
    async with db.begin() as store:
        market = await open_market(store)
    await deployed(db, "0006")
    btc = market.btc.id
    for hours in (week * 168 + hour for week in range(3) for hour in range(5)):
        await candle(db, market.eth.id if hours >= 168 else btc, "1h", MONDAY + hours * HOUR, 2 + hours % 7 / 10)
    await candle(db, btc, "60m", MONDAY, 3.5, received=MONDAY + DAY)  # another spelling of the first, received later
    await candle(db, btc, "1d", MONDAY, 3.0, received=MONDAY)  # received before its end
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    for number in range(3):
        values = {"id": btc, "at": now - 10 * DAY + number * MINUTE}
        await run(db, f"{ROLLED} (:id, 'trades', :at, 1, 4, 1, 2, 8, 20, 5, NULL)", **values)
        await run(db, f"{ROLLED} (:id, 'quotes', :at, 1, 4, 1, 2, NULL, NULL, NULL, 7)", **values)
    async with db.engine.connect() as connection:
        if (await connection.run_sync(server.edition)).has_policies:
            await connection.execute(text("SELECT compress_chunk(c, true) FROM show_chunks('candles') c"))
            await connection.commit()
    return market


async def candle(
    db: Database, symbol_id: int, timeframe: str, at: datetime, close: float, received: datetime = MONDAY + HOUR
) -> None:
    statement = (
        "INSERT INTO candles (symbol_id, timeframe, timestamp, open, high, low, close, created_at)"
        " VALUES (:id, :timeframe, :at, 1, 4, 1, :close, :received)"
    )
    await run(db, statement, id=symbol_id, timeframe=timeframe, at=at, close=close, received=received)


async def all_candles(db: Database) -> list[Any]:
    statement = text(
        "SELECT symbol_id, origin, timeframe, timestamp, close, vwap, num_trades, is_closed FROM candles"
        " ORDER BY origin, symbol_id, timeframe, timestamp"
    )
    async with db.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(statement)]


def assert_all_moved(found: list[Any], market: Market) -> None:
    feed = [row for row in found if row[1] == "feed"]
    assert len(feed) == 16
    assert {row[2] for row in feed} == {"1h", "1d"}
    (first,) = [row for row in feed if row[:4] == (market.btc.id, "feed", "1h", MONDAY)]
    assert (first[4], first[7]) == (3.5, True)
    assert [row[7] for row in feed if row[2] == "1d"] == [False]
    made = {origin: [row for row in found if row[1] == origin] for origin in ("trades", "quotes")}
    assert [(row[2], row[5], row[6]) for row in made["trades"]] == [("1m", 2.5, 5)] * 3
    assert [(row[2], row[5], row[6]) for row in made["quotes"]] == [("1m", None, None)] * 3


async def test_candles_move_up_and_down_and_up_again(committed_db: Database, caplog: pytest.LogCaptureFixture) -> None:
    market = await filled(committed_db)
    caplog.set_level("INFO", "alembic.runtime.migration")
    await deployed(committed_db, "head")
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("candles ")]
    assert "MB of disk must be free" in told[0]
    assert len(told) == len({*told}) > 2
    before = await all_candles(committed_db)
    assert_all_moved(before, market)
    async with committed_db.engine.connect() as connection:
        if (await connection.run_sync(server.edition)).has_policies:
            found = await connection.run_sync(server.columnstore_sizes)
            assert found["public", "candles"].in_columnstore == 3
    await deployed(committed_db, "0006")
    async with committed_db.engine.connect() as connection:
        counts = "SELECT (SELECT count(*) FROM candles), (SELECT count(*) FROM candle_rollups)"
        assert tuple((await connection.execute(text(counts))).one()) == (16, 6)
    await deployed(committed_db, "head")
    assert [row[:7] for row in await all_candles(committed_db)] == [row[:7] for row in before]


async def waits(connection: AsyncConnection) -> int | None:
    """Return the process that waits within the move."""
    found = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND query LIKE '%INSERT INTO candles_moving%'"
    )
    pid: int | None = await connection.scalar(text(found))
    return pid


async def test_a_move_that_was_killed_goes_on_and_nobody_writes_meanwhile(committed_db: Database) -> None:
    db, market = committed_db, await filled(committed_db)
    async with db.engine.connect() as holder, db.engine.connect() as watcher:
        # The second week has the first candles of this symbol: its foreign key makes the move wait there.
        await holder.execute(text("SELECT FROM symbols WHERE id = :id FOR UPDATE"), {"id": market.eth.id})
        move = asyncio.create_task(deployed(db, "head"))
        while (pid := await waits(watcher)) is None:
            assert not move.done()
            await watcher.rollback()
            await asyncio.sleep(0.02)
        with pytest.raises(DBAPIError, match="are moving to another table"):
            await candle(db, market.btc.id, "1h", MONDAY, 3.0)
        assert await watcher.scalar(text("SELECT count(*) FROM candles")) == 17
        assert await watcher.scalar(text("SELECT count(*) FROM candles_moving")) == 6
        await watcher.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(DBAPIError):
            await move
    async with db.engine.connect() as connection:
        assert await connection.run_sync(migrations.current) == "0006"
    await deployed(db, "head")
    assert_all_moved(await all_candles(db), market)


async def roll_up_half(db: Database, symbol_id: int, rows: list[Row], minute: datetime) -> None:
    """Store the minute and delete some of its rows, as an interrupted cleanup of that revision."""
    whole = [row for row in rows if minute <= row.timestamp < minute + MINUTE]
    values = "(:id, 'trades', :at, :open, :high, :low, :close, :volume, :turnover, :count, NULL)"
    prices = [row.price for row in whole]
    sums = {
        "volume": sum(row.quantity or 0 for row in whole),
        "turnover": sum(row.price * (row.quantity or 0) for row in whole),
    }
    edges = {"open": prices[0], "high": max(prices), "low": min(prices), "close": prices[-1]}
    await run(db, f"{ROLLED} {values}", id=symbol_id, at=minute, count=len(whole), **edges, **sums)
    await run(db, "UPDATE candle_rollups SET created_at = :at", at=max(row.created_at for row in whole))
    await run(db, "DELETE FROM trade_snapshots WHERE timestamp = :at", at=minute)


async def refresh(connection: AsyncConnection) -> None:
    """Compute the minutes; the server's own job may be doing that, and keeps others out meanwhile."""
    for _ in range(100):
        try:
            await connection.execute(text("CALL refresh_continuous_aggregate('trade_candles_1m', NULL, NULL)"))
            return
        except DBAPIError as error:
            if "concurrent refresh" not in str(error):
                raise
            await connection.rollback()
            await asyncio.sleep(0.1)
    pytest.fail("the server's own refresh does not end")


async def test_minutes_whose_rows_are_there_are_made_again_and_others_stay(committed_db: Database) -> None:
    """On the Community edition the views' minutes move; elsewhere those of a former cleanup."""
    db = committed_db
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    async with db.begin() as store:
        market = await open_market(store)
        await store.trades.insert([*hard_trades(market.btc, now - 2 * DAY), *hard_trades(market.btc, now - DAY)])
        rows = await rows_of(store, market.btc, Origin.TRADES)
    await deployed(db, "0006")
    async with db.engine.connect() as connection:
        jobs = (await connection.run_sync(server.edition)).has_policies
        await connection.rollback()
        alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
        if jobs:
            await refresh(alone)
            await alone.execute(text("SELECT drop_chunks('trade_snapshots', now() - INTERVAL '36 hours')"))
    if not jobs:
        await roll_up_half(db, market.btc.id, rows, now - 2 * DAY)
    await deployed(db, "head")
    async with db.begin() as store:
        assert len(await rows_of(store, market.btc, Origin.TRADES)) < len(rows)
        await assert_right(store, market.btc, rows, Origin.TRADES)
        await store.maintenance.cleanup(dict.fromkeys(("trade_snapshots", "book_ticker_snapshots"), timedelta(hours=1)))
        await assert_right(store, market.btc, rows, Origin.TRADES)


async def test_a_downgrade_refuses_to_lose_candles_of_other_origins(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        market = await open_market(store)
        candle = {"symbol_id": market.btc.id, "timeframe": "1m", "timestamp": MONDAY, "origin": "mark"}
        await store.candles.insert([candle | dict.fromkeys(("open", "high", "low", "close"), 1.0)])
    with pytest.raises(Exception, match="export them, delete them"):
        await deployed(committed_db, "0006")
