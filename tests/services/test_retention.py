from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from alembic_timescaledb import Edition, Feature, hypertables, server
from alembic_timescaledb.server import retention_policies
from arbstore.database import Database, Store
from arbstore.errors import CleanupRunningError, ValidationError
from arbstore.models import Base
from arbstore.records import Tick
from arbstore.services.retention import Retention
from arbstore.testing import skip_without
from tests.services.cases import Case, Market, open_market

DAY = timedelta(days=1)
DECLARED = {table.name: kept.retention for table, kept in hypertables(Base.metadata)}
TICKS = Case(Tick)


async def of(store: Store, table: str = "ticks") -> Retention:
    return next(found for found in await store.maintenance.retention() if found.table == table)


async def edition(store: Store) -> Edition:
    return await store.session.run_sync(lambda session: server.edition(session.connection()))


async def runs_jobs(store: Store) -> bool:
    return (await edition(store)).has_policies


async def policy(store: Store, table: str = "ticks") -> timedelta | None:
    found = await store.session.run_sync(lambda session: retention_policies(session.connection()))
    return found[table].drop_after if table in found else None


async def fill(store: Store, market: Market, *ages: timedelta) -> None:
    now = datetime.now(UTC)
    await store.ticks.insert([TICKS.row(market, now - age) for age in ages])


async def ages_left(store: Store) -> list[int]:
    now = datetime.now(UTC)
    return [round((now - row.timestamp) / DAY) for row in await TICKS.history(store)]


async def test_what_the_models_declare_holds_until_something_else_is_set(store: Store) -> None:
    found = await store.maintenance.retention()
    assert {one.table: one.keep_for for one in found} == DECLARED
    assert [one.table for one in found] == sorted(DECLARED)
    assert {one.set_at for one in found} == {None}
    jobs = await runs_jobs(store)
    assert all(one.policy == (jobs and one.declared is not None) for one in found)


async def test_what_was_set_holds_for_every_cleanup_from_then_on(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        await fill(store, await open_market(store), 30 * DAY, 10 * DAY, 3 * DAY)
        await store.maintenance.set_retention("ticks", 20 * DAY)
    # A Database of its own, as another process would have: nothing is shared but the server.
    async with Database(settings=committed_db.settings) as other, other.begin() as store:
        await store.maintenance.cleanup()
        assert await ages_left(store) == [10, 3]
        found = await of(store)
    assert (found.keep_for, found.wanted, found.declared) == (20 * DAY, 20 * DAY, 7 * DAY)
    assert found.set_at is not None
    assert datetime.now(UTC) - found.set_at < timedelta(minutes=1)


async def test_a_retention_that_was_cleared_keeps_everything(store: Store, market: Market) -> None:
    await fill(store, market, 3000 * DAY, DAY)
    found = await store.maintenance.set_retention("ticks", None)
    assert (found.keep_for, found.declared, found.policy, found.cutoff) == (None, 7 * DAY, False, None)
    await store.maintenance.cleanup()
    assert await ages_left(store) == [3000, 1]
    assert await policy(store) is None


async def test_a_table_that_declares_none_can_be_given_one(store: Store) -> None:
    assert (await store.maintenance.set_retention("candles", 400 * DAY)).keep_for == 400 * DAY
    assert {done.retention for done in await store.maintenance.cleanup() if done.table == "candles"} == {400 * DAY}
    assert await policy(store, "candles") == (400 * DAY if await runs_jobs(store) else None)


async def test_a_reset_brings_back_what_the_model_declares(store: Store) -> None:
    for changed in (DAY, None):
        await store.maintenance.set_retention("ticks", changed)
        found = await store.maintenance.reset_retention("ticks")
        assert (found.keep_for, found.wanted, found.set_at) == (7 * DAY, 7 * DAY, None)
        assert await policy(store) == (7 * DAY if await runs_jobs(store) else None)


async def test_the_later_of_two_settings_holds(store: Store) -> None:
    await store.maintenance.set_retention("ticks", 2 * DAY)
    assert (await store.maintenance.set_retention("ticks", 4 * DAY)).keep_for == 4 * DAY
    assert (await of(store, "trade_snapshots")).keep_for == DECLARED["trade_snapshots"]


async def test_a_setting_belongs_to_the_transaction(store: Store) -> None:
    async with store.session.begin_nested() as savepoint:
        await store.maintenance.set_retention("ticks", None)
        await savepoint.rollback()
    assert (await of(store)).keep_for == 7 * DAY


async def test_the_servers_own_job_takes_what_was_set_and_keeps_its_schedule(store: Store) -> None:
    skip_without(await edition(store), Feature.RETENTION)
    job = text(
        "SELECT job_id, schedule_interval, scheduled FROM timescaledb_information.jobs"
        " WHERE proc_name = 'policy_retention' AND hypertable_name = 'ticks'"
    )
    await store.session.execute(
        text("SELECT alter_job(job_id, schedule_interval => INTERVAL '5 hours') FROM timescaledb_information.jobs")
    )
    before = (await store.session.execute(job)).one()
    found = await store.maintenance.set_retention("ticks", 36 * timedelta(hours=1))
    assert (found.policy, await policy(store)) == (True, timedelta(hours=36))
    assert (await store.session.execute(job)).one() == before
    assert before.schedule_interval == timedelta(hours=5)


async def test_the_servers_own_job_drops_by_what_was_set(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        skip_without(await edition(store), Feature.RETENTION)
        await fill(store, await open_market(store), 30 * DAY, 10 * DAY, 3 * DAY)
        await store.maintenance.set_retention("ticks", 20 * DAY)
    async with committed_db.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        job = await connection.scalar(
            text(
                "SELECT job_id FROM timescaledb_information.jobs"
                " WHERE proc_name = 'policy_retention' AND hypertable_name = 'ticks'"
            )
        )
        await connection.execute(text(f"CALL run_job({job})"))
    async with committed_db.begin() as store:
        assert await ages_left(store) == [10, 3]


async def test_a_policy_that_was_removed_by_hand_is_seen_and_no_cleanup_does_its_work(
    store: Store, market: Market
) -> None:
    skip_without(await edition(store), Feature.RETENTION)
    await fill(store, market, 3000 * DAY)
    await store.session.execute(text("SELECT remove_retention_policy('ticks')"))
    found = await of(store)
    assert (found.keep_for, found.wanted, found.set_at) == (None, 7 * DAY, None)
    await store.maintenance.cleanup()
    assert await ages_left(store) == [3000]


async def test_a_retention_that_is_given_wins_over_the_one_that_was_set(store: Store, market: Market) -> None:
    await store.maintenance.set_retention("ticks", None)
    await fill(store, market, 30 * DAY, DAY)
    await store.maintenance.cleanup({"ticks": 2 * DAY})
    assert await ages_left(store) == [1]


@pytest.mark.parametrize("table", ["exchanges", "tick", "retention_overrides", ""])
async def test_only_time_series_have_a_retention(store: Store, table: str) -> None:
    for change in (store.maintenance.set_retention(table, DAY), store.maintenance.reset_retention(table)):
        with pytest.raises(ValidationError, match="is not a time-series table") as caught:
            await change
        assert caught.value.field == table


@pytest.mark.parametrize("age", [timedelta(0), -DAY, timedelta.max])
async def test_what_is_no_age_is_not_set(store: Store, age: timedelta) -> None:
    with pytest.raises(ValidationError) as caught:
        await store.maintenance.set_retention("ticks", age)
    assert caught.value.field == "ticks"
    assert (await of(store)).set_at is None


async def test_no_retention_changes_under_who_removes_by_it(committed_db: Database) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")

    async def lift() -> None:
        async with committed_db.begin() as store:
            await store.maintenance.set_retention("ticks", None)

    async with asyncio.timeout(30):
        async with committed_db.begin() as store:
            held = await store.maintenance.hold_retention()
            change = asyncio.create_task(lift())
            while not await store.session.scalar(waiting):  # noqa: ASYNC110 # the server has no event for it
                await asyncio.sleep(0.01)
            assert (await store.maintenance.hold_retention()) == held
        await change
    async with committed_db.begin() as store:
        assert (await store.maintenance.hold_retention())["ticks"] is None


async def test_two_cleanups_of_one_database_never_overlap(committed_db: Database) -> None:
    async with committed_db.begin() as first:
        await first.maintenance.cleanup()
        async with committed_db.begin() as second:
            with pytest.raises(CleanupRunningError):
                await second.maintenance.cleanup()
    async with committed_db.begin() as second:
        await second.maintenance.cleanup()


async def test_rows_are_not_dropped_that_an_aggregate_is_still_refreshed_over(committed_db: Database) -> None:
    async with committed_db.engine.connect() as connection:
        skip_without(await connection.run_sync(server.edition), Feature.AGGREGATES)
        await connection.rollback()
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(
            text(
                "CREATE MATERIALIZED VIEW tick_hours WITH (timescaledb.continuous) AS SELECT symbol_id,"
                " time_bucket(INTERVAL '1 hour', timestamp) AS hour, max(bid) FROM ticks GROUP BY 1, 2 WITH NO DATA"
            )
        )
        await connection.execute(
            text(
                "SELECT add_continuous_aggregate_policy('tick_hours', start_offset => INTERVAL '2 days',"
                " end_offset => INTERVAL '1 hour', schedule_interval => INTERVAL '100 days')"
            )
        )
    async with committed_db.begin() as store:
        with pytest.raises(ValidationError, match="tick_hours is refreshed over the last 2 days"):
            await store.maintenance.set_retention("ticks", DAY)
        found = await of(store)
        assert (found.keep_for, found.set_at) == (7 * DAY, None)
        assert (await store.maintenance.set_retention("ticks", 2 * DAY)).keep_for == 2 * DAY
        assert (await store.maintenance.set_retention("ticks", None)).keep_for is None
