"""What a server has: its edition, its hypertables, their chunks and policies."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection, text

log = logging.getLogger(__name__)


class Edition(StrEnum):
    """What kind of server this is."""

    PLAIN = "plain"
    APACHE = "apache"
    COMMUNITY = "community"

    @property
    def has_hypertables(self) -> bool:
        """Whether tables can be split into chunks."""
        return self is not Edition.PLAIN

    @property
    def has_policies(self) -> bool:
        """Whether the server runs jobs of its own, such as retention."""
        return self is Edition.COMMUNITY


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


def edition(connection: Connection) -> Edition:
    """Return the edition of the server, as far as this database is concerned."""
    row = connection.execute(
        text(
            "SELECT extversion, current_setting('timescaledb.license', true)"
            " FROM pg_extension WHERE extname = 'timescaledb'"
        )
    ).one_or_none()
    if row is None:
        return Edition.PLAIN
    return Edition.COMMUNITY if row[1] == "timescale" else Edition.APACHE


def version(connection: Connection) -> str | None:
    """Return the version of the TimescaleDB extension in this database, None where it has none."""
    found: str | None = connection.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"))
    return found


def enable(connection: Connection) -> Edition:
    """Create the extension where the server has it loaded, and return the edition; log both."""
    loaded = connection.scalar(
        text(
            "SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb' AND installed_version IS NULL"
            " AND current_setting('shared_preload_libraries') LIKE '%timescaledb%'"
        )
    )
    if loaded:
        log.info("creating extension timescaledb")
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS timescaledb"))
    found = edition(connection)
    log.info("the server is %s", found if found is Edition.PLAIN else f"TimescaleDB, {found} edition")
    return found


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
