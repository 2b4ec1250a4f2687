"""Cleanup in rounds, and as a service in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from sqlalchemy import text

from alembic_timescaledb import hypertables
from arbstore import testing
from arbstore.database import Database
from arbstore.deploy.cleanup import cleanup, serve
from arbstore.errors import CleanupRunningError, ValidationError
from arbstore.models import Base
from arbstore.services.maintenance import Cleanup
from tests.conftest import listing, quote

WAITS = (  # somebody for a lock, in this database: others are tested on the same server
    "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
)

DAY = timedelta(days=1)
TABLES = sorted(table.name for table, _ in hypertables(Base.metadata))
QUOTES = "book_ticker_snapshots"
OLD = 5


@pytest_asyncio.fixture
async def old_rows(committed_db: Database) -> Database:
    """Yield a database with quotes and ticks of a month ago, and one of each of now."""
    async with committed_db.begin() as store:
        exchange = await store.exchanges.add("BINANCE_SPOT")
        symbol = await store.symbols.add(exchange.id, listing("BTC"))
        now = datetime.now(UTC)
        times = [now, *(now - 30 * DAY + timedelta(seconds=number) for number in range(OLD))]
        await store.book_tickers.insert([quote(symbol, at=at) for at in times])
        await store.ticks.insert([{"symbol_id": symbol.id, "timestamp": at, "bid": 1.0, "ask": 2.0} for at in times])
    return committed_db


async def count(db: Database, table: str) -> int:
    async with db.engine.connect() as connection:
        return int(await connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)  # noqa: S608 # our own table


async def until(condition: str, db: Database) -> None:
    async with asyncio.timeout(30):
        while True:
            async with db.engine.connect() as connection:
                if await connection.scalar(text(condition)):
                    return
            await asyncio.sleep(0.02)


async def logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    async with asyncio.timeout(30):
        while words not in caplog.text:  # noqa: ASYNC110 # a log has no event for it
            await asyncio.sleep(0.02)


@asynccontextmanager
async def locked(db: Database, table: str) -> AsyncIterator[None]:
    """Keep everybody else from the table."""
    async with db.engine.begin() as connection:
        await connection.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        yield


def of(removed: list[Cleanup], table: str) -> Cleanup:
    return next(one for one in removed if one.table == table)


async def test_a_round_removes_what_is_old_of_every_table_and_tells_of_each(old_rows: Database) -> None:
    removed = await cleanup(old_rows)
    assert [one.table for one in removed] == TABLES
    for table in (QUOTES, "ticks"):
        assert (of(removed, table).rows, of(removed, table).chunks) in {(OLD, 0), (0, 1)}
        assert await count(old_rows, table) == 1
    candles = of(removed, "candles")
    assert (candles.retention, candles.older_than, candles.rows, candles.chunks) == (None, None, 0, 0)


async def test_a_round_takes_as_many_transactions_as_it_needs(
    old_rows: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arbstore.deploy.cleanup._ROWS_A_TRANSACTION", 2)
    told: list[tuple[int, int]] = []
    await cleanup(
        old_rows, progress=lambda done: told.append((done.rows, done.chunks)) if done.table == "ticks" else None
    )
    assert told in ([(2, 0), (4, 0), (5, 0)], [(0, 1)])
    assert await count(old_rows, "ticks") == 1


async def test_a_retention_that_is_lifted_in_the_middle_of_a_round_holds_at_once(old_rows: Database) -> None:
    async def lift() -> None:
        async with Database(settings=old_rows.settings) as other, other.begin() as store:
            await store.maintenance.set_retention("ticks", None)

    removed = await cleanup(old_rows, progress=lambda done: testing._in_thread(lift) if done.table == QUOTES else None)
    assert of(removed, "ticks").retention is None
    assert (await count(old_rows, QUOTES), await count(old_rows, "ticks")) == (1, OLD + 1)


async def test_ages_that_are_given_win_for_this_round(old_rows: Database) -> None:
    removed = await cleanup(old_rows, {"ticks": None, QUOTES: 60 * DAY})
    assert (of(removed, "ticks").retention, of(removed, QUOTES).retention) == (None, 60 * DAY)
    assert (await count(old_rows, QUOTES), await count(old_rows, "ticks")) == (OLD + 1, OLD + 1)


async def test_ages_of_what_has_none_are_refused_before_anything_goes(old_rows: Database) -> None:
    with pytest.raises(ValidationError):
        await cleanup(old_rows, {"symbols": DAY})
    assert await count(old_rows, QUOTES) == OLD + 1


async def test_a_round_never_overlaps_another(old_rows: Database) -> None:
    async with locked(old_rows, "ticks"):
        first = asyncio.create_task(cleanup(old_rows))
        await until(
            WAITS,
            old_rows,
        )
        with pytest.raises(CleanupRunningError):
            await cleanup(old_rows)
    assert of(await first, "ticks").retention == 7 * DAY
    await cleanup(old_rows)


async def test_a_round_that_loses_its_connection_is_logged_and_tried_again(
    old_rows: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arbstore.deploy.cleanup._RETRY", timedelta(milliseconds=50))
    caplog.set_level("INFO", "arbstore.deploy.cleanup")
    async with Database(settings=old_rows.settings) as served:
        async with locked(old_rows, "ticks"):
            service = asyncio.create_task(serve(served, DAY))
            await until(
                WAITS,
                old_rows,
            )
            async with old_rows.engine.connect() as connection:
                # Both connections of the cleanup: one waits, the other holds the lock.
                await connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND"
                        " (wait_event_type = 'Lock' OR query ILIKE '%advisory%' AND pid <> pg_backend_pid())"
                    )
                )
            await logged(caplog, "is tried again")
        await logged(caplog, "of ticks")
        assert await count(old_rows, "ticks") == 1
        assert not service.done()
        service.cancel()
        with suppress(asyncio.CancelledError):
            await service
    assert caplog.text.count(f"of {QUOTES}") == 1
    assert caplog.text.count("of ticks") == 1


async def test_a_service_leaves_a_round_to_whoever_cleans_already(
    old_rows: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "arbstore.deploy.cleanup")
    async with old_rows.begin() as store:
        await store.maintenance.hold_cleanup_lock()
        service = asyncio.create_task(serve(old_rows, timedelta(milliseconds=50)))
        await logged(caplog, "another cleanup of this database is under way")
        assert await count(old_rows, "ticks") == OLD + 1
    await until("SELECT count(*) = 1 FROM ticks", old_rows)
    service.cancel()
    with suppress(asyncio.CancelledError):
        await service


class Service:
    """`arbstore db cleanup --every 1h`, as a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.log = ""

    async def logs(self, words: str) -> None:
        assert self._process.stderr is not None
        async with asyncio.timeout(60):
            while words not in self.log:
                line = await self._process.stderr.readline()
                assert line, self.log
                self.log += line.decode()

    async def stop(self, number: signal.Signals) -> int:
        assert self._process.stderr is not None
        self._process.send_signal(number)
        async with asyncio.timeout(30):
            self.log += (await self._process.stderr.read()).decode()
            return await self._process.wait()


@asynccontextmanager
async def service(db: Database) -> AsyncIterator[Service]:
    url = db.engine.url.render_as_string(hide_password=False)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from arbstore.cli import main; main()", "db", "cleanup", "--every", "1h"),
        env={**os.environ, "ARBSTORE_DATABASE_URL": url, "ARBSTORE_APPLICATION_NAME": "cleanup-service"},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Service(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_service_logs_what_it_removed_and_stops_while_it_sleeps(old_rows: Database) -> None:
    async with service(old_rows) as running:
        await running.logs("of ticks")
        await until("SELECT count(*) = 1 FROM ticks", old_rows)
        assert await running.stop(signal.SIGTERM) == 0
    assert "cleaning each 1h" in running.log
    assert f"removed {OLD} rows of ticks" in running.log or "removed 1 chunks of ticks" in running.log
    assert running.log.rstrip().endswith("stopped")
    assert "Traceback" not in running.log


async def test_the_service_stops_in_the_middle_of_a_round_and_keeps_what_it_has_done(old_rows: Database) -> None:
    waits = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity"
        " WHERE application_name = 'cleanup-service' AND wait_event_type = 'Lock' AND datname = current_database())"
    )
    async with service(old_rows) as running:
        async with locked(old_rows, "ticks"):
            await running.logs(f"of {QUOTES}")
            await until(waits, old_rows)
            assert await running.stop(signal.SIGINT) == 0
        await until(
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'cleanup-service'"
            " AND datname = current_database())",
            old_rows,
        )
    assert (await count(old_rows, QUOTES), await count(old_rows, "ticks")) == (1, OLD + 1)
    assert running.log.rstrip().endswith("stopped")
    assert "Traceback" not in running.log
    await cleanup(old_rows)
    assert await count(old_rows, "ticks") == 1
