"""The one reader of a server: its edition, its background jobs, its chunks and sizes, and its view of a query."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from alembic_timescaledb.catalog import Edition as Edition
from alembic_timescaledb.catalog import Feature as Feature
from alembic_timescaledb.catalog import HypertableState as HypertableState
from alembic_timescaledb.catalog import Key, aggregates, jobs, rows
from alembic_timescaledb.catalog import ServerState as ServerState
from alembic_timescaledb.catalog import available as available
from alembic_timescaledb.catalog import edition as edition
from alembic_timescaledb.catalog import enable as enable
from alembic_timescaledb.catalog import hypertables as hypertables
from alembic_timescaledb.catalog import state as state
from alembic_timescaledb.catalog import version as version
from alembic_timescaledb.names import as_sql, escaped, quoted, regclass, sqlstate

REFRESH = "CALL refresh_continuous_aggregate({relation}, {since}, {until})"

_MANAGED = (
    "SELECT to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) FROM timescaledb_information.hypertables"
    " UNION ALL SELECT to_regclass(format('%I.%I', view_schema, view_name))"
    " FROM timescaledb_information.continuous_aggregates"
)
_NAME_TAKEN = (
    "SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'i' THEN 'index'"
    "  WHEN 'S' THEN 'sequence' ELSE 'table' END FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relname = :view AND n.nspname = coalesce(CAST(:schema AS text), current_schema())"
    " AND NOT EXISTS (SELECT FROM timescaledb_information.continuous_aggregates"
    "  WHERE view_schema = n.nspname AND view_name = c.relname)"
)
_READS_MANAGED = (
    "SELECT EXISTS (SELECT d.refobjid FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid"  # noqa: S608 # no names but these
    f" WHERE r.ev_class = CAST(:view AS regclass) INTERSECT ({_MANAGED}))"
)
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
_COLUMNSTORE_SIZE = (
    "SELECT total_chunks, number_compressed_chunks, coalesce(before_compression_total_bytes, 0),"
    " coalesce(after_compression_total_bytes, 0) FROM hypertable_columnstore_stats(CAST(:table AS regclass))"
)
# Before the first refresh the watermark lies before all time that a datetime can hold.
_COMPUTED_UNTIL = (
    "SELECT c.user_view_schema, c.user_view_name, CASE WHEN w.until >= TIMESTAMPTZ '0001-01-02' THEN w.until END"
    " FROM _timescaledb_catalog.continuous_agg c CROSS JOIN LATERAL (SELECT _timescaledb_functions.to_timestamp("
    "  _timescaledb_functions.cagg_watermark(c.mat_hypertable_id)) AS until) w ORDER BY 1, 2"
)
_ADD_RETENTION = "SELECT add_retention_policy(CAST(:table AS regclass), drop_after => CAST(:age AS interval))"
_REFRESH = "policy_refresh_continuous_aggregate"
_CHANGE_RETENTION = (
    "SELECT alter_job(job_id, config => jsonb_set(config, '{drop_after}',"
    " coalesce(to_jsonb(CAST(CAST(:age AS interval) AS text)), 'null')))"
    " FROM timescaledb_information.jobs WHERE job_id = :job"
)


class Size(NamedTuple):
    """Size on disk, indexes included."""

    bytes: int
    rows: int  # estimated


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
    """A job that drops rows older than `drop_after`; None if it is a RetentionJob that keeps all rows for now."""

    job_id: int
    drop_after: timedelta | None
    next_run: datetime | None  # None if it is paused or not planned yet
    last_run: datetime | None
    failed: bool  # in its last run


def chunks(connection: Connection, hypertable: Key) -> list[Chunk]:
    """Return the chunks of the hypertable, oldest first."""
    return [Chunk(*row) for row in connection.execute(text(_CHUNKS), {"schema": hypertable[0], "name": hypertable[1]})]


def size(connection: Connection, table: str | HypertableState) -> Size:
    """Return bytes and estimated rows of an ordinary table, or of all chunks of a hypertable."""
    name, query = (table, _TABLE_SIZE) if isinstance(table, str) else (quoted(*reversed(table.key)), _HYPERTABLE_SIZE)
    return Size(*connection.execute(text(query), {"table": name}).one())


def columnstore_sizes(connection: Connection) -> dict[Key, ColumnstoreSize]:
    """Return the sizes of all columnstores, by schema and name; empty if the edition has none."""
    if not edition(connection).has_policies:
        return {}
    found = state(connection)
    stored = {one.key: one.key for one in found.hypertables.values() if one.settings.columnstore}
    stored |= {one.key: one.stored_in for one in found.aggregates.values() if one.settings.columnstore}
    sizes = {}
    for key, (schema, name) in sorted(stored.items()):
        for row in connection.execute(text(_COLUMNSTORE_SIZE), {"table": quoted(name, schema)}):  # none without chunks
            sizes[key] = ColumnstoreSize(*row)
    return sizes


def drop_chunks(connection: Connection, hypertable: HypertableState, older_than: datetime) -> int:
    """Drop the chunks whose rows are all older than the moment, and return their number."""
    dropped = text("SELECT drop_chunks(CAST(:table AS regclass), older_than => CAST(:moment AS timestamptz))")
    found = {"table": quoted(hypertable.name, hypertable.schema), "moment": older_than}
    return len(connection.execute(dropped, found).all())


def pause_policies(connection: Connection) -> None:
    """Keep the server's jobs from running by themselves in this database; their declarations stay."""
    if edition(connection).has_policies:
        paused = text("SELECT alter_job(:job, scheduled => false)")
        for job in jobs(connection):
            connection.execute(paused, {"job": job.job_id})


def retention_policies(connection: Connection) -> dict[str, RetentionPolicy]:
    """Return the retention policies of relations that queries find without naming a schema, by name."""
    return {
        job.name: RetentionPolicy(job.job_id, job.drop_after, job.next_run, job.last_run, job.failed)
        for job in jobs(connection)
        if job.visible and (job.is_own or (job.proc_name == "policy_retention" and job.drop_after is not None))
    }


def set_retention_policy(connection: Connection, table: str, drop_after: timedelta) -> None:
    """Let the server drop the table's rows at that age; a new policy runs as soon as the transaction has ended."""
    if (policy := retention_policies(connection).get(table)) is None:
        connection.execute(text(_ADD_RETENTION), {"table": quoted(table), "age": drop_after})
    else:
        connection.execute(text(_CHANGE_RETENTION), {"age": drop_after, "job": policy.job_id})


def remove_retention_policy(connection: Connection, table: str) -> None:
    """Let the server keep all rows of the table. A RetentionJob of the table stays, and drops none."""
    for job in jobs(connection):
        if job.is_own and job.visible and job.name == table:
            connection.execute(text(_CHANGE_RETENTION), {"age": None, "job": job.job_id})
    removed = text("SELECT remove_retention_policy(CAST(:table AS regclass), if_exists => true)")
    connection.execute(removed, {"table": quoted(table)})


def refresh_windows(connection: Connection, table: str) -> dict[str, timedelta | None]:
    """Return how far back each continuous aggregate over the table is refreshed, by its name; None is all of it."""
    if (found := hypertables(connection).get(table)) is None:
        return {}
    over = {one.key for one in aggregates(connection) if one.source == found.key}
    return {job.name: job.start_offset for job in jobs(connection, _REFRESH) if (job.schema, job.name) in over}


def aggregate_freshness(connection: Connection) -> dict[Key, AggregateFreshness]:
    """Return how fresh each continuous aggregate is, by schema and name; empty if the edition has none."""
    found = {(schema, name): AggregateFreshness(until) for schema, name, until in rows(connection, _COMPUTED_UNTIL)}
    for job in jobs(connection, _REFRESH):
        if (key := (job.schema, job.name)) in found:
            done = job.last_success, job.next_run, job.failures, job.every
            found[key] = AggregateFreshness(found[key].computed_until, *done)
    return found


def refresh(
    connection: Connection,
    view: str,
    schema: str | None = None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> None:
    """Compute an aggregate's buckets within [since, until) now, by a connection that is in no transaction.

    `until` None is without a bound. `since` None begins with the oldest chunk under the aggregate. A `since` before
    that chunk erases the buckets of dropped rows. A policy computes no bucket before its start_offset: rows that are
    older than the aggregate need this function once.
    """
    committing = connection.execution_options(isolation_level="AUTOCOMMIT")
    try:
        window = refresh_window(committing, view, schema, since, until)
        if window is not None:
            bounds = {"since": as_sql(window[0]), "until": as_sql(window[1])}
            committing.execute(text(escaped(REFRESH.format(relation=regclass(view, schema), **bounds))))
    finally:
        connection.rollback()
        connection.execution_options(isolation_level=connection.default_isolation_level)


def refresh_window(
    connection: Connection, view: str, schema: str | None, since: datetime | None, until: datetime | None
) -> tuple[datetime | None, datetime | None] | None:
    """Return the window to refresh, which keeps the buckets of dropped rows; None if there is nothing to compute."""
    named = (one for one in aggregates(connection) if one.name == view)
    found = next((one for one in named if (one.visible if schema is None else one.schema == schema)), None)
    if since is not None or found is None:  # the server refuses a name that is not an aggregate's
        return since, until
    if (oldest := next((chunk.start for chunk in chunks(connection, found.source)), None)) is None:
        return None
    stored = quoted(found.stored_in[1], found.stored_in[0])
    older = f"SELECT EXISTS (SELECT FROM {stored} WHERE {quoted(found.time_column)} < {as_sql(oldest)})"  # noqa: S608 # quoted
    if not connection.scalar(text(escaped(older))):
        return None, until
    ended = until is not None and (until if until.tzinfo else until.replace(tzinfo=UTC)) <= oldest
    return None if ended else (oldest, until)


def is_managed(connection: Connection, relation: str, schema: str | None = None) -> bool:
    """Whether the name belongs to a hypertable or a continuous aggregate."""
    found = text(f"SELECT to_regclass(:relation) IN ({_MANAGED})")
    return bool(connection.scalar(found, {"relation": quoted(relation, schema)}))


def other_relation(connection: Connection, view: str, schema: str | None) -> str | None:
    """Return the kind of relation that has the name, such as `table`; None if it is free or a continuous aggregate."""
    return connection.execute(text(_NAME_TAKEN), {"view": view, "schema": schema}).scalar()


def reads_managed(connection: Connection, query: str) -> bool:
    """Whether the query reads a hypertable or a continuous aggregate."""
    with _probed(connection, query) as view:
        return view is not None and bool(connection.scalar(text(_READS_MANAGED), {"view": view}))


def canonical(connection: Connection, query: str) -> str | None:
    """Return the query in PostgreSQL's own spelling, to compare queries by; None if PostgreSQL refuses it."""
    with _probed(connection, query) as view:
        definition = text("SELECT pg_get_viewdef(CAST(:view AS regclass))")
        return None if view is None else connection.execute(definition, {"view": view}).scalar_one()


@contextmanager
def _probed(connection: Connection, query: str) -> Iterator[str | None]:
    """Yield the name of a temporary view of the query, or None if PostgreSQL refuses it; the view is undone."""
    savepoint = connection.begin_nested()
    try:
        try:
            connection.execute(text(escaped(f"CREATE TEMPORARY VIEW timescale_probe AS {query}")))
        except DBAPIError as error:
            # The query has invalid data, names or syntax; a lack of privileges (42501) says nothing about it.
            if (code := sqlstate(error) or "")[:2] not in ("22", "42") or code == "42501":
                raise
            yield None
        else:
            yield "pg_temp.timescale_probe"
    finally:
        savepoint.rollback()
