"""A database deployed on a poorer server is brought up to the one under test, whatever comes between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import pytest
import pytest_asyncio
from alembic import command
from sqlalchemy import Connection, text

from alembic_timescaledb import Edition, Feature, server
from alembic_timescaledb.server import retention_policies
from arbstore import migrations
from arbstore.database import Database, Store
from arbstore.deploy.align import AlignmentPlan, align, plan_alignment
from arbstore.errors import AlignmentError, ConfigurationError, DeployRunningError, SchemaOutOfDateError
from arbstore.records import Balance, Side, Trade
from arbstore.testing import _in_thread, skip_without
from tests.conftest import listing

DAY = timedelta(days=1)
NOW = datetime.now(UTC)
AGES = [day * DAY + minute * timedelta(minutes=3) for day in range(10) for minute in range(20)]
WAITING = "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
BLOCKED = (
    "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'relation' AND NOT granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)

Deploy: TypeAlias = Callable[[Edition], Awaitable[Database]]


@pytest_asyncio.fixture
async def deploy(empty_db: Database) -> AsyncIterator[Deploy]:
    """Yield what deploys the newest schema as on a poorer edition, with trades of the last ten days.

    Skips the test if the server under test is not richer.
    """

    async def deployed(edition: Edition) -> Database:
        async with empty_db.engine.connect() as connection:
            if not edition.has_hypertables:
                skip_without(await better(connection), Feature.HYPERTABLES)
            else:
                skip_without(await connection.run_sync(server.enable), Feature.AGGREGATES)
                await connection.commit()
            await connection.run_sync(lambda sync: command.upgrade(migrations.config(sync, edition=edition), "head"))
            await connection.commit()
        async with empty_db.begin() as store:
            await fill(store)
        return empty_db

    yield deployed


async def better(connection: Any) -> Edition:
    """Return the edition that the database would have with the extension."""
    found: Edition = await connection.run_sync(server.enable)
    await connection.rollback()
    await connection.invalidate()
    return found


async def fill(store: Store) -> None:
    exchange = await store.exchanges.add("BINANCE_SPOT")
    symbol = await store.symbols.add(exchange.id, listing("BTC"))
    await store.trades.insert([trade(symbol.id, NOW - age, n) for n, age in enumerate(AGES)])


def trade(symbol_id: int, at: datetime, number: int) -> Trade:
    return Trade(
        symbol_id=symbol_id, timestamp=at, trade_id=str(number), price=100.0 + number % 7, quantity=0.5, side=Side.BUY
    )


def balance(exchange_id: int) -> Balance:
    return Balance(exchange_id=exchange_id, asset_name="ETH", timestamp=NOW, available_balance=Decimal(1))


async def rows(db: Database) -> list[Any]:
    async with db.engine.connect() as connection:
        return list(await connection.execute(text("SELECT * FROM trade_snapshots ORDER BY 1, 2, 3")))


async def candles(db: Database) -> dict[str, list[Any]]:
    async with db.begin() as store:
        return {
            timeframe: await store.candles.history("BINANCE_SPOT", "BTC", "USDT", timeframe, origin="trades")
            for timeframe in ("1m", "1h", "1d")
        }


async def brought_up(db: Database, **options: Any) -> AlignmentPlan:
    return await align(db, await plan_alignment(db), **options)


async def check(db: Database) -> None:
    async with db.engine.connect() as connection:
        await connection.run_sync(lambda sync: command.check(migrations.config(sync)))


async def on(db: Database, work: Callable[[Connection], Any]) -> Any:
    async with db.engine.connect() as connection:
        return await connection.run_sync(work)


async def execute(db: Database, *statements: str) -> None:
    async with db.engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def until_true(db: Database, question: str) -> None:
    async with asyncio.timeout(60), db.engine.connect() as connection:
        while not await connection.scalar(text(question)):
            await connection.rollback()
            await asyncio.sleep(0.01)


async def let_one_row_wait(db: Database) -> None:
    """Let the moving of a row last until nobody holds the advisory lock 42; to the server it waits for none."""
    await execute(
        db,
        "CREATE FUNCTION waits(id text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
        " WHILE id = '150' AND NOT pg_try_advisory_xact_lock_shared(42) LOOP PERFORM pg_sleep(0.05); END LOOP;"
        " RETURN true; END $$",
        "ALTER TABLE trade_snapshots ADD CONSTRAINT waits CHECK (waits(trade_id))",
    )


async def test_a_fresh_deploy_leaves_nothing_to_do(committed_db: Database) -> None:
    found = await plan_alignment(committed_db)
    assert (found.steps, found.left) == ((), ())
    assert found.edition == await on(committed_db, server.edition)


@pytest.mark.parametrize("start", [Edition.PLAIN, Edition.APACHE])
async def test_what_was_deployed_on_a_poorer_server_is_brought_up(deploy: Deploy, start: Edition) -> None:
    db = await deploy(start)
    before = await candles(db)
    assert (await brought_up(db)).steps == ()
    assert (await plan_alignment(db)).steps == ()
    await check(db)
    assert await on(db, server.edition) != start
    assert (await on(db, server.hypertables))["trade_snapshots"].chunk_interval == timedelta(minutes=30)
    assert await candles(db) == before


async def test_existing_rows_move_into_chunks_and_all_of_them(deploy: Deploy) -> None:
    db = await deploy(Edition.PLAIN)
    async with db.begin() as store:
        # So that no job of the server drops what is compared.
        await store.maintenance.set_retention("trade_snapshots", None)
    before = await rows(db)
    planned = await plan_alignment(db)
    moved = next(step for step in planned.steps if step.what.startswith("make trade_snapshots a hypertable"))
    assert (moved.rows, moved.estimated) == (len(AGES), False)
    assert moved.bytes is not None
    assert moved.bytes > 10_000
    await align(db, planned)
    assert await rows(db) == before
    assert (await on(db, server.hypertables))["trade_snapshots"].chunks >= 20
    async with db.engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM ONLY trade_snapshots")) == 0


async def test_a_plan_changes_nothing(deploy: Deploy) -> None:
    db = await deploy(Edition.PLAIN)
    planned = await plan_alignment(db)
    assert planned.steps[0].what == "create the extension timescaledb"
    assert await on(db, server.edition) is Edition.PLAIN
    assert await plan_alignment(db) == planned


async def test_candles_outlive_the_rows_that_the_server_drops_afterwards(deploy: Deploy) -> None:
    db = await deploy(Edition.APACHE)
    before = await candles(db)
    planned = await plan_alignment(db)
    dropping = next(step for step in planned.steps if step.what.startswith("drop rows of trade_snapshots"))
    assert dropping.drops_from == NOW - AGES[-1]
    await align(db, planned)
    async with db.engine.connect() as connection:
        alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
        job = "SELECT job_id FROM timescaledb_information.jobs WHERE config ->> 'table' = 'trade_snapshots'"
        await alone.execute(text(f"CALL run_job({await alone.scalar(text(job))})"))
    assert (await rows(db))[0].timestamp > NOW - 4 * DAY
    assert await candles(db) == before


@pytest.mark.parametrize("share", [0.1, 0.45, 0.8])
async def test_what_is_interrupted_between_steps_goes_on_from_there(deploy: Deploy, share: float) -> None:
    db = await deploy(Edition.PLAIN)
    before = await candles(db)
    planned = await plan_alignment(db)

    def stop(number: int, count: int, _step: str) -> None:
        if number > share * count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await align(db, planned, progress=stop)
    rest = await plan_alignment(db)
    done = int(share * len(planned.steps))
    assert rest.steps == planned.steps[done:]
    assert (await align(db, rest)).steps == ()
    await check(db)
    assert await candles(db) == before


async def test_a_connection_that_is_lost_amid_the_moving_of_rows_loses_none(deploy: Deploy) -> None:
    db = await deploy(Edition.PLAIN)
    async with db.begin() as store:
        await store.maintenance.set_retention("trade_snapshots", None)
    before = await rows(db)
    await let_one_row_wait(db)
    async with db.engine.begin() as holder:
        await holder.execute(text("SELECT pg_advisory_xact_lock(42)"))
        aligning = asyncio.create_task(brought_up(db))
        await until_true(db, f"SELECT count(*) > 0 {WAITING}")
        await execute(db, f"SELECT pg_terminate_backend(pid) {WAITING}")
        with pytest.raises(AlignmentError, match=r"make trade_snapshots a hypertable.*run `arbstore db align` again"):
            await aligning
    assert await rows(db) == before
    assert (await brought_up(db)).steps == ()
    assert await rows(db) == before


async def test_rows_that_are_written_meanwhile_are_not_lost(deploy: Deploy) -> None:
    db = await deploy(Edition.PLAIN)
    async with db.begin() as store:
        await store.maintenance.set_retention("trade_snapshots", None)
    done = asyncio.Event()

    async def write(first: int) -> int:
        async with Database(settings=db.settings) as writer:  # its connections are older than the extension
            number = first
            while not done.is_set():
                async with writer.begin() as store:
                    symbol = await store.symbols.by_pair(1, "BTC", "USDT")
                    assert symbol is not None
                    await store.trades.insert([trade(symbol.id, datetime.now(UTC), number)])
                number += 1
            return number - first

    writers = [asyncio.create_task(write(first)) for first in (10_000, 20_000_000)]
    await until_true(db, "SELECT count(*) > 210 FROM trade_snapshots")
    left = await brought_up(db)
    async with db.engine.connect() as connection:
        aligned = await connection.scalar(text("SELECT now()"))
    async with asyncio.timeout(60):
        while (await rows(db))[-1].timestamp < aligned:  # noqa: ASYNC110 # after it they go on
            await asyncio.sleep(0.01)
    done.set()
    written = await asyncio.gather(*writers)
    assert left.steps == ()
    assert len(await rows(db)) == len(AGES) + sum(written)
    async with db.engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM ONLY trade_snapshots")) == 0


async def test_a_table_in_use_is_waited_for_but_not_for_ever(deploy: Deploy) -> None:
    db = await deploy(Edition.PLAIN)
    async with db.engine.begin() as connection:
        await connection.execute(text("SET LOCAL application_name = 'collector'"))
        await connection.execute(text("SELECT count(*) FROM trade_snapshots"))
        with pytest.raises(AlignmentError, match=r"trade_snapshots is in use by collector \(pid \d+") as caught:
            await brought_up(db, patience=timedelta(milliseconds=200))
    assert caught.value.done > 0
    assert caught.value.sqlstate == "55P03"
    assert len((await plan_alignment(db)).steps) == caught.value.left
    assert (await brought_up(db)).steps == ()


async def test_no_step_is_cut_short_by_the_timeout_of_statements(deploy: Deploy) -> None:
    db = await deploy(Edition.PLAIN)
    planned = await plan_alignment(db)
    settings = db.settings.model_copy(update={"statement_timeout": 2})
    async with Database(settings=settings) as hurried:
        await let_one_row_wait(db)
        async with db.engine.begin() as holder:
            await holder.execute(text("SELECT pg_advisory_xact_lock(42)"))
            aligning = asyncio.create_task(align(hurried, planned))
            await until_true(db, f"SELECT count(*) > 0 {WAITING}")
            await asyncio.sleep(2.5)  # more than it could wait, if the timeout held for it
        assert (await aligning).steps == ()


async def test_a_writer_that_adds_a_symbol_before_its_rows_is_no_deadlock(deploy: Deploy) -> None:
    db = await deploy(Edition.PLAIN)
    async with db.begin() as store:
        exchange = await store.exchanges.by_enum("BINANCE_SPOT")
        assert exchange is not None
        symbol = await store.symbols.add(exchange.id, listing("ETH"))
        aligning = asyncio.create_task(brought_up(db))
        await until_true(db, BLOCKED)
        await asyncio.sleep(1.5)  # until its own wait would not be looked at again: the next deadlock were the writer's
        await store.trades.insert([trade(symbol.id, NOW, 0)])
        await store.balances.insert([balance(exchange.id)])
    assert (await aligning).steps == ()
    async with db.begin() as store:
        assert len(await store.trades.latest(base="ETH")) == 1


async def test_too_few_locks_for_the_chunks_is_told_with_what_helps(deploy: Deploy) -> None:
    db = await deploy(Edition.PLAIN)
    await execute(
        db,
        "CREATE FUNCTION fails() RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'out of shared memory' USING ERRCODE = '53200'; END $$",
        "ALTER TABLE trade_snapshots ADD CONSTRAINT fails CHECK (fails()) NOT VALID",
    )
    with pytest.raises(AlignmentError, match=r"raise the server's max_locks_per_transaction"):
        await brought_up(db)
    assert len(await rows(db)) == len(AGES)


async def test_through_pgbouncer_it_is_refused_with_the_way_round(committed_db: Database) -> None:
    settings = committed_db.settings.model_copy(update={"prepared_statements": False})
    async with Database(settings=settings) as pooled:
        with pytest.raises(ConfigurationError, match="connect to PostgreSQL directly"):
            await plan_alignment(pooled)


async def test_one_at_a_time(deploy: Deploy) -> None:
    db = await deploy(Edition.PLAIN)
    planned = await plan_alignment(db)
    outcomes = await asyncio.gather(align(db, planned), align(db, planned), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {AlignmentPlan, DeployRunningError}
    assert (await plan_alignment(db)).steps == ()


async def test_another_revision_is_asked_for_first(deploy: Deploy) -> None:
    db = await deploy(Edition.PLAIN)
    await execute(db, "UPDATE alembic_version SET version_num = '0005'")
    with pytest.raises(SchemaOutOfDateError, match=r"0005.*`arbstore db upgrade` first"):
        await plan_alignment(db)


async def test_a_retention_that_refreshes_forbid_is_left_out_and_the_rows_stay(committed_db: Database) -> None:
    db = committed_db
    skip_without(await on(db, server.edition), Feature.AGGREGATES)
    async with db.engine.connect() as connection:
        autonomous = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autonomous.execute(
            text(
                "CREATE MATERIALIZED VIEW tick_hours WITH (timescaledb.continuous) AS SELECT symbol_id,"
                " time_bucket('1 hour', timestamp) AS hour, count(*) FROM ticks GROUP BY 1, 2 WITH NO DATA"
            )
        )
    await execute(
        db,
        "SELECT add_continuous_aggregate_policy('tick_hours', INTERVAL '2 days', INTERVAL '1 hour', INTERVAL '1 day')",
        "SELECT remove_retention_policy('ticks')",
        "INSERT INTO retention_overrides VALUES ('ticks', INTERVAL '1 day', now())",
    )
    (left,) = (one for one in (await brought_up(db)).left if one.what == "drop rows of ticks after 1 day")
    assert "tick_hours is refreshed over the last 2 days" in left.why
    await on(db, lambda connection: migrations.downgrade(connection, "0006"))
    await migrations.deploy(db)
    assert "ticks" not in await on(db, retention_policies)
    async with db.begin() as store:
        await store.maintenance.set_retention("ticks", 20 * DAY)
    assert (await plan_alignment(db)).steps == ()


async def test_what_was_set_while_the_server_ran_no_jobs_is_what_its_job_does(deploy: Deploy) -> None:
    db = await deploy(Edition.APACHE)
    await execute(db, "INSERT INTO retention_overrides VALUES ('ticks', INTERVAL '20 days', now())")
    planned = await plan_alignment(db)
    assert "drop rows of ticks after 20 days" in [step.what for step in planned.steps]
    async with db.begin() as store:
        await store.maintenance.set_retention("ticks", 30 * DAY)  # after the plan: that one is passed over
    assert (await align(db, planned)).steps == ()
    assert (await on(db, retention_policies))["ticks"].drop_after == 30 * DAY


async def test_what_was_changed_by_hand_is_mended(committed_db: Database) -> None:
    skip_without(await on(committed_db, server.edition), Feature.RETENTION)
    await execute(
        committed_db,
        "SELECT remove_retention_policy('ticks')",
        "SELECT set_chunk_time_interval('ticks', INTERVAL '3 hours')",
        "SELECT delete_job(job_id) FROM timescaledb_information.jobs WHERE config ->> 'table' = 'trade_snapshots'"
        " AND proc_name = 'arbstore_keep_candles'",
    )
    assert [step.what for step in (await plan_alignment(committed_db)).steps] == [
        "let new chunks of ticks be of 1 hour, not 3 hours",
        "drop rows of ticks after 7 days",
        "drop rows of trade_snapshots after 3 days, by arbstore_keep_candles every 5 minutes",
    ]
    assert (await brought_up(committed_db)).steps == ()
    await check(committed_db)


async def test_what_is_set_while_it_runs_is_not_undone(committed_db: Database) -> None:
    skip_without(await on(committed_db, server.edition), Feature.RETENTION)
    await execute(
        committed_db,
        "SELECT remove_retention_policy('ticks')",
        "SELECT add_retention_policy('ticks', INTERVAL '30 days')",
    )

    async def decide() -> None:
        async with Database(settings=committed_db.settings) as operator, operator.begin() as store:
            await store.maintenance.set_retention("ticks", 20 * DAY)

    def told(_number: int, _count: int, step: str) -> None:
        assert step == "drop no rows of ticks any more; drop rows of ticks after 7 days"
        _in_thread(decide)

    assert (await brought_up(committed_db, progress=told)).steps == ()
    assert (await on(committed_db, retention_policies))["ticks"].drop_after == 20 * DAY


async def test_what_somebody_else_has_computed_is_not_taken_away(committed_db: Database) -> None:
    skip_without(await on(committed_db, server.edition), Feature.AGGREGATES)
    async with committed_db.engine.connect() as connection:
        autonomous = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autonomous.execute(
            text(
                "CREATE MATERIALIZED VIEW mine WITH (timescaledb.continuous) AS SELECT symbol_id,"
                " time_bucket('1 day', timestamp) AS day, count(*) FROM ticks GROUP BY 1, 2 WITH NO DATA"
            )
        )
        await autonomous.execute(text("SELECT add_retention_policy('mine', INTERVAL '90 days')"))
    found = await plan_alignment(committed_db)
    assert found.steps == ()
    assert [one.what for one in found.left] == ["drop the continuous aggregate mine with all that it computed"]
