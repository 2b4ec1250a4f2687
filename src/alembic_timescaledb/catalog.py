"""What a server is and has been told: its edition, hypertables and continuous aggregates with their settings."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, final

from sqlalchemy import Connection, Row, text

from alembic_timescaledb.aggregate import Refresh
from alembic_timescaledb.declare import Order, RetentionJob

log = logging.getLogger(__name__)

Key = tuple[str, str]  # schema and name

_EXTENSION = (
    "SELECT extversion, current_setting('timescaledb.license', true) FROM pg_extension WHERE extname = 'timescaledb'"
)
_AVAILABLE = (
    "SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb' AND installed_version IS NULL"
    " AND current_setting('shared_preload_libraries') LIKE '%timescaledb%'"
)
_TABLES = (
    "SELECT schemaname, tablename FROM pg_tables"
    " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND schemaname NOT LIKE '\\_timescaledb\\_%'"
)
_VISIBLE = "to_regclass(quote_ident(name)) = to_regclass(format('%I.%I', schema, name)) AS visible"
# An aggregate's rows are stored in a hypertable of its own.
_RELATIONS = (
    "SELECT r.*, {visible}, CASE WHEN compression_enabled THEN coalesce(s.segmentby, '') END AS segments,"
    " s.orderby AS orders, d.column_name AS time_column, coalesce(d.time_interval, INTERVAL '0') AS chunk_interval"
    " FROM ({relations}) r JOIN pg_class p ON p.oid = to_regclass(format('%I.%I', stored_schema, stored))"
    " JOIN timescaledb_information.dimensions d ON d.dimension_number = 1"
    "  AND d.hypertable_schema = stored_schema AND d.hypertable_name = stored"
    " LEFT JOIN timescaledb_information.hypertable_columnstore_settings s ON s.hypertable = p.oid ORDER BY {order}"
)
_OF_HYPERTABLES = (
    "SELECT hypertable_schema AS schema, hypertable_name AS name, hypertable_schema AS stored_schema,"
    " hypertable_name AS stored, compression_enabled, num_chunks AS chunks FROM timescaledb_information.hypertables"
)
_OF_AGGREGATES = (
    "SELECT view_schema AS schema, view_name AS name, materialization_hypertable_schema AS stored_schema,"
    " materialization_hypertable_name AS stored, compression_enabled, view_definition AS definition, materialized_only,"
    " hypertable_schema AS source_schema, hypertable_name AS source FROM timescaledb_information.continuous_aggregates"
)
_HYPERTABLES = _RELATIONS.format(relations=_OF_HYPERTABLES, order="name, schema", visible=_VISIBLE)
_AGGREGATES = _RELATIONS.format(relations=_OF_AGGREGATES, order="p.oid", visible=_VISIBLE)
# The job of an aggregate has the name of its view, or of the hypertable behind the view. A RetentionJob names
# its table in its configuration. Unknown times are infinite.
_JOBS = (
    "SELECT job_id, proc_name, is_own, schema, name, schedule_interval AS every, failures, failed,"  # noqa: S608 # no names but these
    f" {_VISIBLE},"
    " CAST(config ->> 'drop_after' AS interval) AS drop_after,"
    " CAST(config ->> 'compress_after' AS interval) AS compress_after,"
    " CAST(config ->> 'start_offset' AS interval) AS start_offset,"
    " CAST(config ->> 'end_offset' AS interval) AS end_offset,"
    " config ? 'drop_created_before' OR config ? 'compress_created_before' AS by_creation,"
    " CASE WHEN scheduled AND isfinite(next_start) THEN next_start END AS next_run,"
    " CASE WHEN isfinite(last_run) THEN last_run END AS last_run,"
    " CASE WHEN isfinite(last_success) THEN last_success END AS last_success"
    " FROM (SELECT j.*, coalesce(a.view_schema, j.hypertable_schema, config ->> 'schema') AS schema,"
    "  coalesce(a.view_name, j.hypertable_name, config ->> 'table') AS name,"
    "  j.hypertable_name IS NULL AS is_own, s.last_run_started_at AS last_run,"
    "  s.last_successful_finish AS last_success, coalesce(s.last_run_status = 'Failed', false) AS failed,"
    "  coalesce(s.total_failures, 0) AS failures"
    "  FROM timescaledb_information.jobs j LEFT JOIN timescaledb_information.job_stats s ON s.job_id = j.job_id"
    "  LEFT JOIN timescaledb_information.continuous_aggregates a"
    "   ON a.materialization_hypertable_schema = j.hypertable_schema"
    "   AND a.materialization_hypertable_name = j.hypertable_name"
    "  WHERE j.hypertable_name IS NOT NULL OR (config ?& ARRAY['schema', 'table', 'drop_after'] AND EXISTS (SELECT"
    "   FROM timescaledb_information.hypertables h"
    "   WHERE h.hypertable_schema = config ->> 'schema' AND h.hypertable_name = config ->> 'table'))) found"
    " ORDER BY is_own, job_id"
)
_NAMES = re.compile(r'"(?:[^"]|"")*"|[^,\s]+')
_ORDERS = re.compile(r'((?:"(?:[^"]|"")*"|[^,])+)')


class Feature(StrEnum):
    """What editions differ in."""

    HYPERTABLES = "hypertables"
    RETENTION = "retention policies"
    COLUMNSTORE = "columnstore"
    AGGREGATES = "continuous aggregates"


class Edition(StrEnum):
    """PostgreSQL without TimescaleDB, or one of TimescaleDB's two editions."""

    PLAIN = "plain"
    APACHE = "apache"
    COMMUNITY = "community"

    @property
    def has_hypertables(self) -> bool:
        """Whether tables can be split into chunks."""
        return self is not Edition.PLAIN

    @property
    def has_policies(self) -> bool:
        """Whether the server runs background jobs, such as retention."""
        return self is Edition.COMMUNITY

    def has(self, feature: Feature) -> bool:
        """Whether the edition has the feature."""
        return self.has_hypertables if feature is Feature.HYPERTABLES else self.has_policies


def edition(connection: Connection) -> Edition:
    """Return the edition of the server; `PLAIN` if this database lacks the extension."""
    if (row := connection.execute(text(_EXTENSION)).one_or_none()) is None:
        return Edition.PLAIN
    return Edition.COMMUNITY if row[1] == "timescale" else Edition.APACHE


def version(connection: Connection) -> str | None:
    """Return the version of the TimescaleDB extension in this database; None if it lacks the extension."""
    row = connection.execute(text(_EXTENSION)).one_or_none()
    return None if row is None else str(row[0])


def available(connection: Connection) -> bool:
    """Whether this database lacks the extension and could create it, because the server has loaded it."""
    return bool(connection.scalar(text(_AVAILABLE)))


def enable(connection: Connection) -> Edition:
    """Create the extension if the server has loaded it, log the edition and return it."""
    if available(connection):
        log.info("creating extension timescaledb")
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS timescaledb"))
    found = edition(connection)
    log.info("the server is %s", found if found is Edition.PLAIN else f"TimescaleDB, {found} edition")
    return found


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
    retention_policy: timedelta | None = None
    retention_job: RetentionJob | None = None
    drop_after: timedelta | None = None  # in the configuration of `retention_job`
    refresh: Refresh | None = None

    @property
    def retention(self) -> timedelta | None:
        """The age at which rows are dropped."""
        return self.drop_after if self.retention_job else self.retention_policy


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
    found = rows(connection, _HYPERTABLES, Feature.HYPERTABLES)
    return [HypertableState(**_managed(row, policies), chunks=row.chunks) for row in found]


def aggregates(connection: Connection, policies: Mapping[Key, Settings] | None = None) -> list[AggregateState]:
    """Return the continuous aggregates, with these policies; each comes after the one that it is stacked on."""
    return [
        AggregateState(
            **_managed(row, policies or {}),
            definition=row.definition,
            materialized_only=row.materialized_only,
            stored_in=(row.stored_schema, row.stored),
            source=(row.source_schema, row.source),
        )
        for row in rows(connection, _AGGREGATES, Feature.HYPERTABLES)
    ]


def rows(connection: Connection, query: str, needs: Feature = Feature.RETENTION) -> Sequence[Any]:
    """Return the rows of TimescaleDB's catalog; none if the edition lacks the feature."""
    return connection.execute(text(query)).all() if edition(connection).has(needs) else ()


def _managed(row: Row[Any], policies: Mapping[Key, Settings]) -> dict[str, Any]:
    settings = replace(policies.get((row.schema, row.name), Settings()), columnstore=_columnstore(row))
    same = {name: getattr(row, name) for name in ("schema", "name", "visible", "time_column", "chunk_interval")}
    return {**same, "settings": settings}


def _columnstore(row: Row[Any]) -> ColumnstoreState | None:
    if row.segments is None:
        return None
    orders = map(Order.parse, _ORDERS.findall(row.orders or ""))
    columns = tuple(replace(one, column=_unquoted(one.column)) for one in orders)
    return ColumnstoreState(tuple(map(_unquoted, _NAMES.findall(row.segments))), columns)


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _policies(connection: Connection) -> dict[Key, Settings]:
    found: dict[Key, dict[str, Any]] = {}
    for job in jobs(connection):
        policies = found.setdefault((job.schema, job.name), {})
        if job.proc_name == "policy_retention":
            policies["retention_policy"] = job.drop_after
        elif job.is_own:
            policies.update(retention_job=RetentionJob(job.proc_name, job.every), drop_after=job.drop_after)
        elif job.proc_name == "policy_compression":
            policies["columnstore_after"] = job.compress_after
        elif job.proc_name == "policy_refresh_continuous_aggregate":
            policies["refresh"] = Refresh(job.start_offset, job.end_offset or timedelta(0), job.every)
    return {key: Settings(**policies) for key, policies in found.items()}


def jobs(connection: Connection, procedure: str | None = None) -> Sequence[Row[Any]]:
    """Return the server's jobs on hypertables and aggregates; only those of the procedure if it is given."""
    return [row for row in rows(connection, _JOBS) if procedure in (None, row.proc_name)]


def policies_by_creation(connection: Connection, relation: str, schema: str | None) -> set[str]:
    """Return the procedures of policies that go by the creation of chunks; nothing here declares such policies."""
    return {
        job.proc_name
        for job in jobs(connection)
        if job.by_creation and job.name == relation and (job.visible if schema is None else job.schema == schema)
    }
