"""What brings a server up to the declarations, step by step: for one that could less when it was deployed.

Rows move first. Then aggregates are made and computed, and only then come the jobs: one that drops rows, or moves them,
must find the aggregates of these rows complete. `stepping` does the steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Connection, MetaData, inspect

from alembic_timescaledb import catalog
from alembic_timescaledb.aggregate import ContinuousAggregate, aggregates
from alembic_timescaledb.comparison import Retentions, compare
from alembic_timescaledb.intervals import spoken
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
from alembic_timescaledb.progress import aggregate_progress
from alembic_timescaledb.retention import refresh_windows

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
    creates = catalog.available(connection)
    if creates and not tries:
        connection.rollback()
        return Plan((Step("timescaledb"),), ())
    try:
        if creates:
            catalog.enable(connection)
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
    progress = aggregate_progress(connection).get((schema, one.name))
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
        for view, window in (windows | refresh_windows(connection, op.relation)).items():
            if window is None or window > op.drop_after:
                reach = "all that there is" if window is None else f"the last {spoken(window)}"
                yield (
                    op.place,
                    f"{view} is refreshed over {reach}, and would lose what the dropped rows made; keep them longer",
                )
