"""Does the steps of a `sync`, each by itself: what is interrupted keeps those that are done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import NamedTuple

from sqlalchemy import Connection, MetaData, text
from sqlalchemy.exc import DBAPIError

from alembic_timescaledb import catalog
from alembic_timescaledb.aggregate import ContinuousAggregate
from alembic_timescaledb.comparison import Retentions, apply, compare
from alembic_timescaledb.naming import quoted
from alembic_timescaledb.progress import refresh
from alembic_timescaledb.sync import Step

# What the server says where others have a table in use.
IN_USE = ("55P03", "40P01")

# Less than the server's deadlock_timeout: who waits for us, while we wait for him, is never the one to be broken off.
# Between the attempts those that came after us have their turn.
_LOCK_TIMEOUT = timedelta(milliseconds=500)
_PAUSE = timedelta(milliseconds=200)


class Holder(NamedTuple):
    """A session that has a table in use, in a transaction since that time."""

    application: str
    pid: int
    since: datetime


def perform(
    connection: Connection,
    step: Step,
    metadata: MetaData | Sequence[MetaData],
    *,
    retentions: Callable[[Connection], Retentions],
    patience: timedelta,
) -> None:
    """Do what of the step is still to be done, and commit it; with an error nothing of it is done.

    The connection is in no transaction. `retentions` is asked within the step's own. What is in use is waited for no
    longer than `patience`, then the server says lock_not_available (55P03) or deadlock_detected (40P01).
    """
    if step.computes is not None:
        compute(connection, step.computes)
        return
    deadline = monotonic() + patience.total_seconds()
    while True:
        try:
            _attempt(connection, step, metadata, retentions, min(patience, _LOCK_TIMEOUT))
        except DBAPIError as error:
            if _sqlstate(error) not in IN_USE or monotonic() > deadline:
                raise
            connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": _PAUSE.total_seconds()})
            connection.rollback()
        else:
            return


def _attempt(
    connection: Connection,
    step: Step,
    metadata: MetaData | Sequence[MetaData],
    retentions: Callable[[Connection], Retentions],
    lock_timeout: timedelta,
) -> None:
    try:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(f"SET LOCAL lock_timeout = {max(lock_timeout // timedelta(milliseconds=1), 1)}"))
        if step.ops:
            there = compare(connection, metadata, retentions=retentions(connection))
            apply(connection, [op for op in step.ops if op in there])
        else:
            catalog.enable(connection)
        connection.commit()
    finally:
        connection.rollback()


def _sqlstate(error: DBAPIError) -> str | None:
    found: str | None = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return found


def compute(connection: Connection, aggregate: ContinuousAggregate) -> None:
    """Compute the aggregate of the rows that are there, but for what its policy leaves alone at the end.

    Where chunks were dropped it keeps what it has. The connection is in no transaction.
    """
    now = connection.scalars(text("SELECT now()")).one()
    until = now - (aggregate.refresh.end_offset if aggregate.refresh else timedelta(0))
    window = catalog.refresh_window(connection, aggregate.name, aggregate.schema, None, until)
    connection.rollback()
    # A shorter window may hold no whole bucket, which the server refuses.
    if window is not None and (window[0] is None or until - window[0] >= 2 * aggregate.bucket):
        refresh(connection, aggregate.name, aggregate.schema, until=until)


def unhurry(connection: Connection) -> None:
    """Let the session's statements take as long as they need: a refresh is in no transaction that could."""
    connection.execute(text("SET statement_timeout = 0"))
    connection.commit()


def holders(connection: Connection, step: Step) -> list[Holder]:
    """Return who else has the step's tables in use now, those for longest first."""
    rows = connection.execute(
        text(
            "SELECT coalesce(nullif(a.application_name, ''), 'a session'), a.pid, a.xact_start"
            " FROM pg_stat_activity a WHERE a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL"
            "  AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.granted AND l.relation = ANY("
            "   SELECT to_regclass(name) FROM unnest(CAST(:tables AS text[])) name))"
            " ORDER BY a.xact_start"
        ),
        {
            "tables": [
                table for op in step.ops for table in (quoted(op.relation, op.schema), *_parents(connection, step))
            ]
        },
    ).all()
    connection.rollback()
    return [Holder(*row) for row in rows]


def _parents(connection: Connection, step: Step) -> Sequence[str]:
    tables = [quoted(op.relation, op.schema) for op in step.ops]
    return connection.scalars(
        text(
            "SELECT DISTINCT format('%I.%I', n.nspname, c.relname) FROM pg_constraint k"
            " JOIN pg_class c ON c.oid = k.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE k.contype = 'f' AND k.confrelid <> k.conrelid"
            " AND k.conrelid = ANY(SELECT to_regclass(name) FROM unnest(CAST(:tables AS text[])) name) ORDER BY 1"
        ),
        {"tables": tables},
    ).all()
