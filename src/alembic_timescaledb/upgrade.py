"""Brings a deployed database up to a server that can do more than the one it was deployed on.

Rows move first. Then aggregates are made and computed, and only then come the jobs: one that drops rows, or moves them,
must find the aggregates of these rows complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from time import monotonic
from typing import NamedTuple

from sqlalchemy import Connection, MetaData, inspect, text
from sqlalchemy.exc import DBAPIError

from alembic_timescaledb import server
from alembic_timescaledb.aggregate import ContinuousAggregate, aggregates
from alembic_timescaledb.compare import Retentions, apply, compare
from alembic_timescaledb.names import quoted, spoken
from alembic_timescaledb.operations import (
    AddColumnstorePolicyOp,
    AddContinuousAggregatePolicyOp,
    AddRetentionPolicyOp,
    CreateContinuousAggregateOp,
    CreateHypertableOp,
    DisableColumnstoreOp,
    DropContinuousAggregateOp,
    EnableColumnstoreOp,
    GoneWithRelationOp,
    RemoveColumnstorePolicyOp,
    RemoveContinuousAggregatePolicyOp,
    RemoveRetentionPolicyOp,
    RevertHypertableOp,
    SetChunkIntervalOp,
    SetMaterializedOnlyOp,
    TimescaleOp,
)

EXTENSION = "create the extension timescaledb"

_TAKES_AWAY = (DisableColumnstoreOp, DropContinuousAggregateOp, RevertHypertableOp)
_HYPERTABLES = (CreateHypertableOp, SetChunkIntervalOp)
_AGGREGATES = (CreateContinuousAggregateOp, SetMaterializedOnlyOp)
_REFRESHES = (RemoveContinuousAggregatePolicyOp, AddContinuousAggregatePolicyOp)
_COLUMNSTORE = (RemoveColumnstorePolicyOp, EnableColumnstoreOp, AddColumnstorePolicyOp)
_RETENTION = (RemoveRetentionPolicyOp, AddRetentionPolicyOp)


@dataclass(frozen=True, slots=True)
class Step:
    """What is done at once: `ops` in one transaction; or, outside of any, the computing of an aggregate.

    One with neither creates the extension. `place` is the table or the aggregate that it is about.
    """

    place: str
    ops: tuple[TimescaleOp, ...] = ()
    computes: ContinuousAggregate | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """Say it, as a change to come."""
        if self.computes is not None:
            return f"compute {self.place} of the rows that are there"
        return "; ".join(map(str, self.ops)) or EXTENSION

    @property
    def moves_rows(self) -> bool:
        """Whether all rows of the table move, under a lock that keeps everybody else out."""
        return any(isinstance(op, CreateHypertableOp) for op in self.ops)

    @property
    def drops_after(self) -> timedelta | None:
        """The age from which on the server will drop rows, as soon as the step is done; None where it drops none."""
        return next((op.drop_after for op in self.ops if isinstance(op, AddRetentionPolicyOp)), None)


class Left(NamedTuple):
    """What is not as declared, and is left so."""

    what: str
    why: str


class Plan(NamedTuple):
    """The steps in their order, and what they leave."""

    steps: tuple[Step, ...]
    left: tuple[Left, ...]


def plan(
    connection: Connection,
    metadata: MetaData | Sequence[MetaData],
    *,
    retentions: Retentions | None = None,
    tries: bool = True,
) -> Plan:
    """Return what would bring the server up; change nothing. `retentions` as of `compare`. Raises DeclarationError.

    It reads what there would be with the extension, which it creates and undoes where the server has it loaded and the
    database lacks it. A connection can do that once: give it one that is closed afterwards; or, where a pooler keeps
    it open, let `tries` be false: then the creation is all that is planned.
    """
    creates = server.available(connection)
    if creates and not tries:
        connection.rollback()
        return Plan((Step("timescaledb"),), ())
    try:
        if creates:
            server.enable(connection)
        found = steps_now(connection, metadata, retentions=retentions)
    finally:
        connection.rollback()
    return found._replace(steps=(Step("timescaledb"), *found.steps)) if creates else found


def steps_now(
    connection: Connection, metadata: MetaData | Sequence[MetaData], *, retentions: Retentions | None = None
) -> Plan:
    """Return what `plan` does, by the extension that the database has or has not."""
    ops = compare(connection, metadata, retentions=retentions)
    known = [one for part in _several(metadata) for one in aggregates(part)]
    left = [Left(str(op), _TAKEN_AWAY) for op in ops if isinstance(op, _TAKES_AWAY)]
    untouched = {op.place for op in ops if isinstance(op, _TAKES_AWAY)}
    ops = [op for op in ops if not isinstance(op, (*_TAKES_AWAY, GoneWithRelationOp)) and op.place not in untouched]
    too_short = dict(_too_short(connection, ops, known))
    left += [Left(str(op), too_short[op.place]) for op in ops if _adds_retention(op) and op.place in too_short]
    ops = [op for op in ops if not (isinstance(op, _RETENTION) and op.place in too_short)]
    steps = [
        *_grouped(ops, _HYPERTABLES),
        *_grouped(ops, _AGGREGATES),
        *(Step(_place(one), computes=one) for one in known if _is_to_be_computed(connection, one, ops)),
        *_grouped(ops, _REFRESHES),
        *_grouped(ops, _COLUMNSTORE),
        *_grouped(ops, _RETENTION),
    ]
    return Plan(tuple(steps), tuple(left))


_TAKEN_AWAY = "this takes away what the server has: let a revision do it, or do it by hand"


def _several(metadata: MetaData | Sequence[MetaData]) -> Sequence[MetaData]:
    return [metadata] if isinstance(metadata, MetaData) else metadata


def _grouped(ops: Sequence[TimescaleOp], kinds: tuple[type[TimescaleOp], ...]) -> Iterator[Step]:
    of_kind = [op for op in ops if isinstance(op, kinds)]
    for place, found in groupby(of_kind, key=lambda op: op.place):
        yield Step(place, tuple(found))


def _place(aggregate: ContinuousAggregate) -> str:
    return aggregate.table.fullname


def _adds_retention(op: TimescaleOp) -> bool:
    return isinstance(op, AddRetentionPolicyOp)


def _is_to_be_computed(connection: Connection, one: ContinuousAggregate, ops: Sequence[TimescaleOp]) -> bool:
    """Whether rows may be dropped, or become too old for the policy, before the aggregate has taken them in."""
    place = _place(one)
    if any(isinstance(op, CreateContinuousAggregateOp) and op.place == place for op in ops):
        return True
    if any(_adds_retention(op) and op.place == one.source.fullname for op in ops):
        return True
    # What was interrupted between its creation and its policy.
    has_policy = not any(isinstance(op, AddContinuousAggregatePolicyOp) and op.place == place for op in ops)
    return not has_policy and not _is_computed(connection, one)


def _is_computed(connection: Connection, one: ContinuousAggregate) -> bool:
    schema = one.schema or inspect(connection).default_schema_name or "public"
    progress = server.aggregate_freshness(connection).get((schema, one.name))
    return progress is not None and progress.computed_until is not None


def _too_short(
    connection: Connection, ops: Sequence[TimescaleOp], known: Sequence[ContinuousAggregate]
) -> Iterator[tuple[str, str]]:
    """Yield the tables whose retention would let refreshes erase what aggregates have kept, and why."""
    for op in ops:
        if not isinstance(op, AddRetentionPolicyOp):
            continue
        windows = {
            one.name: one.refresh.start_offset
            for one in known
            if one.refresh is not None and one.source.fullname == op.place
        }
        for view, window in (windows | server.refresh_windows(connection, op.relation)).items():
            if window is None or window > op.drop_after:
                reach = "all that there is" if window is None else f"the last {spoken(window)}"
                yield (
                    op.place,
                    f"{view} is refreshed over {reach}, and would lose what the dropped rows made; keep them longer",
                )


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
            server.enable(connection)
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
    window = server.refresh_window(connection, aggregate.name, aggregate.schema, None, until)
    connection.rollback()
    # A shorter window may hold no whole bucket, which the server refuses.
    if window is not None and (window[0] is None or until - window[0] >= 2 * aggregate.bucket):
        server.refresh(connection, aggregate.name, aggregate.schema, until=until)


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
