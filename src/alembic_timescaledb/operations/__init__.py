"""TimescaleDB's DDL as Alembic operations: importing this module adds them to `op`.

Each operation is safe on every edition. An operation that the edition lacks logs a line instead, and `missing` of
`alembic_timescaledb.compare` finds it later. It also waits if its table is an ordinary one, deployed on plain
PostgreSQL. Offline (`--sql`) operations are printed for the richest edition, or for that of `timescale_edition`.
"""

from alembic_timescaledb.operations.aggregates import (
    CreateContinuousAggregateOp,
    DropContinuousAggregateOp,
    RefreshContinuousAggregateOp,
    SetMaterializedOnlyOp,
)
from alembic_timescaledb.operations.hypertables import (
    CreateHypertableOp,
    DisableColumnstoreOp,
    EnableColumnstoreOp,
    RevertHypertableOp,
    SetChunkIntervalOp,
)
from alembic_timescaledb.operations.operation import GoneWithRelationOp, TimescaleOp, edition_of, gone_with_relation
from alembic_timescaledb.operations.policies import (
    AddColumnstorePolicyOp,
    AddContinuousAggregatePolicyOp,
    AddRetentionPolicyOp,
    RemoveColumnstorePolicyOp,
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
    "gone_with_relation",
]
