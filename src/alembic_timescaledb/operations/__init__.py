"""TimescaleDB's DDL as Alembic operations: importing this module adds them to `op`.

Each operation is safe on every edition. An operation that the edition lacks logs a line instead, and `missing` of
`alembic_timescaledb.compare` finds it later. It also waits if its table is an ordinary one, deployed on plain
PostgreSQL. Offline (`--sql`) operations are printed for the richest edition, or for that of `timescale_edition`.
"""

from alembic_timescaledb.operations.aggregates import CreateContinuousAggregateOp as CreateContinuousAggregateOp
from alembic_timescaledb.operations.aggregates import DropContinuousAggregateOp as DropContinuousAggregateOp
from alembic_timescaledb.operations.aggregates import RefreshContinuousAggregateOp as RefreshContinuousAggregateOp
from alembic_timescaledb.operations.aggregates import SetMaterializedOnlyOp as SetMaterializedOnlyOp
from alembic_timescaledb.operations.hypertables import CreateHypertableOp as CreateHypertableOp
from alembic_timescaledb.operations.hypertables import DisableColumnstoreOp as DisableColumnstoreOp
from alembic_timescaledb.operations.hypertables import EnableColumnstoreOp as EnableColumnstoreOp
from alembic_timescaledb.operations.hypertables import RevertHypertableOp as RevertHypertableOp
from alembic_timescaledb.operations.hypertables import SetChunkIntervalOp as SetChunkIntervalOp
from alembic_timescaledb.operations.operation import GoneWithRelationOp as GoneWithRelationOp
from alembic_timescaledb.operations.operation import TimescaleOp as TimescaleOp
from alembic_timescaledb.operations.operation import edition_of as edition_of
from alembic_timescaledb.operations.operation import gone_with_relation as gone_with_relation
from alembic_timescaledb.operations.policies import AddColumnstorePolicyOp as AddColumnstorePolicyOp
from alembic_timescaledb.operations.policies import AddContinuousAggregatePolicyOp as AddContinuousAggregatePolicyOp
from alembic_timescaledb.operations.policies import AddRetentionPolicyOp as AddRetentionPolicyOp
from alembic_timescaledb.operations.policies import RemoveColumnstorePolicyOp as RemoveColumnstorePolicyOp
from alembic_timescaledb.operations.policies import (
    RemoveContinuousAggregatePolicyOp as RemoveContinuousAggregatePolicyOp,
)
from alembic_timescaledb.operations.policies import RemoveRetentionPolicyOp as RemoveRetentionPolicyOp
