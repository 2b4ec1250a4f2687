"""Brings a deployed database up to a server that can do more than the one it was deployed on.

`plan` returns the steps, `perform` does one. Rows move first. Then aggregates are created and computed. Only then come
the jobs, because a job that drops or moves rows must find their aggregates complete.
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

from alembic_timescaledb import operations as ops
from alembic_timescaledb import server
from alembic_timescaledb.aggregate import ContinuousAggregate, aggregates
from alembic_timescaledb.compare import Retentions, apply, compare
from alembic_timescaledb.names import quoted, spoken, sqlstate

EXTENSION = "create the extension timescaledb"

# The server's codes for a table that others have in use: lock_not_available, deadlock_detected.
IN_USE = ("55P03", "40P01")

# Less than the server's deadlock_timeout: in a deadlock we give up, and others are never broken off. Between our
# attempts, those who came after us can go on.
_LOCK_TIMEOUT = timedelta(milliseconds=500)
_PAUSE = timedelta(milliseconds=200)

_TAKES_AWAY = (ops.DisableColumnstoreOp, ops.DropContinuousAggregateOp, ops.RevertHypertableOp)
_DROPPING = (ops.AddRetentionPolicyOp, ops.AddRetentionJobOp)
_RETENTION = (ops.RemoveRetentionPolicyOp, ops.RemoveRetentionJobOp, *_DROPPING)
_BEFORE_COMPUTING = (
    (ops.CreateHypertableOp, ops.SetChunkIntervalOp),
    (ops.CreateContinuousAggregateOp, ops.SetMaterializedOnlyOp),
)
_AFTER_COMPUTING = (
    (ops.RemoveContinuousAggregatePolicyOp, ops.AddContinuousAggregatePolicyOp),
    (ops.RemoveColumnstorePolicyOp, ops.EnableColumnstoreOp, ops.AddColumnstorePolicyOp),
    _RETENTION,
)
_TAKEN_AWAY = "this takes away what the server has: let a revision do it, or do it by hand"
# Tables of the step, and those that their foreign keys refer to, may be locked by others.
_HOLDERS = (
    "WITH tables AS (SELECT to_regclass(name) AS oid FROM unnest(CAST(:tables AS text[])) name)"
    " SELECT coalesce(nullif(a.application_name, ''), 'a session'), a.pid, a.xact_start"
    " FROM pg_stat_activity a WHERE a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL"
    "  AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.granted AND l.relation IN ("
    "   SELECT oid FROM tables UNION SELECT k.confrelid FROM pg_constraint k JOIN tables ON k.conrelid = tables.oid"
    "   WHERE k.contype = 'f'))"
    " ORDER BY a.xact_start"
)


@dataclass(frozen=True, slots=True)
class Step:
    """What is done at once: `ops` in one transaction, the computing of an aggregate, or else creating the extension."""

    place: str  # its table or aggregate
    ops: tuple[ops.TimescaleOp, ...] = ()
    computes: ContinuousAggregate | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """Tell what it will do."""
        if self.computes is not None:
            return f"compute {self.place} of the rows that are there"
        return "; ".join(map(str, self.ops)) or EXTENSION

    @property
    def moves_rows(self) -> bool:
        """Whether all rows of the table move, under a lock that keeps everybody else out."""
        return any(isinstance(op, ops.CreateHypertableOp) for op in self.ops)

    @property
    def drops_after(self) -> timedelta | None:
        """The age from which the server will drop rows after this step; None if it drops none."""
        return next((op.drop_after for op in self.ops if isinstance(op, _DROPPING)), None)


class Left(NamedTuple):
    """A difference that a plan does not remove."""

    what: str
    why: str


class Plan(NamedTuple):
    """The steps in their order, and the differences that they leave."""

    steps: tuple[Step, ...]
    left: tuple[Left, ...]


class Holder(NamedTuple):
    """A session that uses a table, in a transaction since that time."""

    application: str
    pid: int
    since: datetime


def plan(
    connection: Connection, metadata: MetaData | Sequence[MetaData], *, retentions: Retentions | None = None
) -> Plan:
    """Return the steps that would bring the server up; change nothing. Raises DeclarationError.

    `retentions` are as in `compare`. If the database lacks an extension that the server has loaded, this creates the
    extension, reads, and rolls back. A connection can do that only once, so close it afterwards.
    """
    creates = server.available(connection)
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
    """Return the plan for the database as it is, with or without the extension."""
    found = compare(connection, metadata, retentions=retentions)
    known = [one for part in ([metadata] if isinstance(metadata, MetaData) else metadata) for one in aggregates(part)]
    left = [Left(str(op), _TAKEN_AWAY) for op in found if isinstance(op, _TAKES_AWAY)]
    untouched = {op.place for op in found if isinstance(op, _TAKES_AWAY)}
    found = [op for op in found if op.place not in untouched]
    too_short = dict(_too_short(connection, found, known))
    left += [Left(str(op), why) for op, why in too_short.items()]
    kept = {op.place for op in too_short}
    found = [op for op in found if not (isinstance(op, _RETENTION) and op.place in kept)]
    steps = [
        *(step for kinds in _BEFORE_COMPUTING for step in _grouped(found, kinds)),
        *(Step(one.table.fullname, computes=one) for one in known if _is_to_be_computed(connection, one, found)),
        *(step for kinds in _AFTER_COMPUTING for step in _grouped(found, kinds)),
    ]
    return Plan(tuple(steps), tuple(left))


def _grouped(found: Sequence[ops.TimescaleOp], kinds: tuple[type[ops.TimescaleOp], ...]) -> Iterator[Step]:
    for place, group in groupby((op for op in found if isinstance(op, kinds)), key=lambda op: op.place):
        yield Step(place, tuple(group))


def _is_to_be_computed(connection: Connection, one: ContinuousAggregate, found: Sequence[ops.TimescaleOp]) -> bool:
    """Whether rows may be dropped, or become too old for the policy, before the aggregate has computed them."""
    wanted = {(type(op), op.place) for op in found}
    place = one.table.fullname
    if (ops.CreateContinuousAggregateOp, place) in wanted:
        return True
    if any((kind, one.source.fullname) in wanted for kind in _DROPPING):
        return True
    # An interrupted upgrade may have created it without its policy.
    if (ops.AddContinuousAggregatePolicyOp, place) not in wanted:
        return False
    schema = one.schema or inspect(connection).default_schema_name or "public"
    freshness = server.aggregate_freshness(connection).get((schema, one.name))
    return freshness is None or freshness.computed_until is None


def _too_short(
    connection: Connection, found: Sequence[ops.TimescaleOp], known: Sequence[ContinuousAggregate]
) -> Iterator[tuple[ops.TimescaleOp, str]]:
    """Yield the new retentions that would let refreshes erase the buckets of dropped rows, and why."""
    for op in found:
        if isinstance(op, _DROPPING) and op.drop_after is not None:
            over = {one.name: one.refresh for one in known if one.source.fullname == op.place}
            windows = {name: refresh.start_offset for name, refresh in over.items() if refresh is not None}
            for view, window in (windows | server.refresh_windows(connection, op.relation)).items():
                if window is None or window > op.drop_after:
                    length = "all that there is" if window is None else f"the last {spoken(window)}"
                    lost = "what the dropped rows made; keep them longer"
                    yield op, f"{view} is refreshed over {length}, and would lose {lost}"


def perform(
    connection: Connection,
    step: Step,
    metadata: MetaData | Sequence[MetaData],
    *,
    retentions: Callable[[Connection], Retentions],
    patience: timedelta,
) -> None:
    """Do what is still to be done of the step, and commit it; on an error nothing of it is done.

    The connection is in no transaction. `retentions` is called within the step's own. If others use a table for longer
    than `patience`, the server's error lock_not_available (55P03) or deadlock_detected (40P01) is raised.
    """
    if step.computes is not None:
        compute(connection, step.computes)
        return

    def wanted() -> list[ops.TimescaleOp]:
        there = compare(connection, metadata, retentions=retentions(connection))
        return [op for op in step.ops if op in there]

    deadline = monotonic() + patience.total_seconds()
    while True:
        try:
            _attempt(connection, step, wanted, min(patience, _LOCK_TIMEOUT))
        except DBAPIError as error:
            if sqlstate(error) not in IN_USE or monotonic() > deadline:
                raise
            connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": _PAUSE.total_seconds()})
            connection.rollback()
        else:
            return


def _attempt(
    connection: Connection, step: Step, wanted: Callable[[], list[ops.TimescaleOp]], lock_timeout: timedelta
) -> None:
    try:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(f"SET LOCAL lock_timeout = {max(lock_timeout // timedelta(milliseconds=1), 1)}"))
        if step.ops:
            apply(connection, wanted())
        else:
            server.enable(connection)
        connection.commit()
    finally:
        connection.rollback()


def compute(connection: Connection, aggregate: ContinuousAggregate) -> None:
    """Compute the aggregate of the rows that are there, up to the end that its policy leaves alone.

    It keeps the buckets of dropped chunks. The connection is in no transaction.
    """
    now = connection.scalars(text("SELECT now()")).one()
    until = now - (aggregate.refresh.end_offset if aggregate.refresh else timedelta(0))
    window = server.refresh_window(connection, aggregate.name, aggregate.schema, None, until)
    connection.rollback()
    # The server refuses a window that may hold no whole bucket.
    if window is not None and (window[0] is None or until - window[0] >= 2 * aggregate.bucket):
        server.refresh(connection, aggregate.name, aggregate.schema, until=until)


def unhurry(connection: Connection) -> None:
    """Let the session's statements take as long as they need, as a refresh has no transaction that could."""
    connection.execute(text("SET statement_timeout = 0"))
    connection.commit()


def holders(connection: Connection, step: Step) -> list[Holder]:
    """Return the other sessions that use the step's tables now, longest first."""
    tables = [quoted(op.relation, op.schema) for op in step.ops]
    rows = connection.execute(text(_HOLDERS), {"tables": tables}).all()
    connection.rollback()
    return [Holder(*row) for row in rows]
