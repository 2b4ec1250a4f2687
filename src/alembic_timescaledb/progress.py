"""How far a server's own work has come: what the columnstore saves, how fresh the aggregates are; and a refresh now."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text

from alembic_timescaledb.catalog import escaped, refresh_call, refresh_window
from alembic_timescaledb.edition import edition
from alembic_timescaledb.naming import regclass
from alembic_timescaledb.state import Key


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


class AggregateProgress(NamedTuple):
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


def aggregate_progress(connection: Connection) -> dict[Key, AggregateProgress]:
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
    return {(row[0], row[1]): AggregateProgress(*row[2:]) for row in rows}


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
