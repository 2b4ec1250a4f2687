"""What a server has: its edition, its hypertables, their chunks and policies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from alembic_timescaledb.edition import Edition, Feature, available, edition, enable, version
from alembic_timescaledb.naming import quoted

__all__ = [
    "Chunk",
    "Edition",
    "Feature",
    "HypertableState",
    "Size",
    "available",
    "canonical",
    "chunks",
    "drop_chunks",
    "edition",
    "enable",
    "hypertable_size",
    "hypertables",
    "is_managed",
    "other_relation",
    "pause_policies",
    "policies_by_creation",
    "reads_managed",
    "refresh_call",
    "refresh_window",
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
