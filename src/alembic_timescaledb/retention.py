"""The retention policies of a running server: what its jobs drop and when, and how a program changes that."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text

from alembic_timescaledb import catalog

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
    if not catalog.edition(connection).has_policies:
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
    if not catalog.edition(connection).has_policies:
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
