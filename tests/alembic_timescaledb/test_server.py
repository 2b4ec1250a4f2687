"""What a server says of its own work: sizes of the columnstore, freshness of aggregates; and a refresh by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Connection, DateTime, Table, func, insert, select, text, update
from sqlalchemy.exc import InvalidRequestError

from alembic_timescaledb import Columnstore, ContinuousAggregate, Hypertable, time_bucket
from alembic_timescaledb.operations import RefreshContinuousAggregateOp, TimescaleOp
from alembic_timescaledb.server import (
    RetentionPolicy,
    aggregate_freshness,
    columnstore_sizes,
    refresh,
    remove_retention_policy,
    retention_policies,
    set_retention_policy,
)
from tests.alembic_timescaledb.models import BY_JOB, DAY, HOUR, MINUTE, per_hour, per_minute, query, readings
from tests.alembic_timescaledb.project import Project

FAILURES = (
    "SELECT coalesce(sum(s.total_failures), 0) FROM timescaledb_information.jobs j"
    " LEFT JOIN timescaledb_information.job_stats s ON s.job_id = j.job_id WHERE j.hypertable_name = 'per_hour'"
)
NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)


def migrate(connection: Connection, op: TimescaleOp) -> None:
    context = MigrationContext.configure(connection)
    with context.begin_transaction():
        Operations(context).invoke(op)


async def test_an_edition_without_them_has_none(project: Project) -> None:
    if not project.edition.has_policies:
        assert await project.connection.run_sync(columnstore_sizes) == {}
        assert await project.connection.run_sync(aggregate_freshness) == {}


async def test_sizes_of_the_columnstore(community: Project) -> None:
    # A policy's job may run before it is asked about; this one finds no old row.
    old = Columnstore(100_000 * DAY, segment_by=["sensor"])
    readings(community.metadata, Hypertable(HOUR, time_column="time", columnstore=old))
    await community.deploy()
    await community.execute(
        "INSERT INTO readings SELECT 1, timestamptz '2024-08-08' + n * interval '1 second', 5, 'abc'"
        " FROM generate_series(0, 7199) n"
    )
    key = ("public", "readings")
    before = (await community.connection.run_sync(columnstore_sizes))[key]
    assert (before.chunks, before.in_columnstore, before.ratio) == (2, 0, None)
    await community.execute(
        "SELECT compress_chunk(c) FROM show_chunks('readings', older_than => '2024-08-08 01:00+0') c"
    )
    after = (await community.connection.run_sync(columnstore_sizes))[key]
    assert (after.chunks, after.in_columnstore) == (2, 1)
    assert after.ratio is not None
    assert after.ratio > 4
    assert after.ratio == after.bytes_before / after.bytes_after


async def test_how_fresh_aggregates_are(community: Project) -> None:
    minutes = per_minute(readings(community.metadata), materialized_only=True, retention=None)
    per_hour(minutes, community.metadata)
    await community.deploy()
    await community.execute(
        "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs"
        " WHERE hypertable_name IS NOT NULL"
    )
    found = await community.connection.run_sync(aggregate_freshness)
    assert set(found) == {("public", "per_minute"), ("public", "per_hour")}
    before = found["public", "per_hour"]
    assert (before.computed_until, before.next_refresh) == (None, None)
    failures = await community.connection.scalar(text(FAILURES))  # its job may have started before it was paused
    assert before.failures == failures
    rows = [{"sensor": 1, "time": NOON + n * MINUTE, "Odd, value%": float(n)} for n in range(90)]
    await community.connection.execute(insert(community.metadata.tables["readings"]), rows)
    await community.connection.commit()
    await community.connection.run_sync(refresh, "per_minute", since=None, until=NOON + HOUR)
    after = (await community.connection.run_sync(aggregate_freshness))["public", "per_minute"]
    assert after.computed_until == NOON + HOUR
    computed = (await community.connection.scalars(select(minutes.table.c.highest).order_by("time"))).all()
    assert computed == [float(n) for n in range(60)]
    await community.connection.execute(text("DELETE FROM readings"))
    await community.connection.rollback()
    assert await community.connection.scalar(text("SELECT count(*) FROM readings")) == 90, "transactions are as before"


@pytest.mark.parametrize("by_hand", [True, False], ids=["function", "operation"])
async def test_a_refresh_over_everything_keeps_what_dropped_rows_made(community: Project, by_hand: bool) -> None:
    async def refreshed() -> int:
        if by_hand:
            await community.connection.run_sync(refresh, "per_day")
        else:
            await community.connection.run_sync(migrate, RefreshContinuousAggregateOp("per_day"))
        found = await community.connection.scalar(select(func.count()).select_from(days.table))
        await community.connection.commit()
        return int(found or 0)

    table = readings(community.metadata, Hypertable(HOUR, time_column="time"))
    days = ContinuousAggregate("per_day", community.metadata, query(table, DAY), materialized_only=True)
    await community.deploy()
    assert await refreshed() == 0
    # Rows begin in the midst of a day, which is computed nevertheless.
    rows = [{"sensor": 1, "time": NOON + n * HOUR, "Odd, value%": float(n)} for n in range(72)]
    await community.connection.execute(insert(table), rows)
    await community.connection.commit()
    assert await refreshed() == 4
    # The third day is cut by it: what is left of its rows would make another bucket.
    await community.execute(f"SELECT drop_chunks('readings', '{NOON + 2 * DAY}')")
    changed = update(table).where(table.c.time >= NOON + 2 * DAY).values({"Odd, value%": 1000.0})
    await community.connection.execute(changed)
    await community.connection.commit()
    assert await refreshed() == 4
    highest = (await community.connection.scalars(select(days.table.c.highest).order_by("time"))).all()
    assert highest == [11, 35, 59, 1000]
    await community.connection.rollback()
    await community.execute("SELECT drop_chunks('readings', timestamptz '2100-01-01')")
    assert await refreshed() == 4


async def test_a_time_without_a_zone_is_refreshed(community: Project) -> None:
    table = Table(
        "readings",
        community.metadata,
        Column("time", DateTime, nullable=False),
        info=Hypertable(HOUR, time_column="time").info,
    )
    bucket = time_bucket(HOUR, table.c.time)
    counted = select(bucket.label("time"), func.count().label("rows")).group_by(bucket)
    hours = ContinuousAggregate("per_hour", community.metadata, counted, materialized_only=True)
    await community.deploy()
    rows = [{"time": NOON.replace(tzinfo=None) + n * 30 * MINUTE} for n in range(8)]
    await community.connection.execute(insert(table), rows)
    await community.connection.commit()
    await community.connection.run_sync(refresh, "per_hour", since=NOON + HOUR)
    found = (await community.connection.execute(select(hours.table.c.time, hours.table.c.rows).order_by("time"))).all()
    assert [tuple(row) for row in found] == [(NOON.replace(tzinfo=None) + n * HOUR, 2) for n in (1, 2, 3)]


async def test_a_retention_job_runs_with_the_age_in_its_configuration_and_is_never_removed(community: Project) -> None:
    connection = community.connection

    async def policy() -> RetentionPolicy:
        found = (await connection.run_sync(retention_policies))["readings"]
        await connection.commit()
        return found

    readings(community.metadata, BY_JOB)
    await community.execute(
        "CREATE PROCEDURE keep(job_id integer, config jsonb) LANGUAGE plpgsql"
        " AS 'BEGIN INSERT INTO runs VALUES (config); END'"
    )
    await community.deploy()
    await community.execute("CREATE TABLE runs (config jsonb)")
    job, *_, next_run, last_run, failed = await policy()
    assert (next_run is not None, last_run, failed) == (True, None, False)
    await community.execute(f"CALL run_job({job})")
    await connection.run_sync(set_retention_policy, "readings", 2 * DAY)
    assert ((await policy()).job_id, (await policy()).drop_after) == (job, 2 * DAY)
    await community.execute(f"CALL run_job({job})")
    await connection.run_sync(remove_retention_policy, "readings")
    assert ((await policy()).job_id, (await policy()).drop_after) == (job, None)
    await community.execute(f"CALL run_job({job})")
    configs = (await connection.scalars(text("SELECT config FROM runs"))).all()
    same = {"schema": "public", "table": "readings"}
    assert configs == [{**same, "drop_after": age} for age in ("7 days", "2 days", None)]


async def test_a_refresh_inside_a_transaction_is_refused(community: Project) -> None:
    per_minute(readings(community.metadata))
    await community.deploy()
    await community.connection.execute(select(1))
    with pytest.raises(InvalidRequestError, match="isolation_level may not be altered"):
        await community.connection.run_sync(refresh, "per_minute", until=NOON - timedelta(days=1))
