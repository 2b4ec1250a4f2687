"""Mistakes are errors when the model is defined, and say what, where and what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from alembic_timescaledb import (
    Columnstore,
    ContinuousAggregate,
    DeclarationError,
    Hypertable,
    Refresh,
    RetentionJob,
    aggregates,
    check,
    time_bucket,
)

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def rows(metadata: MetaData, wanted: Hypertable, *more: Any, time: Any = None) -> Table:
    return Table(
        "rows",
        metadata,
        Column("series", Integer, primary_key=True),
        time if time is not None else Column("timestamp", DateTime(timezone=True), primary_key=True),
        Column("note", Text),
        Column("value", Double),
        *more,
        info=wanted.info,
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            [Index("by_day", func.date_trunc("day", text("timestamp")), unique=True)],
            r"unique index by_day \(\) lacks timestamp",
        ),
        ([ExcludeConstraint((literal_column("series"), "="))], r"the exclusion constraint \(.*\) lacks timestamp"),
    ],
    ids=["expression", "exclusion"],
)
def test_what_keeps_rows_unique_by_less_than_their_time_is_refused(more: list[Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        rows(MetaData(), Hypertable(HOUR), *more)


def test_a_unique_index_may_sort_its_columns() -> None:
    at = Column("timestamp", DateTime(timezone=True), primary_key=True)
    table = rows(MetaData(), Hypertable(HOUR), time=at)
    Index("newest_first", table.c.series, table.c.timestamp.desc().nulls_last(), unique=True)
    check(table.metadata)


def test_columns_go_by_their_names_not_by_their_keys() -> None:
    def keyed() -> Column[Any]:
        return Column("timestamp", DateTime(timezone=True), primary_key=True, key="at")

    table = rows(MetaData(), Hypertable(HOUR), time=keyed())
    bucket = time_bucket(MINUTE, table.c.at)
    query = select(bucket.label("timestamp"), func.max(table.c.value).label("value")).group_by(bucket)
    assert ContinuousAggregate("minutes", table.metadata, query).time_column == "timestamp"
    with pytest.raises(DeclarationError, match="it has no time column at; its columns are series, timestamp"):
        rows(MetaData(), Hypertable(HOUR, time_column="at"), time=keyed())


def test_what_is_no_hypertable_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"table rows: info\['hypertable'\] is 'daily': give `Hypertable"):
        Table("rows", MetaData(), info={"hypertable": "daily"})


def test_a_reference_from_a_hypertable_to_another_is_refused() -> None:
    metadata = MetaData()
    target = rows(metadata, Hypertable(HOUR))
    time = Column("timestamp", DateTime(timezone=True), nullable=False)
    key = ForeignKeyConstraint(["series", "timestamp"], [target.c.series, target.c.timestamp])
    Table("notes", metadata, Column("series", Integer), time, key, info=Hypertable(HOUR).info)
    with pytest.raises(DeclarationError, match=r"notes: its foreign key \(series, timestamp\) refers to a hypertable"):
        check(metadata)


def test_a_retention_job_has_a_procedure_and_a_length() -> None:
    with pytest.raises(DeclarationError, match="RetentionJob: procedure is empty"):
        RetentionJob("", every=MINUTE)
    with pytest.raises(DeclarationError, match="RetentionJob: every must be more than zero"):
        RetentionJob("keep", every=timedelta(0))


def test_names_that_the_server_would_cut_are_refused() -> None:
    long = "ä" * 32
    table = rows(MetaData(), Hypertable(HOUR))
    with pytest.raises(DeclarationError, match="longer than 63 bytes"):
        aggregate(table, MINUTE, name=long)
    with pytest.raises(DeclarationError, match="longer than 63 bytes"):
        Table(long, MetaData(), Column("timestamp", DateTime, nullable=False), info=Hypertable(HOUR).info)


def test_the_end_of_a_refresh_is_a_length() -> None:
    with pytest.raises(DeclarationError, match="end_offset must be a timedelta, is None"):
        Refresh(DAY, None, HOUR)  # type: ignore[arg-type] # as one may write it


def aggregate(source: Table, width: timedelta, name: str = "minutes", **options: Any) -> ContinuousAggregate:
    bucket = time_bucket(width, source.c.timestamp)
    query = select(source.c.series, bucket.label("timestamp"), func.max(source.c.value).label("value"))
    return ContinuousAggregate(name, source.metadata, query.group_by(source.c.series, bucket), **options)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Hypertable(HOUR, time_column="when"), "it has no time column when; its columns are series, timestamp"),
        (Hypertable(HOUR, time_column="note"), "time column note is Text.*DateTime"),
        (Hypertable(HOUR, columnstore=Columnstore(DAY, segment_by=["serie"])), "it has no segment_by column serie"),
        (Hypertable(HOUR, columnstore=Columnstore(DAY, order_by=["time DESC"])), "it has no order_by column time"),
        (Hypertable(HOUR, columnstore=Columnstore(DAY, segment_by=["timestamp"])), "timestamp is in segment_by"),
        (
            Hypertable(HOUR, columnstore=Columnstore(DAY, segment_by=["series"], order_by=["series", "timestamp"])),
            "series is in segment_by, but it sorts",
        ),
    ],
)
def test_a_table_that_cannot_be_what_it_declares_is_refused(wanted: Hypertable, message: str) -> None:
    metadata = MetaData()
    with pytest.raises(DeclarationError, match=f"hypertable rows: .*{message}"):
        rows(metadata, wanted)
    assert not metadata.tables, "and it is not there half"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (UniqueConstraint("series", "note"), r"the unique constraint \(series, note\) lacks timestamp"),
        (Index("by_note", "note", unique=True), r"the unique index by_note \(note\) lacks timestamp"),
    ],
)
def test_a_key_without_the_time_is_refused(more: Any, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        rows(MetaData(), Hypertable(HOUR), more)


def test_a_time_that_may_be_null_is_refused() -> None:
    with pytest.raises(DeclarationError, match="may be null: declare nullable=False"):
        rows(MetaData(), Hypertable(HOUR), time=Column("timestamp", DateTime(timezone=True)))


def test_a_key_that_is_added_later_is_found_when_the_revision_is_generated() -> None:
    metadata = MetaData()
    table = rows(metadata, Hypertable(HOUR))
    check(metadata)
    Index("by_note", table.c.note, unique=True)
    with pytest.raises(DeclarationError, match="by_note"):
        check(metadata)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: Hypertable(timedelta(0)), "chunk_interval must be more than zero"),
        (
            lambda: Hypertable(3600),  # type: ignore[arg-type] # what untyped code gives
            "chunk_interval must be a timedelta, is 3600",
        ),
        (lambda: Hypertable(HOUR, retention=-DAY), "retention must be more than zero"),
        (lambda: Hypertable(DAY, retention=HOUR), "kept for 1 hour, less than one chunk .1 day"),
        (lambda: Hypertable(HOUR, DAY, columnstore=Columnstore(DAY)), "dropped after 1 day, before the columnstore"),
        (lambda: Columnstore(timedelta(0)), "after must be more than zero"),
        (lambda: Columnstore(DAY, order_by=[""]).ordered("timestamp"), "names no column"),
        (lambda: Refresh(DAY, -HOUR, HOUR), "end_offset must not be below zero"),
        (lambda: Refresh(DAY, HOUR, timedelta(0)), "every must be more than zero"),
        (lambda: Refresh(timedelta(0), HOUR, HOUR), "start_offset must be more than zero"),
        (lambda: time_bucket(timedelta(0), Column("timestamp", DateTime)), "width must be more than zero"),
    ],
)
def test_lengths_that_cannot_be_are_refused(declare: Callable[[], object], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        declare()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"refresh": Refresh(4 * DAY, MINUTE, MINUTE)}, "begins at 4 days ago.*rows keeps rows for 3 days"),
        ({"refresh": Refresh(None, MINUTE, MINUTE)}, "begins at the beginning.*shorten start_offset"),
        ({"refresh": Refresh(2 * MINUTE, MINUTE, MINUTE)}, "may hold no whole bucket of 1 minute"),
        ({"retention": timedelta(0)}, "retention must be more than zero"),
        ({"chunk_interval": timedelta(0)}, "chunk_interval must be more than zero"),
        ({"retention": DAY, "columnstore": Columnstore(DAY)}, "dropped after 1 day, before the columnstore"),
        (
            {"refresh": Refresh(DAY, MINUTE, MINUTE), "columnstore": Columnstore(HOUR)},
            "takes buckets after 1 hour, while they are still refreshed",
        ),
        ({"columnstore": Columnstore(DAY, segment_by=["note"])}, "columnstore names note: it selects no such column"),
    ],
)
def test_an_aggregate_that_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    metadata = MetaData()
    source = rows(metadata, Hypertable(HOUR, retention=3 * DAY))
    with pytest.raises(DeclarationError, match=f"continuous aggregate minutes: .*{message}"):
        aggregate(source, MINUTE, **options)
    assert not list(aggregates(metadata))


def test_an_aggregate_reads_a_hypertable_by_its_time() -> None:
    ordinary = Table("rows", MetaData(), Column("series", Integer), Column("timestamp", DateTime), Column("value"))
    with pytest.raises(DeclarationError, match="rows is neither a hypertable nor an aggregate"):
        aggregate(ordinary, MINUTE)
    more = Column("received", DateTime(timezone=True))
    source = rows(MetaData(), Hypertable(HOUR), more)
    bucket = time_bucket(MINUTE, more)
    with pytest.raises(DeclarationError, match="time bucket is of received: take timestamp"):
        ContinuousAggregate("minutes", source.metadata, select(bucket, func.count()).group_by(bucket))
    with pytest.raises(DeclarationError, match="it selects 0 time buckets"):
        ContinuousAggregate("minutes", source.metadata, select(func.count()).select_from(source))


def test_aggregates_stack_in_multiples_and_are_no_tables_of_the_metadata() -> None:
    metadata = MetaData()
    source = rows(metadata, Hypertable(HOUR, retention=3 * DAY))
    minutes = aggregate(source, MINUTE, retention=30 * DAY)
    hours = stacked(minutes, HOUR, metadata)
    assert (hours.over, hours.root, hours.bucket, hours.time_column) == (minutes, source, HOUR, "timestamp")
    assert list(aggregates(metadata)) == [minutes, hours]
    assert set(metadata.tables) == {"rows"}
    with pytest.raises(DeclarationError, match=r".90 seconds. must be a multiple of that of minutes .1 minute"):
        stacked(minutes, 90 * SECOND, metadata)
    with pytest.raises(DeclarationError, match="begins at 31 days ago, where minutes keeps rows for 30 days"):
        stacked(minutes, DAY, metadata, refresh=Refresh(31 * DAY, DAY, DAY))


def stacked(over: ContinuousAggregate, width: timedelta, metadata: MetaData, **options: Any) -> ContinuousAggregate:
    bucket = time_bucket(width, over.table.c.timestamp)
    query = select(over.table.c.series, bucket.label("timestamp"), func.max(over.table.c.value).label("value"))
    name = f"per_{int(width.total_seconds())}"
    return ContinuousAggregate(name, metadata, query.group_by(over.table.c.series, bucket), **options)


def test_a_name_is_taken_once() -> None:
    source = rows(MetaData(), Hypertable(HOUR))
    aggregate(source, MINUTE)
    for name in ("minutes", "rows"):
        with pytest.raises(DeclarationError, match="there is a table or an aggregate of that name"):
            aggregate(source, HOUR, name)


def test_a_second_dimension_is_refused_with_what_to_do() -> None:
    with pytest.raises(ImportError, match=r"Space is not supported: call add_dimension by op.execute"):
        from alembic_timescaledb import Space  # noqa: F401
