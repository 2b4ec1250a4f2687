"""TimescaleDB's DDL as Alembic operations: importing this gives them to `op`.

Each is safe on every edition: what one lacks is logged when the operation runs, and stays on record as what
`arbstore.timescale.missing` finds. An operation on a table that is still ordinary (it was deployed on plain PostgreSQL)
waits likewise. Offline (`--sql`) they are printed for the richest edition, or for that of `timescale_edition`.
"""

from arbstore.timescale.operations.aggregates import (
    AddContinuousAggregatePolicyOp,
    CreateContinuousAggregateOp,
    DropContinuousAggregateOp,
    RefreshContinuousAggregateOp,
    RemoveContinuousAggregatePolicyOp,
)
from arbstore.timescale.operations.columnstore import (
    AddColumnstorePolicyOp,
    DisableColumnstoreOp,
    EnableColumnstoreOp,
    RemoveColumnstorePolicyOp,
)
from arbstore.timescale.operations.hypertables import CreateHypertableOp, RevertHypertableOp, SetChunkIntervalOp
from arbstore.timescale.operations.operation import TimescaleOp, edition_of
from arbstore.timescale.operations.retention import AddRetentionPolicyOp, RemoveRetentionPolicyOp

__all__ = [
    "AddColumnstorePolicyOp",
    "AddContinuousAggregatePolicyOp",
    "AddRetentionPolicyOp",
    "CreateContinuousAggregateOp",
    "CreateHypertableOp",
    "DisableColumnstoreOp",
    "DropContinuousAggregateOp",
    "EnableColumnstoreOp",
    "RefreshContinuousAggregateOp",
    "RemoveColumnstorePolicyOp",
    "RemoveContinuousAggregatePolicyOp",
    "RemoveRetentionPolicyOp",
    "RevertHypertableOp",
    "SetChunkIntervalOp",
    "TimescaleOp",
    "edition_of",
]
