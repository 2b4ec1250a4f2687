from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text

from alembic_timescaledb import declared, server
from arbstore.database import Database, Store
from arbstore.models import Base
from arbstore.records import Balance, BookTicker, Candle, Tick
from arbstore.services.maintenance import TableStats
from tests.conftest import NOON
from tests.records.samples import TABLES
from tests.services.cases import Case, Market, open_market

MINUTE = timedelta(minutes=1)
every_path = pytest.mark.parametrize(
    "case", [Case(Tick), Case(Candle), Case(Balance)], ids=lambda case: case.kind.__name__
)
BOOKS = "book_ticker_snapshots"


async def stats_of(store: Store, table: str) -> TableStats:
    return next(stats for stats in await store.maintenance.stats() if stats.table == table)


async def hypertables(store: Store) -> set[str]:
    return set(await store.session.run_sync(lambda session: server.hypertables(session.connection())))


async def fill(store: Store, rows: int, *, seconds: int = 1, symbol_id: int = 1) -> None:
    """Write many book tickers of one symbol by the server itself."""
    await store.session.execute(
        text(
            f"INSERT INTO {BOOKS} (symbol_id, timestamp, bid_price, bid_qty, ask_price, ask_qty)"  # noqa: S608 # ours
            " SELECT :symbol_id, CAST(:start AS timestamptz) + number * CAST(:step AS interval), 1, 1, 2, 1"
            " FROM generate_series(0, :rows - 1) number"
        ),
        {"symbol_id": symbol_id, "start": NOON, "step": timedelta(seconds=seconds), "rows": rows},
    )


async def test_every_table_of_the_schema_is_told_by_name(store: Store) -> None:
    stats = await store.maintenance.stats()
    assert [table.table for table in stats] == sorted(Base.metadata.tables)


async def test_an_empty_database_has_no_rows_and_no_times(store: Store) -> None:
    split = await hypertables(store)
    for stats in await store.maintenance.stats():
        assert stats[1:3] == (2 if stats.table == "ledger" else 0, False)
        assert stats[4:] == (None, None, 0 if stats.table in split else None)


@every_path
async def test_a_small_table_is_counted_exactly(store: Store, market: Market, case: Case) -> None:
    moments = [NOON + number * MINUTE for number in range(7)]
    await case.service(store).insert([case.row(market, moment) for moment in moments])
    stats = await stats_of(store, TABLES[case.kind].name)
    assert (stats.rows, stats.estimated) == (7, False)
    assert (stats.oldest, stats.newest) == (moments[0], moments[-1])


async def test_reference_tables_are_told_by_when_their_rows_were_made(store: Store, market: Market) -> None:
    stats = await stats_of(store, "symbols")
    assert (stats.rows, stats.estimated, stats.chunks) == (3, False, None)
    assert stats.oldest == stats.newest == market.btc.created_at


@every_path
async def test_oldest_and_newest_may_belong_to_any_series_of_any_chunk(
    store: Store, market: Market, case: Case
) -> None:
    days = timedelta(days=20)
    rows = [case.row(market, NOON, market.eth), case.row(market, NOON - MINUTE, market.eth)]
    rows += [case.row(market, NOON + days, market.perpetual), case.row(market, NOON + MINUTE, market.perpetual)]
    rows += [case.row(market, NOON - days, market.btc), case.row(market, NOON + 2 * MINUTE, market.btc)]
    if case.part is not None:
        name, _, other = case.part
        end: dict[str, Any] = {name: other}
        rows.append(case.row(market, NOON + 2 * days, **end))
    await case.service(store).insert(rows)
    stats = await stats_of(store, TABLES[case.kind].name)
    newest = NOON + (2 * days if case.part else days)
    assert (stats.oldest, stats.newest) == (NOON - days, newest)
    assert stats.rows == len(rows)


async def test_a_chunk_that_lost_its_rows_hides_nothing(store: Store, market: Market) -> None:
    case = Case(BookTicker)
    moments = [NOON + number * timedelta(hours=1) for number in range(5)]
    await store.book_tickers.insert([case.row(market, moment) for moment in moments])
    table = TABLES[BookTicker]
    await store.session.execute(delete(table).where(table.c.timestamp.in_([moments[0], moments[-1]])))
    stats = await stats_of(store, BOOKS)
    assert (stats.rows, stats.oldest, stats.newest) == (3, moments[1], moments[-2])


async def test_chunks_are_counted_where_there_are_hypertables(store: Store, market: Market) -> None:
    chunk = declared(TABLES[Candle])
    assert chunk is not None
    rows = [Case(Candle).row(market, NOON + number * chunk.chunk_interval) for number in range(3)]
    await store.candles.insert(rows)
    expected = 3 if "candles" in await hypertables(store) else None
    assert (await stats_of(store, "candles")).chunks == expected


async def test_the_size_is_that_of_rows_and_indexes(committed_db: Database) -> None:
    # A database of its own: in one of many tests new rows go where those that were rolled back lay.
    async with committed_db.begin() as store:
        market = await open_market(store)
        empty = await stats_of(store, BOOKS)
        await fill(store, 10_000, symbol_id=market.btc.id)
        full = await stats_of(store, BOOKS)
    # 5 columns of 8 bytes, one of 4 and a header of 24 in the table; 4 + 8 and a header of 8 in the index.
    assert full.bytes - empty.bytes > 10_000 * (68 + 20)


async def fill_64_megabytes(store: Store) -> int:
    rows = 620_000
    market = await open_market(store)
    # The check of each row's symbol would take most of the time.
    await store.session.execute(text("SET LOCAL session_replication_role = replica"))
    await fill(store, rows, symbol_id=market.btc.id)
    return rows


async def test_a_large_table_is_estimated_and_says_so(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        rows = await fill_64_megabytes(store)
        await store.session.execute(text("SELECT pg_stat_force_next_flush()"))
    async with committed_db.begin() as store:  # it was never analyzed, and is not told to be empty
        assert (await stats_of(store, BOOKS)).rows == pytest.approx(rows, rel=0.5)
        await store.session.execute(text(f"ANALYZE {BOOKS}"))
        stats = await stats_of(store, BOOKS)
    assert stats.bytes > 64 * 2**20
    assert stats.estimated
    assert stats.rows == pytest.approx(rows, rel=0.1)
    assert (stats.oldest, stats.newest) == (NOON, NOON + timedelta(seconds=rows - 1))


async def test_stats_write_nothing(store: Store, market: Market) -> None:
    await store.session.execute(text("SET TRANSACTION READ ONLY"))
    assert len(await store.maintenance.stats()) == len(Base.metadata.tables)


async def test_counts_are_those_that_the_transaction_sees(store: Store, market: Market) -> None:
    await store.ticks.insert([{"symbol_id": market.btc.id, "timestamp": NOON, "bid": 1.0, "ask": 2.0}])
    table = Base.metadata.tables["ticks"]
    counted = await store.session.scalar(select(func.count()).select_from(table))
    assert (await stats_of(store, "ticks")).rows == counted == 1
