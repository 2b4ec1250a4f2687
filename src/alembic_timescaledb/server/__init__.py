"""The one reader of a server: its edition, its hypertables and aggregates, their chunks, sizes and jobs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, TableClause, column, table, text
from sqlalchemy.exc import DBAPIError

from alembic_timescaledb.aggregate import ContinuousAggregate, Refresh
from alembic_timescaledb.declare import Order, Space
from alembic_timescaledb.names import quoted, regclass
from alembic_timescaledb.server.edition import Edition, Feature, available, edition, enable, version

__all__ = [
    "AggregateFound",
    "AggregateFreshness",
    "Chunk",
    "ColumnstoreSize",
    "ColumnstoreState",
    "Dimensions",
    "Edition",
    "Feature",
    "HypertableFound",
    "HypertableState",
    "Key",
    "PolicyState",
    "RetentionPolicy",
    "ServerState",
    "Size",
    "aggregate_freshness",
    "available",
    "canonical",
    "chunks",
    "columnstore_sizes",
    "drop_chunks",
    "edition",
    "enable",
    "escaped",
    "hypertable_size",
    "hypertables",
    "is_managed",
    "materialized",
    "other_relation",
    "pause_policies",
    "policies_by_creation",
    "reads_managed",
    "refresh",
    "refresh_call",
    "refresh_window",
    "refresh_windows",
    "remove_retention_policy",
    "retention_policies",
    "set_retention_policy",
    "state",
    "table_size",
    "version",
]

_PROBE = "timescale_probe"
_NAMED = "concat_ws('.', quote_ident(CAST(:schema AS text)), quote_ident(CAST(:relation AS text)))"
_MANAGED = (
    "SELECT to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) AS oid"
    " FROM timescaledb_information.hypertables"
    " UNION ALL SELECT to_regclass(format('%I.%I', view_schema, view_name))"
    " FROM timescaledb_information.continuous_aggregates"
)


class HypertableState(NamedTuple):
    """One hypertable of the server; `retention` is None where no policy drops chunks."""

    schema: str
    table: str
    chunks: int
    chunk_interval: timedelta | None
    retention: timedelta | None


class Size(NamedTuple):
    """Bytes on disk, indexes included, and estimated rows."""

    bytes: int
    rows: int


class Chunk(NamedTuple):
    """One chunk of a hypertable: the rows of [start, end)."""

    schema: str
    table: str
    start: datetime
    end: datetime


def hypertables(connection: Connection) -> dict[str, HypertableState]:
    """Return the hypertables that are meant by their mere name, by name; empty on plain PostgreSQL."""
    if edition(connection) is Edition.PLAIN:
        return {}
    rows = connection.execute(
        text(
            "SELECT h.hypertable_schema, h.hypertable_name, h.num_chunks, d.time_interval,"
            " (SELECT (j.config ->> 'drop_after')::interval FROM timescaledb_information.jobs j"
            "  WHERE j.proc_name = 'policy_retention' AND j.hypertable_schema = h.hypertable_schema"
            "  AND j.hypertable_name = h.hypertable_name)"
            " FROM timescaledb_information.hypertables h"
            " JOIN timescaledb_information.dimensions d USING (hypertable_schema, hypertable_name)"
            # As queries find them, along the whole search path: one that is missed here would pass for ordinary.
            " WHERE d.dimension_number = 1 AND to_regclass(quote_ident(h.hypertable_name))"
            "  = to_regclass(format('%I.%I', h.hypertable_schema, h.hypertable_name))"
            " ORDER BY h.hypertable_name"
        )
    )
    return {row[1]: HypertableState(*row) for row in rows}


def chunks(connection: Connection, hypertable: HypertableState) -> list[Chunk]:
    """Return the chunks of the hypertable, oldest first."""
    rows = connection.execute(
        text(
            "SELECT chunk_schema, chunk_name, range_start, range_end FROM timescaledb_information.chunks"
            " WHERE hypertable_schema = :schema AND hypertable_name = :table ORDER BY range_start"
        ),
        {"schema": hypertable.schema, "table": hypertable.table},
    )
    return [Chunk(*row) for row in rows]


def table_size(connection: Connection, table: str) -> Size:
    """Return bytes and estimated rows of an ordinary table."""
    # The statistics forget at a crash, the catalog is behind: the larger of their estimates is nearer.
    row = connection.execute(
        text(
            "SELECT pg_total_relation_size(oid), CAST(greatest(reltuples, pg_stat_get_live_tuples(oid), 0) AS bigint)"
            " FROM pg_class WHERE oid = CAST(:table AS regclass)"
        ),
        {"table": table},
    ).one()
    return Size(*row)


def hypertable_size(connection: Connection, hypertable: HypertableState) -> Size:
    """Return bytes and estimated rows of the hypertable, all of its chunks together."""
    # approximate_row_count knows compressed chunks, but of others only what was analyzed.
    row = connection.execute(
        text(
            "WITH meant AS (SELECT format('%I.%I', CAST(:schema AS text), CAST(:table AS text))::regclass AS oid)"
            " SELECT hypertable_size(oid), greatest(approximate_row_count(oid), (SELECT"
            "  CAST(sum(greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)) AS bigint) FROM pg_class c"
            "  JOIN pg_inherits i ON i.inhrelid = c.oid WHERE i.inhparent = meant.oid)) FROM meant"
        ),
        {"schema": hypertable.schema, "table": hypertable.table},
    ).one()
    return Size(*row)


def drop_chunks(connection: Connection, hypertable: HypertableState, older_than: datetime) -> int:
    """Drop the chunks whose rows are all older than the moment, and return how many they were."""
    dropped = connection.execute(
        text(
            "SELECT drop_chunks(format('%I.%I', CAST(:schema AS text), CAST(:table AS text))::regclass,"
            " older_than => CAST(:older_than AS timestamptz))"
        ),
        {"schema": hypertable.schema, "table": hypertable.table, "older_than": older_than},
    )
    return len(dropped.all())


def pause_policies(connection: Connection) -> None:
    """Keep the server's jobs from running by themselves in this database; they stay as they are declared."""
    if edition(connection).has_policies:
        connection.execute(
            text(
                "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs"
                " WHERE hypertable_name IS NOT NULL"
            )
        )


def is_managed(connection: Connection, relation: str, schema: str | None = None) -> bool:
    """Whether the name is that of a hypertable or of a continuous aggregate, and no ordinary table."""
    return bool(
        connection.scalar(
            text(f"SELECT to_regclass({_NAMED}) IN ({_MANAGED})"),
            {"schema": schema, "relation": relation},
        )
    )


def other_relation(connection: Connection, view: str, schema: str | None) -> str | None:
    """Return what kind of relation has the name of an aggregate and is none; None where the name is free, or its."""
    found: str | None = connection.scalar(
        text(
            "SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'i' THEN 'index'"
            "  WHEN 'S' THEN 'sequence' ELSE 'table' END FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relname = :view AND n.nspname = coalesce(CAST(:schema AS text), current_schema())"
            " AND NOT EXISTS (SELECT FROM timescaledb_information.continuous_aggregates"
            "  WHERE view_schema = n.nspname AND view_name = c.relname)"
        ),
        {"view": view, "schema": schema},
    )
    return found


def policies_by_creation(connection: Connection, relation: str, schema: str | None) -> set[str]:
    """Return the procedures of its policies that go by when chunks were created, which nothing here declares."""
    return set(
        connection.scalars(
            text(
                "SELECT proc_name FROM timescaledb_information.jobs"
                " WHERE to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = to_regclass(:relation)"
                " AND (config ? 'drop_created_before' OR config ? 'compress_created_before')"
            ),
            {"relation": quoted(relation, schema)},
        )
    )


def reads_managed(connection: Connection, query: str) -> bool:
    """Whether a query reads a hypertable or a continuous aggregate: without one it makes no aggregate."""
    read = (
        "SELECT d.refobjid FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid"
        " WHERE r.ev_class = CAST(:view AS regclass)"
    )
    with probed(connection, query) as view:
        return view is not None and bool(
            connection.scalar(text(f"SELECT EXISTS ({read} INTERSECT {_MANAGED})"), {"view": view})
        )


def canonical(connection: Connection, query: str) -> str | None:
    """Return the query as PostgreSQL writes it, by which two that mean the same are equal; None if it is not valid."""
    with probed(connection, query) as view:
        if view is None:
            return None
        found: str | None = connection.scalar(text("SELECT pg_get_viewdef(CAST(:view AS regclass))"), {"view": view})
        return found


@contextmanager
def probed(connection: Connection, query: str) -> Iterator[str | None]:
    """Yield the name of a view of the query, which is gone afterwards; None where PostgreSQL refuses the query."""
    savepoint = connection.begin_nested()
    try:
        try:
            connection.execute(text(escaped(f"CREATE TEMPORARY VIEW {_PROBE} AS {query}")))
        except DBAPIError as error:
            if not _is_about_the_query(error):
                raise
            yield None
        else:
            yield f"pg_temp.{_PROBE}"
    finally:
        savepoint.rollback()


def _is_about_the_query(error: DBAPIError) -> bool:
    """Whether the query names what is yet to come, or means nothing; else the probing itself went wrong."""
    found = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or ""
    return found[:2] in ("22", "42") and found != "42501"  # data, names and syntax; but not privileges


def escaped(statement: str) -> str:
    """Return the statement as `text()` takes it: no colon begins a parameter."""
    return statement.replace(":", "\\:")


def refresh_window(
    connection: Connection, view: str, schema: str | None, since: datetime | None, until: datetime | None
) -> tuple[datetime | None, datetime | None] | None:
    """Return the window to refresh, so that without a `since` nothing is erased that was made of dropped chunks.

    Where the aggregate has buckets that begin before the oldest chunk under it, the window begins with that chunk.
    None is where there is nothing to compute.
    """
    found = connection.execute(
        text(
            "SELECT a.materialization_hypertable_schema, a.materialization_hypertable_name, d.column_name,"
            " (SELECT min(c.range_start) FROM timescaledb_information.chunks c"
            "  WHERE c.hypertable_schema = a.hypertable_schema AND c.hypertable_name = a.hypertable_name)"
            " FROM timescaledb_information.continuous_aggregates a JOIN timescaledb_information.dimensions d"
            "  ON d.dimension_number = 1 AND d.hypertable_schema = a.materialization_hypertable_schema"
            "  AND d.hypertable_name = a.materialization_hypertable_name"
            " WHERE to_regclass(format('%I.%I', a.view_schema, a.view_name)) = to_regclass(:view)"
        ),
        {"view": quoted(view, schema)},
    ).one_or_none()
    if since is not None or found is None:  # what is no aggregate the server refuses by its name
        return since, until
    stored_schema, stored, time_column, oldest = found
    if oldest is None:
        return None
    kept = f"SELECT FROM {quoted(stored, stored_schema)} WHERE {quoted(time_column)} < {_moment(oldest)}"
    if not connection.scalar(text(escaped(f"SELECT EXISTS ({kept})"))):
        return None, until
    if until is not None and (until if until.tzinfo else until.replace(tzinfo=UTC)) <= oldest:
        return None
    return oldest, until


def refresh_call(view: str, since: datetime | None = None, until: datetime | None = None) -> str:
    """Return the call that computes an aggregate's buckets of [since, until); `view` is a literal of its name."""
    bounds = ("NULL" if moment is None else _moment(moment) for moment in (since, until))
    return f"CALL refresh_continuous_aggregate({view}, {', '.join(bounds)})"


def _moment(moment: datetime) -> str:
    """Return the literal of no type that columns with and without a time zone take, the latter as of UTC."""
    return f"'{(moment.astimezone(UTC) if moment.tzinfo else moment).isoformat()}'"


Key = tuple[str, str]  # schema and name

_IDENTIFIER = re.compile(r'"(?:[^"]|"")*"|[^,\s]+')
_ORDERED_BY = re.compile(r'((?:"(?:[^"]|"")*"|[^,])+)')


@dataclass(frozen=True, slots=True)
class ColumnstoreState:
    """How rows are grouped and sorted."""

    segment_by: tuple[str, ...]
    order_by: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class PolicyState:
    """The ages at which the server's jobs take up rows; None where it has no such job."""

    retention: timedelta | None = None
    columnstore_after: timedelta | None = None
    refresh: Refresh | None = None


@dataclass(frozen=True, slots=True)
class Dimensions:
    """How a hypertable is split."""

    time_column: str
    chunk_interval: timedelta
    space: Space | None


@dataclass(frozen=True, slots=True)
class Managed:
    """A hypertable, or an aggregate, with what was set on it."""

    schema: str
    name: str
    columnstore: ColumnstoreState | None
    policies: PolicyState

    @property
    def key(self) -> Key:
        """Schema and name."""
        return self.schema, self.name


@dataclass(frozen=True, slots=True)
class HypertableFound(Managed):
    """One hypertable."""

    dimensions: Dimensions


@dataclass(frozen=True, slots=True)
class AggregateFound(Managed):
    """One continuous aggregate; `definition` is its query as PostgreSQL writes it, `stored_in` its own hypertable."""

    definition: str
    materialized_only: bool
    stored_in: Key
    source: Key
    chunk_interval: timedelta


@dataclass(frozen=True, slots=True)
class ServerState:
    """All of it. The aggregates are in order of creation: each after the one it is stacked on."""

    schema: str  # the one that names without a schema are in
    tables: frozenset[Key] = frozenset()
    hypertables: Mapping[Key, HypertableFound] = field(default_factory=dict)
    aggregates: Mapping[Key, AggregateFound] = field(default_factory=dict)


def state(connection: Connection) -> ServerState:
    """Read it; on plain PostgreSQL there are only tables."""
    schema = connection.scalar(text("SELECT current_schema()")) or "public"
    tables = connection.execute(
        text(
            "SELECT schemaname, tablename FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND schemaname NOT LIKE '\\_timescaledb\\_%'"
        )
    ).all()
    found = ServerState(schema, frozenset((row[0], row[1]) for row in tables))
    if edition(connection) is Edition.PLAIN:
        return found
    policies = dict(_policies(connection))
    return replace(
        found,
        hypertables={one.key: one for one in _hypertables(connection, policies)},
        aggregates={one.key: one for one in _aggregates(connection, policies)},
    )


def _policies(connection: Connection) -> Iterator[tuple[Key, PolicyState]]:
    rows = connection.execute(
        text(
            "SELECT hypertable_schema, hypertable_name,"
            " max(CAST(config ->> 'drop_after' AS interval)) FILTER (WHERE proc_name = 'policy_retention'),"
            " max(CAST(config ->> 'compress_after' AS interval)) FILTER (WHERE proc_name = 'policy_compression'),"
            " max(CAST(config ->> 'start_offset' AS interval)) FILTER (WHERE refreshes),"
            " max(CAST(config ->> 'end_offset' AS interval)) FILTER (WHERE refreshes),"
            " max(schedule_interval) FILTER (WHERE refreshes)"
            " FROM timescaledb_information.jobs,"
            " LATERAL (SELECT proc_name = 'policy_refresh_continuous_aggregate' AS refreshes) kind"
            " WHERE hypertable_name IS NOT NULL GROUP BY 1, 2"
        )
    )
    for schema, name, retention, after, start, end, every in rows:
        refresh = None if every is None else Refresh(start, end or timedelta(0), every)
        yield (schema, name), PolicyState(retention, after, refresh)


def _hypertables(connection: Connection, policies: Mapping[Key, PolicyState]) -> Iterator[HypertableFound]:
    rows = connection.execute(
        text(
            "SELECT h.hypertable_schema, h.hypertable_name, h.compression_enabled, s.segmentby, s.orderby,"
            " d.column_name, d.time_interval, p.column_name, p.num_partitions"
            " FROM timescaledb_information.hypertables h"
            " JOIN timescaledb_information.dimensions d"
            "  USING (hypertable_schema, hypertable_name)"
            " LEFT JOIN timescaledb_information.dimensions p"
            "  ON p.hypertable_schema = h.hypertable_schema AND p.hypertable_name = h.hypertable_name"
            "  AND p.dimension_number = 2"
            " LEFT JOIN timescaledb_information.hypertable_columnstore_settings s"
            "  ON s.hypertable = to_regclass(format('%I.%I', h.hypertable_schema, h.hypertable_name))"
            " WHERE d.dimension_number = 1 AND d.time_interval IS NOT NULL"
        )
    )
    for schema, name, enabled, segments, order, time_column, chunk_interval, space, partitions in rows:
        yield HypertableFound(
            schema,
            name,
            _columnstore(segments, order) if enabled else None,
            policies.get((schema, name), PolicyState()),
            Dimensions(time_column, chunk_interval, Space(space, partitions) if space else None),
        )


def _aggregates(connection: Connection, policies: Mapping[Key, PolicyState]) -> Iterator[AggregateFound]:
    rows = connection.execute(
        text(
            "SELECT c.view_schema, c.view_name, c.compression_enabled, s.segmentby, s.orderby, c.view_definition,"
            " c.materialized_only, c.materialization_hypertable_schema, c.materialization_hypertable_name,"
            " c.hypertable_schema, c.hypertable_name, d.time_interval"
            " FROM timescaledb_information.continuous_aggregates c"
            " JOIN timescaledb_information.dimensions d ON d.dimension_number = 1"
            "  AND d.hypertable_schema = c.materialization_hypertable_schema"
            "  AND d.hypertable_name = c.materialization_hypertable_name"
            " JOIN pg_class stored ON stored.oid = to_regclass(format('%I.%I', c.materialization_hypertable_schema,"
            "  c.materialization_hypertable_name))"
            " LEFT JOIN timescaledb_information.hypertable_columnstore_settings s ON s.hypertable = stored.oid"
            " ORDER BY stored.oid"
        )
    )
    for schema, name, enabled, segments, order, definition, only, *stored_and_source in rows:
        stored: Key = (stored_and_source[0], stored_and_source[1])
        yield AggregateFound(
            schema,
            name,
            _columnstore(segments, order) if enabled else None,
            policies.get((schema, name)) or policies.get(stored) or PolicyState(),
            definition,
            only,
            stored,
            (stored_and_source[2], stored_and_source[3]),
            stored_and_source[4],
        )


def _columnstore(segments: Any, order: Any) -> ColumnstoreState:
    named = tuple(_unquoted(part) for part in _IDENTIFIER.findall(segments or ""))
    return ColumnstoreState(named, tuple(_order(words) for words in _ORDERED_BY.findall(order or "")))


def _order(words: str) -> Order:
    found = Order.parse(words)
    return replace(found, column=_unquoted(found.column))


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


class ColumnstoreSize(NamedTuple):
    """The chunks of one hypertable, or aggregate, and the bytes of those in the columnstore before and after."""

    chunks: int
    in_columnstore: int
    bytes_before: int
    bytes_after: int

    @property
    def ratio(self) -> float | None:
        """How many times smaller the columnstore made its chunks; None where it has none."""
        return self.bytes_before / self.bytes_after if self.bytes_after else None


class AggregateFreshness(NamedTuple):
    """One continuous aggregate. `computed_until` is None before its first refresh; the rest, without a policy."""

    computed_until: datetime | None
    last_refresh: datetime | None
    next_refresh: datetime | None
    failures: int
    every: timedelta | None


def columnstore_sizes(connection: Connection) -> dict[Key, ColumnstoreSize]:
    """Return the sizes of all that has a columnstore, by schema and name; empty where the edition has none."""
    if not edition(connection).has_policies:
        return {}
    rows = connection.execute(
        text(
            "WITH enabled AS ("
            " SELECT hypertable_schema AS schema, hypertable_name AS name,"
            "  format('%I.%I', hypertable_schema, hypertable_name) AS stored"
            "  FROM timescaledb_information.hypertables WHERE compression_enabled"
            " UNION ALL SELECT view_schema, view_name,"
            "  format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)"
            "  FROM timescaledb_information.continuous_aggregates WHERE compression_enabled)"
            " SELECT schema, name, s.total_chunks, s.number_compressed_chunks,"
            "  coalesce(s.before_compression_total_bytes, 0), coalesce(s.after_compression_total_bytes, 0)"
            " FROM enabled, LATERAL hypertable_columnstore_stats(CAST(enabled.stored AS regclass)) s ORDER BY 1, 2"
        )
    )
    return {(row[0], row[1]): ColumnstoreSize(*row[2:]) for row in rows}


def aggregate_freshness(connection: Connection) -> dict[Key, AggregateFreshness]:
    """Return how fresh each continuous aggregate is, by schema and name; empty where the edition has none."""
    if not edition(connection).has_policies:
        return {}
    rows = connection.execute(
        text(
            "SELECT c.user_view_schema, c.user_view_name,"
            # Before the first refresh the watermark lies before all time that a datetime can tell.
            " CASE WHEN w.until >= TIMESTAMPTZ '0001-01-02' THEN w.until END,"
            " CASE WHEN isfinite(s.last_successful_finish) THEN s.last_successful_finish END,"
            " CASE WHEN j.scheduled AND isfinite(j.next_start) THEN j.next_start END, coalesce(s.total_failures, 0),"
            " j.schedule_interval FROM _timescaledb_catalog.continuous_agg c"
            " CROSS JOIN LATERAL (SELECT _timescaledb_functions.to_timestamp("
            "  _timescaledb_functions.cagg_watermark(c.mat_hypertable_id)) AS until) w"
            " LEFT JOIN timescaledb_information.jobs j ON j.proc_name = 'policy_refresh_continuous_aggregate'"
            "  AND CAST(j.config ->> 'mat_hypertable_id' AS integer) = c.mat_hypertable_id"
            " LEFT JOIN timescaledb_information.job_stats s ON s.job_id = j.job_id ORDER BY 1, 2"
        )
    )
    return {(row[0], row[1]): AggregateFreshness(*row[2:]) for row in rows}


def refresh(
    connection: Connection,
    view: str,
    schema: str | None = None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> None:
    """Compute an aggregate's buckets within [since, until) now, by a connection that is in no transaction.

    `until` None is without a bound. `since` None begins with the oldest rows, and erases nothing of what was made of
    rows that are dropped since: buckets that began before the oldest chunk under the aggregate stay as they are. A
    `since` that reaches further back erases them. What is computed already and has not changed costs nothing. A policy
    alone computes no bucket that lies before its start_offset: rows that were there before the aggregate need this
    once.
    """
    committing = connection.execution_options(isolation_level="AUTOCOMMIT")
    try:
        window = refresh_window(committing, view, schema, since, until)
        if window is not None:
            committing.execute(text(escaped(refresh_call(regclass(view, schema), *window))))
    finally:
        connection.rollback()
        connection.execution_options(isolation_level=connection.default_isolation_level)


# As queries find it, along the search path: `table` is the mere name of a table.
_MEANT = "CAST(quote_ident(CAST(:table AS text)) AS regclass)"


class RetentionPolicy(NamedTuple):
    """A job that drops the chunks whose rows are all older than `drop_after`.

    `next_run` is None where the job is paused, or has not been planned yet; `last_run` where it has not run yet, and
    `failed` says that then it failed.
    """

    job_id: int
    drop_after: timedelta
    next_run: datetime | None
    last_run: datetime | None
    failed: bool


def retention_policies(connection: Connection) -> dict[str, RetentionPolicy]:
    """Return the policies of the tables that are meant by their mere name, by it; none where no jobs run."""
    if not edition(connection).has_policies:
        return {}
    rows = connection.execute(
        text(
            "SELECT j.hypertable_name, j.job_id, CAST(j.config ->> 'drop_after' AS interval),"
            # A job that is to run as soon as it can has its next start before all time.
            " CASE WHEN j.scheduled AND isfinite(j.next_start) THEN j.next_start END,"
            " CASE WHEN isfinite(s.last_run_started_at) THEN s.last_run_started_at END,"
            " coalesce(s.last_run_status = 'Failed', false)"
            " FROM timescaledb_information.jobs j LEFT JOIN timescaledb_information.job_stats s USING (job_id)"
            " WHERE j.proc_name = 'policy_retention' AND j.config ? 'drop_after'"
            " AND to_regclass(quote_ident(j.hypertable_name))"
            "  = to_regclass(format('%I.%I', j.hypertable_schema, j.hypertable_name))"
        )
    )
    return {row[0]: RetentionPolicy(*row[1:]) for row in rows}


def set_retention_policy(connection: Connection, table: str, drop_after: timedelta) -> None:
    """Let the server drop the table's chunks at that age, in the connection's transaction.

    A policy that is there keeps its schedule; a new one runs first as soon as the transaction has ended.
    """
    if (policy := retention_policies(connection).get(table)) is None:
        statement = text(f"SELECT add_retention_policy({_MEANT}, drop_after => CAST(:age AS interval))")
        connection.execute(statement, {"table": table, "age": drop_after})
        return
    statement = text(
        "SELECT alter_job(job_id, config => jsonb_set(config, '{drop_after}',"
        " to_jsonb(CAST(CAST(:age AS interval) AS text)))) FROM timescaledb_information.jobs WHERE job_id = :job"
    )
    connection.execute(statement, {"age": drop_after, "job": policy.job_id})


def remove_retention_policy(connection: Connection, table: str) -> None:
    """Let the server keep all of the table, in the connection's transaction; nothing happens without a policy."""
    connection.execute(text(f"SELECT remove_retention_policy({_MEANT}, if_exists => true)"), {"table": table})


def refresh_windows(connection: Connection, table: str) -> dict[str, timedelta | None]:
    """Return how far back each continuous aggregate over the table is refreshed, by its name; None is all of it.

    A refresh over rows that were dropped takes what was made of them away, too.
    """
    if not edition(connection).has_policies:
        return {}
    rows = connection.execute(
        text(
            "SELECT a.view_name, CAST(j.config ->> 'start_offset' AS interval)"
            " FROM timescaledb_information.continuous_aggregates a JOIN timescaledb_information.jobs j"
            " ON j.proc_name = 'policy_refresh_continuous_aggregate'"
            " AND j.hypertable_schema = a.view_schema AND j.hypertable_name = a.view_name"
            " WHERE to_regclass(format('%I.%I', a.hypertable_schema, a.hypertable_name))"
            "  = to_regclass(quote_ident(:table)) ORDER BY 1"
        ),
        {"table": table},
    )
    return {row[0]: row[1] for row in rows}


def materialized(connection: Connection, declared: Iterable[ContinuousAggregate]) -> dict[str, TableClause]:
    """Return the table behind each aggregate that the server has, by the aggregate's name.

    It holds the buckets that were refreshed and no others, where the view adds what came after the newest of them.
    """
    wanted = {aggregate.name: aggregate for aggregate in declared}
    if edition(connection) is Edition.PLAIN:
        return {}
    rows = connection.execute(
        text(
            "SELECT view_name, materialization_hypertable_schema, materialization_hypertable_name"
            " FROM timescaledb_information.continuous_aggregates WHERE view_name = ANY(:names)"
            # As queries find them, along the search path.
            " AND to_regclass(quote_ident(view_name)) = to_regclass(format('%I.%I', view_schema, view_name))"
        ),
        {"names": list(wanted)},
    )
    return {
        name: table(stored, *(column(part.name, part.type) for part in wanted[name].table.c), schema=schema)
        for name, schema, stored in rows
    }
