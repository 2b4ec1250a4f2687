"""Models that the tests declare, change and declare again, in any schema and by any name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Column, DateTime, Double, Integer, MetaData, Select, Table, Text, func, select

from alembic_timescaledb import Columnstore, ContinuousAggregate, Hypertable, Refresh, RetentionJob, time_bucket

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
COLUMNSTORE = Columnstore(6 * HOUR, segment_by=["sensor"], order_by=["time DESC"])
FULL = Hypertable(HOUR, retention=7 * DAY, time_column="time", columnstore=COLUMNSTORE)
BY_JOB = Hypertable(HOUR, retention=7 * DAY, time_column="time", retention_job=RetentionJob("keep", 5 * MINUTE))
# No semicolon: tests split what is done by hand at them.
KEEP = "CREATE PROCEDURE keep(job_id integer, config jsonb) LANGUAGE plpgsql AS 'BEGIN END'"
REFRESH = Refresh(3 * HOUR, end_offset=MINUTE, every=10 * MINUTE)


def readings(metadata: MetaData, wanted: Hypertable | None = FULL, **options: Any) -> Table:
    """Declare a table of readings; what declares no hypertable is an ordinary one."""
    return Table(
        options.pop("name", "readings"),
        metadata,
        Column("sensor", Integer, primary_key=True, autoincrement=False),
        Column("time", DateTime(timezone=True), primary_key=True),
        Column("Odd, value%", Double),
        Column("note", Text),
        info={} if wanted is None else wanted.info,
        **options,
    )


def query(source: Table, width: timedelta, *, value: str = "Odd, value%", where: Sequence[Any] = ()) -> Select[Any]:
    bucket = time_bucket(width, source.c.time)
    highest = func.max(source.c[value]).label("highest")
    return select(source.c.sensor, bucket.label("time"), highest).where(*where).group_by(source.c.sensor, bucket)


def per_minute(source: Table, *, name: str = "per_minute", **options: Any) -> ContinuousAggregate:
    where = options.pop("where", ())
    options = {"refresh": REFRESH, "retention": 30 * DAY, "columnstore": Columnstore(DAY), **options}
    return ContinuousAggregate(name, source.metadata, query(source, MINUTE, where=where), **options)


def per_hour(minutes: ContinuousAggregate, metadata: MetaData, *, name: str = "per_hour") -> ContinuousAggregate:
    refresh = Refresh(DAY, end_offset=HOUR, every=HOUR)
    stacked = query(minutes.table, HOUR, value="highest")
    chunks = 365 * DAY
    return ContinuousAggregate(name, metadata, stacked, refresh=refresh, chunk_interval=chunks, schema=minutes.schema)
