"""The minutes that are stored, whatever comes late, in whatever order inserts, makers and droppers meet."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as changed
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from alembic_timescaledb.server import edition
from arbstore.database import Database, Store
from arbstore.deploy.cleanup import cleanup
from arbstore.ingest import ingest
from arbstore.models import Candle, LateMinute
from arbstore.postgres.upsert import InsertResult
from arbstore.records import BookTicker, Origin, StoredCandle, Symbol, Trade
from tests.conftest import NOON, listing
from tests.ingest.reading import historic
from tests.services.bars import DAY, MINUTE, PAIR, SECOND, Row, assert_right, rows_of, seen, trade
from tests.services.cases import Market, open_market

TABLE = "trade_snapshots"
TABLES = (TABLE, "book_ticker_snapshots")
KEEP = dict.fromkeys(TABLES)  # for good
TRADES, QUOTES = Origin.TRADES, Origin.QUOTES


async def minutes(store: Store, timeframe: str = "1m") -> list[StoredCandle]:
    return await store.candles.history(*PAIR, timeframe, origin=TRADES)


async def stored(store: Store) -> list[datetime]:
    """Return the minutes of trades in the table."""
    mine = select(Candle.timestamp).where(Candle.origin == TRADES, Candle.timeframe == "1m")
    return list(await store.session.scalars(mine.order_by(Candle.timestamp)))


async def insert(store: Store, symbol: Symbol, *rows: tuple[datetime, object, float]) -> InsertResult:
    return await store.trades.insert([trade(symbol, *row) for row in rows])


async def make(store: Store, drop_before: datetime | None = None) -> None:
    """Make all minutes that have ended, and drop rows (or chunks) before the moment, as a cleanup does."""
    await store.maintenance.close_minutes(TABLE, alone=True)
    while (await store.maintenance.expire(TABLE, drop_before, 100)).more:
        pass


async def test_minutes_are_stored_once_they_have_ended(store: Store, market: Market) -> None:
    now = datetime.now(UTC)
    await insert(store, market.btc, (NOON, 1, 10.0), (now - 5 * MINUTE, 2, 11.0), (now, 3, 12.0))
    before = await minutes(store)
    await make(store)
    assert await stored(store) == [NOON, (now - 5 * MINUTE).replace(second=0, microsecond=0)]
    assert await minutes(store) == before
    assert [candle.is_closed for candle in before] == [True, True, False]
    await make(store)
    assert await minutes(store) == before


async def test_late_rows_are_in_the_answer_at_once_and_in_the_table_after_the_next_making(
    store: Store, market: Market
) -> None:
    await insert(store, market.btc, (NOON, 1, 10.0), (NOON + 2 * MINUTE, 1, 11.0))
    await make(store)
    await insert(store, market.btc, (NOON + SECOND, 2, 20.0), (NOON + MINUTE, 1, 5.0))
    await store.trades.insert([trade(market.eth, NOON, number, 7.0 + number) for number in range(600)])  # by COPY
    for symbol in (market.btc, market.eth):
        rows = await rows_of(store, symbol, TRADES)
        await assert_right(store, symbol, rows, TRADES)
    await make(store)
    assert await stored(store) == [NOON, NOON, NOON + MINUTE, NOON + 2 * MINUTE]
    assert (await store.session.scalars(select(LateMinute.id))).all() == []
    for symbol in (market.btc, market.eth):
        await assert_right(store, symbol, await rows_of(store, symbol, TRADES), TRADES)


async def test_rows_too_late_for_a_dropped_minute_leave_its_candle_and_are_counted(
    store: Store, market: Market
) -> None:
    await insert(store, market.btc, (NOON, 1, 10.0), (NOON + SECOND, 2, 11.0), (NOON + MINUTE, 3, 12.0))
    await make(store, NOON + DAY)
    assert await rows_of(store, market.btc, TRADES) == []
    before = await minutes(store)
    assert [candle.num_trades for candle in before] == [2, 1]
    late = [(NOON + 5 * SECOND, 4, 99.0), (NOON + 6 * SECOND, 5, 99.0), (NOON + MINUTE, 6, 99.0)]
    assert await insert(store, market.btc, *late) == InsertResult(3, 3, 0, too_late=3, too_late_minutes=2)
    many = [trade(market.btc, NOON + 7 * SECOND, f"m{number}", 99.0) for number in range(600)]
    assert (await store.trades.insert([*many, *many[:7]])) == InsertResult(607, 600, 7, 600, 1)
    assert await minutes(store) == before
    await make(store, NOON + DAY)
    assert await minutes(store) == before
    assert await rows_of(store, market.btc, TRADES) == []


async def test_old_rows_of_minutes_without_a_candle_make_one_in_as_many_pieces_as_they_come(
    store: Store, market: Market
) -> None:
    await insert(store, market.btc, (NOON, 1, 10.0))
    await make(store, NOON + DAY)
    seconds = range(0, 60, 7)
    for number in seconds:
        result = await insert(store, market.btc, (NOON + MINUTE + number * SECOND, number, 10.0 + number))
        assert result == (1, 1, 0, 0, 0)
        await make(store)
    rows = await rows_of(store, market.btc, TRADES)
    await make(store, NOON + DAY)
    first, second = await minutes(store)
    assert first.num_trades == 1
    assert seen([second])[0].num_trades == len(seconds) == len(rows)
    assert (second.open, second.close) == (10.0, 10.0 + max(seconds))
    assert (await insert(store, market.btc, (NOON + MINUTE, "late", 1.0)))[3:] == (1, 1)


async def test_a_transaction_with_an_old_snapshot_leaves_marks_too(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        market = await open_market(store)
    async with committed_db.engine.connect() as connection:
        old = await connection.execution_options(isolation_level="REPEATABLE READ")
        await old.execute(text("SELECT 1"))  # the snapshot
        await cleanup(committed_db, KEEP)
        await insert(Store(AsyncSession(old)), market.btc, (NOON, 1, 10.0))
        await old.commit()
    await cleanup(committed_db, KEEP)
    async with committed_db.begin() as store:
        assert await stored(store) == [NOON]


STEPS = ("insert", "commit", "close", "make")


@pytest.mark.parametrize("order", [one for one in permutations(STEPS) if one.index("insert") < one.index("commit")])
async def test_no_row_is_missed_in_any_order_of_insert_move_and_commit(
    committed_db: Database, order: tuple[str, ...]
) -> None:
    async with committed_db.begin() as store:
        market = await open_market(store)
    rows = [(NOON + number * SECOND, number, 10.0 + number) for number in range(3)]
    async with committed_db.begin() as store:
        await insert(store, market.btc, rows[0])
    waiting: frozenset[str] = frozenset()
    writer = committed_db.begin()
    open_store = await writer.__aenter__()
    for step in order:
        if step == "insert":
            await insert(open_store, market.btc, rows[1])
        elif step == "commit":
            await writer.__aexit__(None, None, None)
        else:
            async with committed_db.begin() as store:
                if step == "close":
                    await store.maintenance.close_minutes(TABLE)
                else:
                    waiting = await store.maintenance.writers(TABLE)
            if step == "make" and not waiting:  # as a cleanup does
                async with committed_db.begin() as store:
                    while (await store.maintenance.expire(TABLE, None, 100)).more:
                        pass
    async with committed_db.begin() as store:
        await assert_right(store, market.btc, await rows_of(store, market.btc, TRADES), TRADES)
        await make(store)
        await assert_right(store, market.btc, await rows_of(store, market.btc, TRADES), TRADES)
        (found,) = await minutes(store)
        assert found.num_trades == 2


async def test_a_cleanup_does_not_make_minutes_of_a_transaction_that_is_still_open(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        market = await open_market(store)
    done = asyncio.Event()

    async def write() -> None:
        async with committed_db.begin() as store:
            await insert(store, market.btc, (NOON, 1, 10.0))
            done.set()
            await asyncio.sleep(0.5)

    writer = asyncio.create_task(write())
    await done.wait()
    await cleanup(committed_db, KEEP)
    assert writer.done()
    async with committed_db.begin() as store:
        assert await stored(store) == [NOON]


async def run(db: Database) -> None:
    """Make and drop as the server's own job does where there is one, else as `arbstore db cleanup`."""
    async with db.engine.connect() as connection:
        jobs = (await connection.run_sync(edition)).has_policies
        await connection.commit()
        alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
        if jobs:
            ids = text(
                "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'arbstore_keep_candles'"
                " ORDER BY job_id"
            )
            for job in (await alone.scalars(ids)).all():
                await alone.execute(text(f"CALL run_job({job})"))
    if not jobs:
        await cleanup(db)


async def recorded(db: Database, recordings: Path, start: datetime) -> dict[str, list[Any]]:
    """Return the trades and quotes of the recordings by base, as if they had happened in ten minutes from the start."""
    files = sorted((recordings / "ticks").glob("binance_usdm_*.jsonl.gz"))
    await ingest(db, files, historic(exchange="BINANCE_FUTURES"))
    found: dict[str, list[Any]] = {}
    async with db.begin() as store:
        for newest in await store.trades.latest():
            rows: list[Any] = [*await store.trades.history_by_id(newest.symbol_id)]
            first = rows[0].timestamp
            rows += list(await store.book_tickers.history_by_id(newest.symbol_id))
            found[newest.symbol_base] = [changed(row, timestamp=start + (row.timestamp - first) * 20) for row in rows]
    return found


async def written(db: Database, found: dict[str, list[Any]], dice: random.Random) -> dict[Origin, int]:
    """Write the rows in random order and batches by four writers while minutes are made and old rows dropped.

    Return how many rows came too late, by origin.
    """
    async with db.begin() as store:
        exchange = await store.exchanges.add("BINANCE_FUTURES")
        ids = {base: (await store.symbols.add(exchange.id, listing(base))).id for base in found}
    rows = [changed(row, symbol_id=ids[base]) for base, all_of_it in found.items() for row in all_of_it]
    dice.shuffle(rows)
    late = dict.fromkeys((TRADES, QUOTES), 0)
    half, dropped = len(rows) // 2, asyncio.Event()

    async def write() -> None:
        while rows:
            if len(rows) < half:
                await dropped.wait()
            count = dice.choice((1, 20, 100, 700))
            batch = [rows.pop() for _ in range(min(count, len(rows)))]
            for origin, kind in ((TRADES, Trade), (QUOTES, BookTicker)):
                async with db.begin() as store:
                    service: Any = store.trades if origin is TRADES else store.book_tickers
                    result = await service.insert([inserted(kind, row) for row in batch if isinstance(row, kind)])
                    late[origin] += result.too_late
                    await asyncio.sleep(dice.choice((0, 0.02)))

    writers = [asyncio.create_task(write()) for _ in range(4)]
    while not all(writer.done() for writer in writers):
        is_half = len(rows) < half
        await run(db)
        if is_half:
            dropped.set()
    await asyncio.gather(*writers)
    return late


def inserted(kind: type[Any], row: Any) -> Any:
    return kind(**{name: getattr(row, name) for name in kind.__struct_fields__})


def expected(rows: Iterable[Any], origin: Origin) -> list[Row]:
    if origin is TRADES:
        trades: list[Any] = sorted(
            (row for row in rows if isinstance(row, Trade)), key=lambda row: (row.timestamp, row.trade_id)
        )
        return [Row(row.timestamp, row.created_at, row.price, row.quantity) for row in trades]
    quotes: list[Any] = sorted((row for row in rows if isinstance(row, BookTicker)), key=lambda row: row.timestamp)
    return [Row(row.timestamp, row.created_at, row.mid, None) for row in quotes]


@pytest.mark.parametrize("seed", range(2))
async def test_minutes_of_the_recordings_are_right_before_and_after_a_cleanup(
    committed_db: Database, db: Database, recordings: Path, seed: int
) -> None:
    start = datetime.now(UTC).replace(second=0, microsecond=0) - 40 * MINUTE
    found = await recorded(db, recordings, start)
    assert await written(committed_db, found, random.Random(seed)) == {TRADES: 0, QUOTES: 0}  # noqa: S311 # no secret
    for keep_for in (DAY, MINUTE):
        await cleanup(committed_db, dict.fromkeys(TABLES, keep_for))
        async with committed_db.begin() as store:
            exchange = await store.exchanges.by_enum_one("BINANCE_FUTURES")
            for base, rows in found.items():
                symbol = await store.symbols.by_pair_one(exchange.id, base, "USDT")
                assert (await rows_of(store, symbol, TRADES) == []) is (keep_for == MINUTE)
                for origin in (TRADES, QUOTES):
                    await assert_right(store, symbol, expected(rows, origin), origin, "1m", "5m", "1h")


@pytest.mark.parametrize("seed", range(2))
async def test_every_row_is_in_a_candle_or_counted_as_too_late_while_rows_are_dropped(
    committed_db: Database, db: Database, recordings: Path, seed: int
) -> None:
    found = await recorded(db, recordings, datetime.now(UTC).replace(second=0, microsecond=0) - 4 * DAY)
    late = await written(committed_db, found, random.Random(seed))  # noqa: S311 # no secret
    await run(committed_db)
    async with committed_db.begin() as store:
        assert late[TRADES] > 0
        made = [await store.candles.history("BINANCE_FUTURES", base, "USDT", "1m", origin=TRADES) for base in found]
        count = sum(candle.num_trades or 0 for candles in made for candle in candles)
        assert count + late[TRADES] == sum(isinstance(row, Trade) for rows in found.values() for row in rows)
