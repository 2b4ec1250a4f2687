"""What a server has been told: its hypertables and continuous aggregates, with their columnstores and policies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, final

from sqlalchemy import Connection, Row, text

from alembic_timescaledb.aggregate import Refresh
from alembic_timescaledb.declare import Order
from alembic_timescaledb.server.edition import Edition, edition

Key = tuple[str, str]  # schema and name

_TABLES = (
    "SELECT schemaname, tablename FROM pg_tables"
    " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND schemaname NOT LIKE '\\_timescaledb\\_%'"
)
_VISIBLE = "to_regclass(quote_ident({name})) = to_regclass(format('%I.%I', {schema}, {name}))"
_HYPERTABLES = (
    "SELECT h.hypertable_schema AS schema, h.hypertable_name AS name,"  # noqa: S608 # no names but these
    f" {_VISIBLE.format(schema='h.hypertable_schema', name='h.hypertable_name')} AS visible,"
    " CASE WHEN h.compression_enabled THEN coalesce(s.segmentby, '') END AS segments, s.orderby AS orders,"
    " d.column_name AS time_column, coalesce(d.time_interval, INTERVAL '0') AS chunk_interval, h.num_chunks AS chunks"
    " FROM timescaledb_information.hypertables h"
    " JOIN timescaledb_information.dimensions d USING (hypertable_schema, hypertable_name)"
    " LEFT JOIN timescaledb_information.hypertable_columnstore_settings s"
    "  ON s.hypertable = to_regclass(format('%I.%I', h.hypertable_schema, h.hypertable_name))"
    " WHERE d.dimension_number = 1 ORDER BY 2, 1"
)
_AGGREGATES = (
    "SELECT c.view_schema AS schema, c.view_name AS name,"  # noqa: S608 # no names but these
    f" {_VISIBLE.format(schema='c.view_schema', name='c.view_name')} AS visible,"
    " CASE WHEN c.compression_enabled THEN coalesce(s.segmentby, '') END AS segments, s.orderby AS orders,"
    " d.column_name AS time_column, coalesce(d.time_interval, INTERVAL '0') AS chunk_interval,"
    " c.view_definition AS definition, c.materialized_only,"
    " d.hypertable_schema AS stored_schema, d.hypertable_name AS stored, c.hypertable_schema, c.hypertable_name"
    " FROM timescaledb_information.continuous_aggregates c"
    " JOIN timescaledb_information.dimensions d ON d.dimension_number = 1"
    "  AND d.hypertable_schema = c.materialization_hypertable_schema"
    "  AND d.hypertable_name = c.materialization_hypertable_name"
    " JOIN pg_class p ON p.oid = to_regclass(format('%I.%I', d.hypertable_schema, d.hypertable_name))"
    " LEFT JOIN timescaledb_information.hypertable_columnstore_settings s ON s.hypertable = p.oid"
    " ORDER BY p.oid"
)
# The job of an aggregate has the name of its view, or of the hypertable behind the view. Unknown times are infinite.
_JOBS = (
    "SELECT job_id, proc_name, schema, name, schedule_interval AS every, failures, failed,"  # noqa: S608 # no names but these
    f" {_VISIBLE.format(schema='schema', name='name')} AS visible,"
    " CAST(config ->> 'drop_after' AS interval) AS drop_after,"
    " CAST(config ->> 'compress_after' AS interval) AS compress_after,"
    " CAST(config ->> 'start_offset' AS interval) AS start_offset,"
    " CAST(config ->> 'end_offset' AS interval) AS end_offset,"
    " config ? 'drop_created_before' OR config ? 'compress_created_before' AS by_creation,"
    " CASE WHEN scheduled AND isfinite(next_start) THEN next_start END AS next_run,"
    " CASE WHEN isfinite(last_run) THEN last_run END AS last_run,"
    " CASE WHEN isfinite(last_success) THEN last_success END AS last_success"
    " FROM (SELECT j.*, coalesce(a.view_schema, j.hypertable_schema) AS schema,"
    "  coalesce(a.view_name, j.hypertable_name) AS name, s.last_run_started_at AS last_run,"
    "  s.last_successful_finish AS last_success, coalesce(s.last_run_status = 'Failed', false) AS failed,"
    "  coalesce(s.total_failures, 0) AS failures"
    "  FROM timescaledb_information.jobs j LEFT JOIN timescaledb_information.job_stats s ON s.job_id = j.job_id"
    "  LEFT JOIN timescaledb_information.continuous_aggregates a"
    "   ON a.materialization_hypertable_schema = j.hypertable_schema"
    "   AND a.materialization_hypertable_name = j.hypertable_name"
    "  WHERE j.hypertable_name IS NOT NULL) found"
)
_NAMES = re.compile(r'"(?:[^"]|"")*"|[^,\s]+')
_ORDERS = re.compile(r'((?:"(?:[^"]|"")*"|[^,])+)')


@dataclass(frozen=True, slots=True)
class ColumnstoreState:
    """How the columnstore groups and sorts rows."""

    segment_by: tuple[str, ...]
    order_by: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """The columnstore of a relation and the ages at which jobs take up its rows; None without such a job."""

    columnstore: ColumnstoreState | None = None
    columnstore_after: timedelta | None = None
    retention: timedelta | None = None
    refresh: Refresh | None = None


@dataclass(frozen=True, slots=True)
class Managed:
    """What hypertables and aggregates have in common; `visible` ones are found without naming their schema."""

    schema: str
    name: str
    visible: bool = field(compare=False)
    settings: Settings
    time_column: str
    chunk_interval: timedelta  # zero if it is split by a number instead of a time

    @property
    def key(self) -> Key:
        """Schema and name."""
        return self.schema, self.name


@final
@dataclass(frozen=True, slots=True)
class HypertableState(Managed):
    """One hypertable of the server."""

    chunks: int = field(compare=False)

    @property
    def retention(self) -> timedelta | None:
        """The age at which a policy drops chunks; None without a policy."""
        return self.settings.retention


@dataclass(frozen=True, slots=True)
class AggregateState(Managed):
    """One continuous aggregate; `definition` is its query in PostgreSQL's spelling, `stored_in` its own hypertable."""

    definition: str
    materialized_only: bool
    stored_in: Key
    source: Key


@dataclass(frozen=True, slots=True)
class ServerState:
    """Tables, hypertables and aggregates; each aggregate comes after the one that it is stacked on."""

    schema: str  # the default one
    tables: frozenset[Key]
    hypertables: Mapping[Key, HypertableState]
    aggregates: Mapping[Key, AggregateState]


def state(connection: Connection) -> ServerState:
    """Return the tables, hypertables by a time and aggregates of all schemas but internal ones."""
    schema = connection.scalar(text("SELECT current_schema()")) or "public"
    tables = frozenset((row[0], row[1]) for row in connection.execute(text(_TABLES)))
    policies = _policies(connection)
    hypertables = [one for one in _hypertables(connection, policies) if one.chunk_interval]
    views = aggregates(connection, policies)
    return ServerState(schema, tables, {one.key: one for one in hypertables}, {one.key: one for one in views})


def hypertables(connection: Connection) -> dict[str, HypertableState]:
    """Return the hypertables that queries find without naming a schema, by name; empty on plain PostgreSQL."""
    return {one.name: one for one in _hypertables(connection, _policies(connection)) if one.visible}


def _hypertables(connection: Connection, policies: Mapping[Key, Settings]) -> list[HypertableState]:
    return [HypertableState(**_managed(row, policies), chunks=row.chunks) for row in _rows(connection, _HYPERTABLES)]


def aggregates(connection: Connection, policies: Mapping[Key, Settings] | None = None) -> list[AggregateState]:
    """Return the continuous aggregates, with these policies; each comes after the one that it is stacked on."""
    return [
        AggregateState(
            **_managed(row, policies or {}),
            definition=row.definition,
            materialized_only=row.materialized_only,
            stored_in=(row.stored_schema, row.stored),
            source=(row.hypertable_schema, row.hypertable_name),
        )
        for row in _rows(connection, _AGGREGATES)
    ]


def _rows(connection: Connection, query: str) -> Sequence[Row[Any]]:
    return () if edition(connection) is Edition.PLAIN else connection.execute(text(query)).all()


def _managed(row: Row[Any], policies: Mapping[Key, Settings]) -> dict[str, Any]:
    return {
        "schema": row.schema,
        "name": row.name,
        "visible": row.visible,
        "settings": replace(policies.get((row.schema, row.name), Settings()), columnstore=_columnstore(row)),
        "time_column": row.time_column,
        "chunk_interval": row.chunk_interval,
    }


def _columnstore(row: Row[Any]) -> ColumnstoreState | None:
    if row.segments is None:
        return None
    orders = map(Order.parse, _ORDERS.findall(row.orders or ""))
    return ColumnstoreState(
        tuple(map(_unquoted, _NAMES.findall(row.segments))),
        tuple(replace(one, column=_unquoted(one.column)) for one in orders),
    )


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _policies(connection: Connection) -> dict[Key, Settings]:
    found: dict[Key, Settings] = {}
    for job in jobs(connection):
        key = job.schema, job.name
        before = found.get(key, Settings())
        if job.proc_name == "policy_retention":
            found[key] = replace(before, retention=job.drop_after)
        elif job.proc_name == "policy_compression":
            found[key] = replace(before, columnstore_after=job.compress_after)
        elif job.proc_name == "policy_refresh_continuous_aggregate":
            window = Refresh(job.start_offset, job.end_offset or timedelta(0), job.every)
            found[key] = replace(before, refresh=window)
    return found


def jobs(connection: Connection, procedure: str | None = None) -> Sequence[Row[Any]]:
    """Return the server's jobs on hypertables and aggregates; only those of the procedure if it is given."""
    rows = connection.execute(text(_JOBS)) if edition(connection).has_policies else ()
    return [row for row in rows if procedure in (None, row.proc_name)]


def policies_by_creation(connection: Connection, relation: str, schema: str | None) -> set[str]:
    """Return the procedures of policies that go by the creation of chunks; nothing here declares such policies."""
    return {
        job.proc_name
        for job in jobs(connection)
        if job.by_creation and job.name == relation and (job.visible if schema is None else job.schema == schema)
    }
