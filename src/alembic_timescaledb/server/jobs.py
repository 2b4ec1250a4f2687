"""What a server does by itself and how far it is: retention, refreshes, the columnstore; and its chunks and sizes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, TableClause, column, table, text

from alembic_timescaledb.aggregate import ContinuousAggregate
from alembic_timescaledb.names import escaped, quoted, regclass
from alembic_timescaledb.server.catalog import AggregateState, HypertableState, Key, aggregates, hypertables, jobs
from alembic_timescaledb.server.edition import edition

_CHUNKS = (
    "SELECT range_start, range_end FROM timescaledb_information.chunks"
    " WHERE hypertable_schema = :schema AND hypertable_name = :name ORDER BY range_start"
)
# The statistics are lost in a crash and the catalog lags behind: the larger of their estimates is nearer.
_TABLE_SIZE = (
    "SELECT pg_total_relation_size(oid), CAST(greatest(reltuples, pg_stat_get_live_tuples(oid), 0) AS bigint)"
    " FROM pg_class WHERE oid = CAST(:table AS regclass)"
)
# approximate_row_count knows compressed chunks, but of the others only analyzed ones.
_HYPERTABLE_SIZE = (
    "SELECT hypertable_size(oid), greatest(approximate_row_count(oid), (SELECT"
    "  CAST(sum(greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)) AS bigint) FROM pg_class c"
    "  JOIN pg_inherits i ON i.inhrelid = c.oid WHERE i.inhparent = found.oid))"
    " FROM (SELECT CAST(:table AS regclass) AS oid) found"
)
_COLUMNSTORE_SIZES = (
    "WITH enabled AS (SELECT hypertable_schema AS schema, hypertable_name AS name,"
    "  format('%I.%I', hypertable_schema, hypertable_name) AS stored"
    "  FROM timescaledb_information.hypertables WHERE compression_enabled"
    " UNION ALL SELECT view_schema, view_name,"
    "  format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)"
    "  FROM timescaledb_information.continuous_aggregates WHERE compression_enabled)"
    " SELECT schema, name, s.total_chunks, s.number_compressed_chunks,"
    "  coalesce(s.before_compression_total_bytes, 0), coalesce(s.after_compression_total_bytes, 0)"
    " FROM enabled, LATERAL hypertable_columnstore_stats(CAST(enabled.stored AS regclass)) s ORDER BY 1, 2"
)
# Before the first refresh the watermark lies before all time that a datetime can hold.
_COMPUTED_UNTIL = (
    "SELECT c.user_view_schema, c.user_view_name, CASE WHEN w.until >= TIMESTAMPTZ '0001-01-02' THEN w.until END"
    " FROM _timescaledb_catalog.continuous_agg c CROSS JOIN LATERAL (SELECT _timescaledb_functions.to_timestamp("
    "  _timescaledb_functions.cagg_watermark(c.mat_hypertable_id)) AS until) w ORDER BY 1, 2"
)
_DROP_CHUNKS = "SELECT drop_chunks(CAST(:table AS regclass), older_than => CAST(:older_than AS timestamptz))"
_ADD_RETENTION = "SELECT add_retention_policy(CAST(:table AS regclass), drop_after => CAST(:age AS interval))"
_REMOVE_RETENTION = "SELECT remove_retention_policy(CAST(:table AS regclass), if_exists => true)"
_REFRESH = "policy_refresh_continuous_aggregate"
_PAUSE = (
    "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs WHERE hypertable_name IS NOT NULL"
)
_CHANGE_RETENTION = (
    "SELECT alter_job(job_id, config => jsonb_set(config, '{drop_after}',"
    " to_jsonb(CAST(CAST(:age AS interval) AS text)))) FROM timescaledb_information.jobs WHERE job_id = :job"
)


class Size(NamedTuple):
    """Bytes on disk, indexes included, and estimated rows."""

    bytes: int
    rows: int


class Chunk(NamedTuple):
    """One chunk of a hypertable: the rows of [start, end)."""

    start: datetime
    end: datetime


class ColumnstoreSize(NamedTuple):
    """The chunks of a hypertable or aggregate, and the bytes of those in the columnstore before and after."""

    chunks: int
    in_columnstore: int
    bytes_before: int
    bytes_after: int

    @property
    def ratio(self) -> float | None:
        """How many times smaller the columnstore made its chunks; None if it is empty."""
        return self.bytes_before / self.bytes_after if self.bytes_after else None


class AggregateFreshness(NamedTuple):
    """How fresh an aggregate is: `computed_until` is None before its first refresh, the rest without a policy."""

    computed_until: datetime | None
    last_refresh: datetime | None = None
    next_refresh: datetime | None = None
    failures: int = 0
    every: timedelta | None = None


class RetentionPolicy(NamedTuple):
    """A job that drops chunks whose rows are all older than `drop_after`.

    `next_run` is None if the job is paused or not planned yet; `last_run` is None before the first run. `failed` says
    that the last run failed.
    """

    job_id: int
    drop_after: timedelta
    next_run: datetime | None
    last_run: datetime | None
    failed: bool


def chunks(connection: Connection, hypertable: HypertableState) -> list[Chunk]:
    """Return the chunks of the hypertable, oldest first."""
    return _chunks(connection, hypertable.key)


def _chunks(connection: Connection, key: Key) -> list[Chunk]:
    return [Chunk(*row) for row in connection.execute(text(_CHUNKS), {"schema": key[0], "name": key[1]})]


def table_size(connection: Connection, table: str) -> Size:
    """Return bytes and estimated rows of an ordinary table."""
    return Size(*connection.execute(text(_TABLE_SIZE), {"table": table}).one())


def hypertable_size(connection: Connection, hypertable: HypertableState) -> Size:
    """Return bytes and estimated rows of the hypertable, of all its chunks together."""
    name = quoted(hypertable.name, hypertable.schema)
    return Size(*connection.execute(text(_HYPERTABLE_SIZE), {"table": name}).one())


def columnstore_sizes(connection: Connection) -> dict[Key, ColumnstoreSize]:
    """Return the sizes of all columnstores, by schema and name; empty if the edition has none."""
    if not edition(connection).has_policies:
        return {}
    rows = connection.execute(text(_COLUMNSTORE_SIZES))
    return {(row[0], row[1]): ColumnstoreSize(*row[2:]) for row in rows}


def drop_chunks(connection: Connection, hypertable: HypertableState, older_than: datetime) -> int:
    """Drop the chunks whose rows are all older than the moment, and return their number."""
    name = quoted(hypertable.name, hypertable.schema)
    return len(connection.execute(text(_DROP_CHUNKS), {"table": name, "older_than": older_than}).all())


def pause_policies(connection: Connection) -> None:
    """Keep the server's jobs from running by themselves in this database; their declarations stay."""
    if edition(connection).has_policies:
        connection.execute(text(_PAUSE))


def retention_policies(connection: Connection) -> dict[str, RetentionPolicy]:
    """Return the retention policies of relations that queries find without naming a schema, by name."""
    return {
        job.name: RetentionPolicy(job.job_id, job.drop_after, job.next_run, job.last_run, job.failed)
        for job in jobs(connection, "policy_retention")
        if job.visible and job.drop_after is not None
    }


def set_retention_policy(connection: Connection, table: str, drop_after: timedelta) -> None:
    """Let the server drop the table's chunks at that age, in the connection's transaction.

    An existing policy keeps its schedule. A new one runs as soon as the transaction has ended.
    """
    if (policy := retention_policies(connection).get(table)) is None:
        connection.execute(text(_ADD_RETENTION), {"table": quoted(table), "age": drop_after})
    else:
        connection.execute(text(_CHANGE_RETENTION), {"age": drop_after, "job": policy.job_id})


def remove_retention_policy(connection: Connection, table: str) -> None:
    """Let the server keep all rows of the table, in the connection's transaction; without a policy do nothing."""
    connection.execute(text(_REMOVE_RETENTION), {"table": quoted(table)})


def refresh_windows(connection: Connection, table: str) -> dict[str, timedelta | None]:
    """Return how far back each continuous aggregate over the table is refreshed, by its name; None is all of it.

    A refresh erases the buckets of dropped rows.
    """
    found = hypertables(connection).get(table)
    windows = {(job.schema, job.name): job.start_offset for job in jobs(connection, _REFRESH)}
    return {
        one.name: windows[one.key]
        for one in aggregates(connection)
        if found is not None and one.source == found.key and one.key in windows
    }


def aggregate_freshness(connection: Connection) -> dict[Key, AggregateFreshness]:
    """Return how fresh each continuous aggregate is, by schema and name; empty if the edition has none."""
    if not edition(connection).has_policies:
        return {}
    policies = {(job.schema, job.name): job for job in jobs(connection, _REFRESH)}
    return {
        (schema, name): AggregateFreshness(until, job.last_success, job.next_run, job.failures, job.every)
        if (job := policies.get((schema, name)))
        else AggregateFreshness(until)
        for schema, name, until in connection.execute(text(_COMPUTED_UNTIL))
    }


def materialized(connection: Connection, declared: Iterable[ContinuousAggregate]) -> dict[str, TableClause]:
    """Return the table behind each declared aggregate that the server has, by the aggregate's name.

    It holds only refreshed buckets; the view adds newer rows when it is read.
    """
    stored = {one.name: one.stored_in for one in aggregates(connection) if one.visible}
    return {
        one.name: table(name, *(column(part.name, part.type) for part in one.table.c), schema=schema)
        for one in declared
        if one.name in stored
        for schema, name in [stored[one.name]]
    }


def refresh(
    connection: Connection,
    view: str,
    schema: str | None = None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> None:
    """Compute an aggregate's buckets within [since, until) now, by a connection that is in no transaction.

    `until` None is without a bound. `since` None begins with the oldest rows. It keeps buckets that began before the
    oldest chunk under the aggregate, because their rows may have been dropped. A `since` before that chunk erases them.
    Buckets without changes cost nothing. A policy computes no bucket before its start_offset: rows that are older than
    the aggregate need this function once.
    """
    committing = connection.execution_options(isolation_level="AUTOCOMMIT")
    try:
        window = refresh_window(committing, view, schema, since, until)
        if window is not None:
            committing.execute(text(escaped(refresh_call(regclass(view, schema), *window))))
    finally:
        connection.rollback()
        connection.execution_options(isolation_level=connection.default_isolation_level)


def refresh_window(
    connection: Connection, view: str, schema: str | None, since: datetime | None, until: datetime | None
) -> tuple[datetime | None, datetime | None] | None:
    """Return the window to refresh, or None if there is nothing to compute.

    If `since` is None and the aggregate has buckets before the oldest chunk under it, the window begins with that
    chunk. A refresh would erase the buckets before it, whose rows may have been dropped.
    """
    found = _aggregate(connection, view, schema)
    if since is not None or found is None:  # the server refuses a name that is not an aggregate's
        return since, until
    if not (there := _chunks(connection, found.source)):
        return None
    oldest = there[0].start
    stored = quoted(found.stored_in[1], found.stored_in[0])
    older = f"SELECT EXISTS (SELECT FROM {stored} WHERE {quoted(found.time_column)} < {_moment(oldest)})"  # noqa: S608 # quoted
    if not connection.scalar(text(escaped(older))):
        return None, until
    if until is not None and (until if until.tzinfo else until.replace(tzinfo=UTC)) <= oldest:
        return None
    return oldest, until


def _aggregate(connection: Connection, view: str, schema: str | None) -> AggregateState | None:
    named = (one for one in aggregates(connection) if one.name == view)
    return next((one for one in named if (one.visible if schema is None else one.schema == schema)), None)


def refresh_call(view: str, since: datetime | None = None, until: datetime | None = None) -> str:
    """Return the SQL that computes an aggregate's buckets of [since, until); `view` is a literal of its name."""
    bounds = ("NULL" if moment is None else _moment(moment) for moment in (since, until))
    return f"CALL refresh_continuous_aggregate({view}, {', '.join(bounds)})"


def _moment(moment: datetime) -> str:
    """Return an untyped literal in UTC, which columns with and without a time zone take."""
    return f"'{(moment.astimezone(UTC) if moment.tzinfo else moment).isoformat()}'"
