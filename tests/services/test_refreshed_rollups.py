"""Candles that a server keeps computed: in every state of their refresh they are those of the rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import pytest
import pytest_asyncio
from sqlalchemy import func, select, text

from alembic_timescaledb.server import Feature, edition, materialized
from arbstore.database import Database, Store
from arbstore.ingest import ingest
from arbstore.models.rollups import ROLL_UPS
from arbstore.records import CandleSource, Symbol
from arbstore.services import candles
from arbstore.testing import skip_without
from tests.conftest import NOON
from tests.ingest.reading import historic
from tests.services.bars import (
    BEGINS,
    DAY,
    HOUR,
    MINUTE,
    PAIR,
    SECOND,
    Bar,
    Row,
    assert_right,
    assert_same,
    hard_quotes,
    hard_trades,
    rows_of,
    seen,
    trade,
)
from tests.services.cases import Market, open_market

TRADES, QUOTES = CandleSource.TRADES, CandleSource.QUOTES
SOURCES = (TRADES, QUOTES)
Rows: TypeAlias = dict[tuple[int, CandleSource], list[Row]]


@pytest_asyncio.fixture
async def refreshed_db(committed_db: Database) -> AsyncIterator[Database]:
    """Yield a database whose server keeps candles computed."""
    async with committed_db.engine.connect() as connection:
        skip_without(await connection.run_sync(edition), Feature.AGGREGATES)
    yield committed_db


async def run(db: Database, statement: str, **values: object) -> None:
    """Run what no transaction can hold."""
    async with db.engine.connect() as connection:
        alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await alone.execute(text(statement), values)


async def refresh(db: Database, view: str, since: datetime | None = None, until: datetime | None = None) -> None:
    window = ("NULL" if moment is None else f"'{moment.isoformat()}'" for moment in (since, until))
    await run(db, f"CALL refresh_continuous_aggregate('{view}', {', '.join(window)})")


async def refresh_all(db: Database, *lengths: str) -> None:
    for name in ("trade_candles", "quote_candles"):
        for length in lengths or ("1m", "1h", "1d"):
            await refresh(db, f"{name}_{length}")


async def run_jobs(db: Database, kind: str, *relations: str) -> None:
    """Run the server's own jobs, now, as it runs them."""
    jobs = text(
        "SELECT j.job_id FROM timescaledb_information.jobs j LEFT JOIN timescaledb_information.continuous_aggregates a"
        " ON a.materialization_hypertable_name = j.hypertable_name OR a.view_name = j.hypertable_name"
        " WHERE j.proc_name = :kind AND coalesce(a.view_name, j.hypertable_name) = :relation"
    )
    for relation in relations:
        async with db.engine.connect() as connection:
            job = (await connection.execute(jobs, {"kind": kind, "relation": relation})).scalar_one()
        await run(db, f"CALL run_job({job})")


async def assert_rows_say_so(
    db: Database, symbols: list[Symbol], rows: dict[tuple[int, CandleSource], list[Row]]
) -> None:
    async with db.begin() as store:
        for symbol in symbols:
            for source in SOURCES:
                await assert_right(store, symbol, rows[symbol.id, source], source)


async def all_rows(store: Store, symbols: list[Symbol]) -> Rows:
    return {(symbol.id, source): await rows_of(store, symbol, source) for symbol in symbols for source in SOURCES}


async def filled(db: Database, start: datetime) -> tuple[Market, list[Symbol], Rows]:
    async with db.begin() as store:
        market = await open_market(store)
        symbols = [market.btc, market.eth]
        for symbol, at in zip(symbols, (start, start + 7 * SECOND), strict=True):
            await store.trades.insert(hard_trades(symbol, at))
            await store.book_tickers.insert(hard_quotes(symbol, at))
        return market, symbols, await all_rows(store, symbols)


async def stored(db: Database, view: str) -> int:
    """Return how many bars of the view are computed and kept."""
    (rolled,) = [rolled for rolled in ROLL_UPS.values() if view.startswith(rolled.minutes.name[:5])]
    async with db.engine.connect() as connection:
        tables = await connection.run_sync(lambda sync: materialized(sync, rolled.views))
        return int((await connection.execute(select(func.count()).select_from(tables[view]))).scalar_one())


async def test_candles_are_right_in_every_state_of_their_refresh(refreshed_db: Database) -> None:
    db, until = refreshed_db, NOON + HOUR
    _, symbols, rows = await filled(db, NOON)
    await assert_rows_say_so(db, symbols, rows)  # nothing is computed
    for name in ("trade_candles", "quote_candles"):
        await refresh(db, f"{name}_1m", NOON + 10 * MINUTE, NOON + 20 * MINUTE)
        assert 0 < await stored(db, f"{name}_1m") <= 20
    await assert_rows_say_so(db, symbols, rows)
    for name in ("trade_candles", "quote_candles"):
        await refresh(db, f"{name}_1h", NOON, until)  # of an hour with minutes that nobody knows of
        await refresh(db, f"{name}_1d", NOON - DAY, NOON + DAY)
        await refresh(db, f"{name}_1m", NOON + 60 * MINUTE, NOON + 62 * MINUTE)
        assert await stored(db, f"{name}_1h") == 2
    await assert_rows_say_so(db, symbols, rows)
    await refresh_all(db)
    assert await stored(db, "trade_candles_1m") > 100
    await assert_rows_say_so(db, symbols, rows)


async def test_what_a_server_computes_equals_what_is_computed_without_it(
    refreshed_db: Database, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted((recordings / "ticks").glob("binance_*.jsonl.gz"))
    for exchange, mark in (("BINANCE_SPOT", "spot"), ("BINANCE_FUTURES", "usdm"), ("BINANCE_COINM_FUTURES", "coinm")):
        await ingest(refreshed_db, [path for path in files if mark in path.name], historic(exchange=exchange))
    await refresh_all(refreshed_db)

    async def read() -> list[list[Bar]]:
        async with refreshed_db.begin() as store:
            return [
                seen(await store.candles.history_by_id(trade.symbol_id, timeframe=timeframe, source=source))
                for trade in await store.trades.latest()
                for source in SOURCES
                for timeframe in BEGINS
            ]

    computed_by_server = await read()
    monkeypatch.setattr(candles, "materialized", lambda *_: {})  # as on an edition that keeps nothing computed
    computed_by_us = await read()
    assert len(computed_by_server) == 6 * len(SOURCES) * len(BEGINS)
    for ours, theirs in zip(computed_by_us, computed_by_server, strict=True):
        assert ours
        assert_same(ours, theirs)


async def test_late_rows_are_in_the_candles_after_the_next_refresh(refreshed_db: Database) -> None:
    db = refreshed_db
    market, symbols, _ = await filled(db, NOON)
    await refresh_all(db)
    async with db.begin() as store:
        late = [trade(market.btc, NOON + minute * MINUTE, 0, 500.0 + minute) for minute in (-60, 0, 3, 90, 400)]
        await store.trades.insert(late)
        rows = await all_rows(store, symbols)
    await refresh_all(db)
    await assert_rows_say_so(db, symbols, rows)


@pytest.mark.parametrize("lengths", [(), ("1m",), ("1m", "1h"), ("1m", "1h", "1d")], ids="-".join)
async def test_candles_outlive_a_cleanup_whatever_was_refreshed(
    refreshed_db: Database, lengths: tuple[str, ...]
) -> None:
    db = refreshed_db
    _, symbols, rows = await filled(db, NOON)
    for name in ("trade_candles", "quote_candles"):
        for length in lengths:
            await refresh(db, f"{name}_{length}", NOON - DAY, None if length == "1d" else NOON + HOUR)
    async with db.begin() as store:
        for table in ("trade_snapshots", "book_ticker_snapshots"):
            await store.maintenance.expire(table, NOON + DAY, 100)
        assert await rows_of(store, symbols[0], TRADES) == []
    await assert_rows_say_so(db, symbols, rows)
    await refresh_all(db)
    await assert_rows_say_so(db, symbols, rows)


async def test_candles_outlive_their_rows_under_the_servers_own_jobs(refreshed_db: Database) -> None:
    db = refreshed_db
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    async with db.begin() as store:
        market = await open_market(store)
        for age in (timedelta(days=3, hours=8), timedelta(days=1), timedelta(hours=5)):
            await store.trades.insert(hard_trades(market.btc, now - age))
            await store.book_tickers.insert(hard_quotes(market.btc, now - age))
        rows = await all_rows(store, [market.btc])
    await refresh_all(db, "1m")  # as the job did it, days ago
    views = [f"{name}_{length}" for length in ("1m", "1h", "1d") for name in ("trade_candles", "quote_candles")]
    await run_jobs(db, "policy_refresh_continuous_aggregate", *views)
    assert await stored(db, "trade_candles_1d") >= 2
    await run_jobs(db, "policy_retention", "trade_snapshots", "book_ticker_snapshots")
    async with db.begin() as store:
        left = await rows_of(store, market.btc, TRADES)
        assert 0 < len(left) < len(rows[market.btc.id, TRADES])
        # As old as those that are gone: the server is told to look there again.
        await store.trades.insert([trade(market.btc, now - timedelta(days=3, hours=7), "late", 7_000.0)])
    await assert_rows_say_so(db, [market.btc], rows)
    await run_jobs(db, "policy_refresh_continuous_aggregate", *views)
    await assert_rows_say_so(db, [market.btc], rows)


async def test_hours_that_are_not_computed_are_made_of_minutes_and_no_other_is_doubled(refreshed_db: Database) -> None:
    db = refreshed_db
    async with db.begin() as store:
        market = await open_market(store)
        for hour in range(72):  # of which the server computes every third
            await store.trades.insert(
                [trade(market.btc, NOON + hour * HOUR + n * MINUTE, n, hour + n + 1.0) for n in (3, 7)]
            )
        rows = await all_rows(store, [market.btc])
    await refresh_all(db, "1m")
    for hour in range(0, 72, 3):
        await refresh(db, "trade_candles_1h", NOON + hour * HOUR, NOON + (hour + 1) * HOUR)
    assert await stored(db, "trade_candles_1h") == 24
    async with db.engine.begin() as connection:
        await connection.execute(text("SELECT drop_chunks('trade_snapshots', older_than => TIMESTAMPTZ '2025-01-01')"))
    await assert_rows_say_so(db, [market.btc], rows)


async def test_a_candle_of_more_rows_is_rolled_up_and_not_one_of_fewer(refreshed_db: Database) -> None:
    db = refreshed_db
    async with db.begin() as store:
        market = await open_market(store)
        first = [trade(market.btc, NOON + minute * MINUTE, n, 10.0 + n) for minute in (0, 1) for n in range(3)]
        await store.trades.insert(first)
    await refresh_all(db)
    async with db.begin() as store:
        await store.session.execute(
            text("DELETE FROM trade_snapshots WHERE timestamp < :noon"), {"noon": NOON + MINUTE}
        )
        await store.trades.insert([trade(market.btc, NOON + minute * MINUTE, "late", 99.0) for minute in (0, 1)])
        await store.maintenance.expire("trade_snapshots", NOON + DAY, 100)
    await refresh_all(db)
    async with db.begin() as store:
        one, other = await store.candles.history(*PAIR, "1m", source=TRADES)
    assert (one.num_trades, one.close) == (3, 12.0)
    assert (other.num_trades, other.close) == (4, 99.0)


async def test_rolled_up_candles_stay_when_a_server_begins_to_keep_them_computed(refreshed_db: Database) -> None:
    db = refreshed_db
    market, symbols, rows = await filled(db, NOON)
    await drop_views(db)
    async with db.begin() as store:
        # In the middle of an hour: what is left of it is computed by the server later.
        done = await store.maintenance.expire("trade_snapshots", NOON + 30 * MINUTE, 100)
        assert done.chunks > 0
        assert 0 < len(await rows_of(store, market.btc, TRADES)) < len(rows[market.btc.id, TRADES])
    await assert_rows_say_so(db, symbols, rows)
    await make_views(db)
    await assert_rows_say_so(db, symbols, rows)
    await refresh_all(db)
    await assert_rows_say_so(db, symbols, rows)
    async with db.begin() as store:
        for table in ("trade_snapshots", "book_ticker_snapshots"):
            await store.maintenance.expire(table, NOON + DAY, 100)
    await assert_rows_say_so(db, symbols, rows)


async def drop_views(db: Database) -> None:
    for name in ("trade_candles", "quote_candles"):
        for length in ("1d", "1h", "1m"):
            await run(db, f"DROP MATERIALIZED VIEW {name}_{length}")


async def make_views(db: Database) -> None:
    for rolled in ROLL_UPS.values():
        for view in rolled.views:
            made = f"CREATE MATERIALIZED VIEW {view.name} WITH (timescaledb.continuous) AS {view.sql} WITH NO DATA"
            await run(db, made.replace(":", "\\:"))


def test_the_minutes_are_refreshed_well_inside_the_retention_of_their_rows() -> None:
    for rolled in ROLL_UPS.values():
        kept = rolled.minutes.source.info["hypertable"].retention
        assert rolled.minutes.refresh is not None
        assert rolled.minutes.refresh.start_offset is not None
        assert rolled.minutes.refresh.start_offset <= kept - timedelta(hours=12)
        assert {view.retention for view in rolled.views} == {None}
