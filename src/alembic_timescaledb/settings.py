"""What can be set on a hypertable or an aggregate, columnstore and policies, and the steps from one to another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from alembic_timescaledb.aggregate import Refresh
from alembic_timescaledb.hypertable import Columnstore
from alembic_timescaledb.operations import (
    AddColumnstorePolicyOp,
    AddContinuousAggregatePolicyOp,
    AddRetentionPolicyOp,
    DisableColumnstoreOp,
    EnableColumnstoreOp,
    GoneWithRelationOp,
    TimescaleOp,
)
from alembic_timescaledb.state import ColumnstoreState, PolicyState


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one relation; `with_relation` says that it is made, or dropped, in the same breath."""

    relation: str
    schema: str | None
    columnstore: ColumnstoreState | None
    policies: PolicyState
    aggregate: bool = False
    with_relation: bool = False

    def without(self) -> Settings:
        """Return the same relation with nothing set."""
        return replace(self, columnstore=None, policies=PolicyState())


def columnstore_state(wanted: Columnstore | None, time_column: str) -> ColumnstoreState | None:
    """Return what a server with the declared columnstore says of it."""
    return None if wanted is None else ColumnstoreState(tuple(wanted.segment_by), wanted.ordered(time_column))


def changes(before: Settings, after: Settings) -> Iterator[TimescaleOp]:
    """Yield the steps from one to the other: what goes, then what comes; a policy is changed by a new one."""
    old, new = before.policies, after.policies
    if old.refresh is not None and old.refresh != new.refresh:
        yield _refresh(before, old.refresh).reverse()
    if old.retention is not None and old.retention != new.retention:
        yield AddRetentionPolicyOp(before.relation, drop_after=old.retention, schema=before.schema).reverse()
    if old.columnstore_after is not None and old.columnstore_after != new.columnstore_after:
        yield AddColumnstorePolicyOp(before.relation, after=old.columnstore_after, schema=before.schema).reverse()
    yield from _columnstore_changes(before, after)
    if new.columnstore_after is not None and old.columnstore_after != new.columnstore_after:
        yield AddColumnstorePolicyOp(after.relation, after=new.columnstore_after, schema=after.schema)
    if new.retention is not None and old.retention != new.retention:
        yield AddRetentionPolicyOp(after.relation, drop_after=new.retention, schema=after.schema)
    if new.refresh is not None and old.refresh != new.refresh:
        yield _refresh(after, new.refresh)


def _columnstore_changes(before: Settings, after: Settings) -> Iterator[TimescaleOp]:
    if before.columnstore == after.columnstore:
        return
    there = None if before.columnstore is None else _enabled(before, before.columnstore)
    if after.columnstore is not None:
        yield replace(_enabled(after, after.columnstore), former=there)
    elif there is not None and before.with_relation:
        yield GoneWithRelationOp(there)
    elif there is not None:
        yield DisableColumnstoreOp(there.relation, aggregate=there.aggregate, schema=there.schema, former=there)


def _enabled(settings: Settings, columnstore: ColumnstoreState) -> EnableColumnstoreOp:
    return EnableColumnstoreOp(
        settings.relation,
        segment_by=columnstore.segment_by,
        order_by=tuple(map(str, columnstore.order_by)),
        aggregate=settings.aggregate,
        schema=settings.schema,
        with_relation=settings.with_relation,
    )


def _refresh(settings: Settings, refresh: Refresh) -> AddContinuousAggregatePolicyOp:
    return AddContinuousAggregatePolicyOp(
        settings.relation,
        start_offset=refresh.start_offset,
        end_offset=refresh.end_offset,
        every=refresh.every,
        schema=settings.schema,
    )
