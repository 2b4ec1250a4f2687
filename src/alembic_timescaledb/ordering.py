"""What of a table is changed before Alembic changes it, and what after: so the way back is right in reverse, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta

from alembic.operations.ops import AddColumnOp, DropColumnOp, MigrateOperation

from alembic_timescaledb.declare import Order
from alembic_timescaledb.operations import (
    AddColumnstorePolicyOp,
    DisableColumnstoreOp,
    EnableColumnstoreOp,
    GoneWithRelationOp,
    RemoveColumnstorePolicyOp,
    TimescaleOp,
)


def split(
    ops: Iterable[TimescaleOp], changes: Iterable[MigrateOperation], columnstore_after: timedelta | None
) -> tuple[list[TimescaleOp], list[TimescaleOp]]:
    """Return what goes before the changes of the table, and what comes after them.

    What takes away goes first: no column may be dropped that a columnstore names, and no key made that a hypertable
    refuses. What is made may need columns that are new. `columnstore_after` is the age of the policy that is there:
    its job would fill the columnstore again while that is emptied.
    """
    changed = list(changes)
    dropped = {op.column_name for op in changed if isinstance(op, DropColumnOp)}
    added = {op.column.name for op in changed if isinstance(op, AddColumnOp)}
    before: list[TimescaleOp] = []
    after: list[TimescaleOp] = []
    for op in ops:
        if isinstance(op, EnableColumnstoreOp) and op.former is not None:
            first, then = _altered(op, op.former, dropped, added)
            if then != [op] and columnstore_after is not None and not _is_removed(before):
                policy = AddColumnstorePolicyOp(op.relation, after=columnstore_after, schema=op.schema)
                first, then = [policy.reverse(), *first], [*then, policy]
            before += first
            after += then
        else:
            (before if op.removes else after).append(op)
    return before, after


def _is_removed(before: Iterable[TimescaleOp]) -> bool:
    return any(isinstance(op, RemoveColumnstorePolicyOp) for op in before)


def _altered(
    op: EnableColumnstoreOp, former: EnableColumnstoreOp, dropped: set[str], added: set[str]
) -> tuple[list[TimescaleOp], list[TimescaleOp]]:
    """Return the change of a columnstore that is there: a column of its chunks can only go when they are by row."""
    if dropped.intersection(_named(former)):
        ended = DisableColumnstoreOp(op.relation, aggregate=op.aggregate, schema=op.schema, former=former)
        return [ended], [replace(op, former=None)]
    if added.intersection(_named(op)):  # the way back drops the column
        return [GoneWithRelationOp(former)], [replace(op, former=None)]
    return [], [op]


def _named(op: EnableColumnstoreOp) -> Iterator[str]:
    yield from op.segment_by
    yield from (Order.parse(words).column for words in op.order_by)
