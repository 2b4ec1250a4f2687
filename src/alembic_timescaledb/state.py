"""What a server has been told: hypertables with their dimensions, columnstores, policies and continuous aggregates.

By schema and name, as autogenerate compares them with what is declared. Internal schemas do not appear, nor do
hypertables by a number instead of a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, text

from alembic_timescaledb.aggregate import Refresh
from alembic_timescaledb.edition import Edition, edition
from alembic_timescaledb.hypertable import Order, Space

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
    for schema, name, enabled, segments, order, time_column, chunk_interval, column, partitions in rows:
        yield HypertableFound(
            schema,
            name,
            _columnstore(segments, order) if enabled else None,
            policies.get((schema, name), PolicyState()),
            Dimensions(time_column, chunk_interval, Space(column, partitions) if column else None),
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
