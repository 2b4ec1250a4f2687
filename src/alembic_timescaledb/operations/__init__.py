"""TimescaleDB's DDL as Alembic operations: importing this gives them to `op`.

Each is safe on every edition: what one lacks is logged when the operation runs, and stays on record as what `missing`
of `alembic_timescaledb.compare` finds. Where a table is still ordinary, deployed on plain PostgreSQL, the operation
waits likewise. Offline (`--sql`) they are printed for the richest edition, or for that of `timescale_edition`.
"""

from alembic_timescaledb.operations.aggregates import (
    CreateContinuousAggregateOp,
    DropContinuousAggregateOp,
    RefreshContinuousAggregateOp,
    SetMaterializedOnlyOp,
)
from alembic_timescaledb.operations.columnstore import (
    AddColumnstorePolicyOp,
    DisableColumnstoreOp,
    EnableColumnstoreOp,
    RemoveColumnstorePolicyOp,
)
from alembic_timescaledb.operations.hypertables import CreateHypertableOp, RevertHypertableOp, SetChunkIntervalOp
from alembic_timescaledb.operations.operation import GoneWithRelationOp, TimescaleOp, edition_of
from alembic_timescaledb.operations.policies import (
    AddContinuousAggregatePolicyOp,
    AddRetentionPolicyOp,
    RemoveContinuousAggregatePolicyOp,
    RemoveRetentionPolicyOp,
)

__all__ = [
    "AddColumnstorePolicyOp",
    "AddContinuousAggregatePolicyOp",
    "AddRetentionPolicyOp",
    "CreateContinuousAggregateOp",
    "CreateHypertableOp",
    "DisableColumnstoreOp",
    "DropContinuousAggregateOp",
    "EnableColumnstoreOp",
    "GoneWithRelationOp",
    "RefreshContinuousAggregateOp",
    "RemoveColumnstorePolicyOp",
    "RemoveContinuousAggregatePolicyOp",
    "RemoveRetentionPolicyOp",
    "RevertHypertableOp",
    "SetChunkIntervalOp",
    "SetMaterializedOnlyOp",
    "TimescaleOp",
    "edition_of",
]
