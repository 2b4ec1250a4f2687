from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text

from alembic_timescaledb import declared, hypertables, server
from arbstore.database import Database, Store
from arbstore.errors import ValidationError
from arbstore.models import Base
from arbstore.records import Balance, Candle, Tick, Trade
from tests.records.samples import TABLES
from tests.services.cases import CASES, Case, Market, open_market

# A series without candles, one whose candles outlive it, and one of exchanges that is kept in parts.
every_path = pytest.mark.parametrize(
    "case", [Case(Tick), Case(Trade), Case(Balance)], ids=lambda case: case.kind.__name__
)

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
RETENTION = {table.name: kept.retention for table, kept in hypertables(Base.metadata)}


async def split(store: Store) -> bool:
    return bool(await store.session.run_sync(lambda session: server.hypertables(session.connection())))


async def times(store: Store, case: Case) -> list[datetime]:
    table = TABLES[case.kind]
    return list((await store.session.scalars(select(table.c.timestamp).order_by(table.c.timestamp))).all())


def old_and_young(case: Case, retention: timedelta) -> tuple[list[datetime], list[datetime]]:
    """Return times well beyond the retention, chunk included, and times well within it."""
    kept = declared(TABLES[case.kind])
    assert kept is not None
    cutoff = datetime.now(UTC) - retention
    ages = [kept.chunk_interval * number for number in (2, 3, 9)]
    return [cutoff - age for age in reversed(ages)], [cutoff + retention / 2, cutoff + retention * 0.9]


async def fill(store: Store, market: Market, case: Case, moments: list[datetime]) -> int:
    rows = [case.row(market, moment, symbol) for moment in moments for symbol in (market.btc, market.perpetual)]
    return (await case.service(store).insert(rows)).written


@every_path
async def test_what_has_outlived_its_retention_goes_and_is_counted(store: Store, market: Market, case: Case) -> None:
    name = TABLES[case.kind].name
    retention = RETENTION[name] or 30 * DAY
    old, young = old_and_young(case, retention)
    await fill(store, market, case, young)
    gone = await fill(store, market, case, old)
    given = {} if RETENTION[name] else {name: retention}
    (result,) = [cleaned for cleaned in await store.maintenance.cleanup(given) if cleaned.table == name]
    assert set(await times(store, case)) == set(young)
    assert (result.rows, result.chunks) == ((0, len(old)) if await split(store) else (gone, 0))
    assert result.older_than is not None
    assert abs(result.older_than - (datetime.now(UTC) - retention)) < timedelta(minutes=1)


async def test_every_table_with_a_retention_is_cleaned_by_name(store: Store) -> None:
    cleaned = await store.maintenance.cleanup()
    assert {result.table: result.retention for result in cleaned} == RETENTION
    assert [result.table for result in cleaned] == sorted(RETENTION)
    assert {(result.rows, result.chunks) for result in cleaned} == {(0, 0)}


async def test_candles_are_kept_for_good_unless_told_otherwise(store: Store, market: Market) -> None:
    case = Case(Candle)
    ancient = datetime(1990, 1, 1, tzinfo=UTC)
    await fill(store, market, case, [ancient])
    await store.maintenance.cleanup()
    assert len(await times(store, case)) == 2
    cleaned = await store.maintenance.cleanup({"candles": 3650 * DAY})
    assert sum(result.rows + result.chunks for result in cleaned if result.table == "candles") > 0
    assert await times(store, case) == []


@every_path
async def test_none_keeps_a_table_whole(store: Store, market: Market, case: Case) -> None:
    name = TABLES[case.kind].name
    await fill(store, market, case, [datetime(1990, 1, 1, tzinfo=UTC)])
    (result,) = [cleaned for cleaned in await store.maintenance.cleanup({name: None}) if cleaned.table == name]
    assert (result.retention, result.older_than, result.rows, result.chunks) == (None, None, 0, 0)
    assert await times(store, case)


async def test_a_retention_that_is_given_wins_over_the_declared_one(store: Store, market: Market) -> None:
    case, now = Case(Tick), datetime.now(UTC)
    await fill(store, market, case, [now - 10 * DAY, now - 3 * DAY, now - HOUR])
    await store.maintenance.cleanup({"ticks": 30 * DAY})
    assert len(await times(store, case)) == 6
    await store.maintenance.cleanup({"ticks": 2 * DAY})
    assert set(await times(store, case)) == {now - HOUR}


@pytest.mark.parametrize("name", ["exchanges", "symbols", "tick", "ticks; drop table ticks", ""])
async def test_a_table_that_has_no_retention_is_refused_before_anything_goes(
    store: Store, market: Market, name: str
) -> None:
    await fill(store, market, Case(Tick), [datetime.now(UTC) - 30 * DAY])
    with pytest.raises(ValidationError, match="book_ticker_snapshots") as caught:
        await store.maintenance.cleanup({"ticks": DAY, name: DAY})
    assert caught.value.field == name
    assert len(await times(store, Case(Tick))) == 2


@pytest.mark.parametrize("age", [timedelta(0), -DAY])
async def test_a_retention_that_is_no_age_is_refused(store: Store, age: timedelta) -> None:
    with pytest.raises(ValidationError) as caught:
        await store.maintenance.cleanup({"ticks": age})
    assert caught.value.field == "ticks"


@pytest.mark.parametrize("size", [1, 3, 10, 100])
async def test_any_size_of_batch_removes_all_that_is_old(store: Store, market: Market, size: int) -> None:
    case, now = Case(Tick), datetime.now(UTC)
    rows = await fill(store, market, case, [now - 30 * DAY + number * 2 * HOUR for number in range(5)])
    await fill(store, market, case, [now])
    (result,) = [r for r in await store.maintenance.cleanup(batch_size=size) if r.table == "ticks"]
    assert (result.rows, result.chunks) == ((0, 5) if await split(store) else (rows, 0))
    assert set(await times(store, case)) == {now}


@pytest.mark.parametrize("size", [0, -1])
async def test_a_batch_of_no_rows_is_refused(store: Store, size: int) -> None:
    async with asyncio.timeout(2):
        with pytest.raises(ValidationError) as caught:
            await store.maintenance.cleanup(batch_size=size)
    assert caught.value.field == "batch_size"


async def test_a_row_of_the_very_moment_is_kept(store: Store, market: Market) -> None:
    case = Case(Tick)
    cutoff = datetime(2024, 8, 8, 12, tzinfo=UTC)  # where a chunk begins, too
    await fill(store, market, case, [cutoff - timedelta(microseconds=1), cutoff])
    await store.maintenance.expire("ticks", cutoff, 100)
    assert set(await times(store, case)) == {cutoff}


async def test_a_hypertable_loses_whole_chunks_and_a_table_its_old_rows(store: Store, market: Market) -> None:
    case = Case(Tick)
    noon = datetime(2024, 8, 8, 12, tzinfo=UTC)
    early, middle, late = noon + HOUR / 6, noon + HOUR / 2, noon + HOUR
    await fill(store, market, case, [early, late])
    result = await store.maintenance.expire("ticks", middle, 100)
    if await split(store):
        assert (result.rows, result.chunks, set(await times(store, case))) == (0, 0, {early, late})
        result = await store.maintenance.expire("ticks", late, 100)
        assert (result.rows, result.chunks, set(await times(store, case))) == (0, 1, {late})
    else:
        assert (result.rows, result.chunks, set(await times(store, case))) == (2, 0, {late})


async def test_expire_removes_no_more_rows_than_it_may(store: Store, market: Market) -> None:
    case, now = Case(Tick), datetime.now(UTC)
    written = await fill(store, market, case, [now - number * 2 * HOUR for number in range(1, 6)])
    if await split(store):
        assert (await store.maintenance.expire("ticks", now, 3)).chunks >= 4
        return
    removed = []
    while rows := (await store.maintenance.expire("ticks", now, 3)).rows:
        removed.append(rows)
        assert len(await times(store, case)) == written - sum(removed)
    assert removed == [3, 3, 3, 1]


@pytest.mark.parametrize("name", ["exchanges", "nothing"])
async def test_expire_refuses_what_is_no_time_series(store: Store, name: str) -> None:
    with pytest.raises(ValidationError):
        await store.maintenance.expire(name, datetime.now(UTC), 10)


async def test_cleanup_belongs_to_the_transaction(store: Store, market: Market) -> None:
    await fill(store, market, Case(Tick), [datetime.now(UTC) - 30 * DAY])
    async with store.session.begin_nested() as savepoint:
        (result,) = [cleaned for cleaned in await store.maintenance.cleanup() if cleaned.table == "ticks"]
        assert result.rows + result.chunks > 0
        await savepoint.rollback()
    assert len(await times(store, Case(Tick))) == 2


async def test_no_other_table_loses_a_row(store: Store, market: Market) -> None:
    ancient = datetime(1990, 1, 1, tzinfo=UTC)
    for case in CASES:
        await fill(store, market, case, [ancient])
    keep: dict[str, Any] = dict.fromkeys(RETENTION)
    await store.maintenance.cleanup(keep | {"ticks": DAY})
    left = {Tick: 0, Candle: 6}  # with those of trades and quotes
    assert [len(await times(store, case)) for case in CASES] == [left.get(case.kind, 2) for case in CASES]
    symbols = Base.metadata.tables["symbols"]
    assert await store.session.scalar(select(func.count()).select_from(symbols)) == 3


async def test_cleanup_spares_young_rows_where_another_schema_comes_first(committed_db: Database) -> None:
    case = Case(Tick)
    async with committed_db.begin() as store:
        market = await open_market(store)
        await store.session.execute(text("CREATE SCHEMA first"))
        young = [datetime.now(UTC) - timedelta(minutes=minute) for minute in range(5)]
        await fill(store, market, case, [moment - 30 * DAY for moment in young] + young)
        await store.session.execute(text("SET LOCAL search_path = first, public"))
        (done,) = [cleaned for cleaned in await store.maintenance.cleanup() if cleaned.table == "ticks"]
        assert done.rows + done.chunks > 0
        assert set(young) <= set(await times(store, case))
