"""The policies: background jobs that drop rows, move chunks to the columnstore, and refresh aggregates."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar

from sqlalchemy import Connection

from alembic_timescaledb import server
from alembic_timescaledb.names import interval, spoken
from alembic_timescaledb.operations.operation import TimescaleOp, operation
from alembic_timescaledb.server import Edition, Feature


@operation
class RemoveRetentionPolicyOp(TimescaleOp):
    """Stop dropping chunks by age; `table` may be an aggregate.

    Reversed by `op.add_retention_policy`.

        op.remove_retention_policy("trades")
    """

    name = "remove_retention_policy"
    needs = Feature.RETENTION
    removes = True

    def _words(self) -> str:
        return f"drop no rows of {self.place} any more"

    def _sql(self) -> list[str]:
        return [self._call("remove_retention_policy", if_exists="true")]


@operation
class RemoveColumnstorePolicyOp(TimescaleOp):
    """Stop moving chunks to the columnstore; the chunks in it stay there.

    Reversed by `op.add_columnstore_policy`.

        op.remove_columnstore_policy("trades")
    """

    name = "remove_columnstore_policy"
    needs = Feature.COLUMNSTORE
    removes = True

    def _words(self) -> str:
        return f"move no more rows of {self.place} to the columnstore"

    def _sql(self) -> list[str]:
        return [self._call("remove_columnstore_policy", "CALL", if_exists="true")]


@operation
class RemoveContinuousAggregatePolicyOp(TimescaleOp):
    """Stop refreshing the aggregate.

    Reversed by `op.add_continuous_aggregate_policy`.

        op.remove_continuous_aggregate_policy("trades_1h")
    """

    name = "remove_continuous_aggregate_policy"
    needs = Feature.AGGREGATES
    removes = True
    relation_is = "view"

    def _words(self) -> str:
        return f"refresh {self.place} no more"

    def _sql(self) -> list[str]:
        return [self._call("remove_continuous_aggregate_policy", if_exists="true")]


@dataclass(frozen=True)
class _PolicyByAgeOp(TimescaleOp):
    procedure: ClassVar[str]

    def statements_on(self, connection: Connection) -> list[str]:
        """Return its SQL; it replaces a policy that goes by the creation of chunks."""
        by_creation = server.policies_by_creation(connection, self.relation, self.schema)
        former = self.reverse().statements() if self.procedure in by_creation else []
        return [*former, *self._sql()]


@operation
class AddRetentionPolicyOp(_PolicyByAgeOp):
    """Let the server drop chunks whose rows are all older than `drop_after`; `table` may be an aggregate.

    An edition without background jobs gets a line in the log instead. An existing policy stays, unless it goes by the
    creation of chunks (`drop_created_before`): then this one replaces it. Reversed by `op.remove_retention_policy`.

        op.add_retention_policy("trades", drop_after=timedelta(days=7))
    """

    name = "add_retention_policy"
    needs = Feature.RETENTION
    undone_by = RemoveRetentionPolicyOp
    procedure = "policy_retention"

    drop_after: timedelta = field(kw_only=True)

    def _words(self) -> str:
        return f"drop rows of {self.place} after {spoken(self.drop_after)}"

    def lack(self, edition: Edition) -> str:
        """Return the line for the log: nothing drops the rows."""
        return f"{self.place} gets no retention policy ({spoken(self.drop_after)}): the {edition} edition runs no jobs"

    def _sql(self) -> list[str]:
        return [self._call("add_retention_policy", drop_after=interval(self.drop_after), if_not_exists="true")]


@operation
class AddColumnstorePolicyOp(_PolicyByAgeOp):
    """Let the server store chunks by column once all their rows are older than `after`.

    The table, or an aggregate, has the columnstore enabled. An existing policy stays, unless it goes by the creation of
    chunks (`created_before`): then this one replaces it. Reversed by `op.remove_columnstore_policy`.

        op.add_columnstore_policy("trades", after=timedelta(hours=6))
    """

    name = "add_columnstore_policy"
    needs = Feature.COLUMNSTORE
    undone_by = RemoveColumnstorePolicyOp
    procedure = "policy_compression"

    after: timedelta = field(kw_only=True)

    def _words(self) -> str:
        return f"move rows of {self.place} to the columnstore after {spoken(self.after)}"

    def _sql(self) -> list[str]:
        return [self._call("add_columnstore_policy", "CALL", after=interval(self.after), if_not_exists="true")]


@operation
class AddContinuousAggregatePolicyOp(TimescaleOp):
    """Let the server compute an aggregate anew each `every`, from `start_offset` to `end_offset` before now.

    `start_offset` None begins with the oldest row. An existing policy stays. Reversed by
    `op.remove_continuous_aggregate_policy`.

        op.add_continuous_aggregate_policy(
            "trades_1h",
            start_offset=timedelta(days=1),
            end_offset=timedelta(hours=1),
            every=timedelta(minutes=30),
        )
    """

    name = "add_continuous_aggregate_policy"
    needs = Feature.AGGREGATES
    undone_by = RemoveContinuousAggregatePolicyOp
    relation_is = "view"

    start_offset: timedelta | None = field(kw_only=True)
    end_offset: timedelta = field(kw_only=True)
    every: timedelta = field(kw_only=True)

    def _words(self) -> str:
        start = "the beginning" if self.start_offset is None else f"{spoken(self.start_offset)} ago"
        end = f"{spoken(self.end_offset)} ago" if self.end_offset else "now"
        return f"refresh {self.place} every {spoken(self.every)}, from {start} to {end}"

    def _sql(self) -> list[str]:
        return [
            self._call(
                "add_continuous_aggregate_policy",
                start_offset="NULL" if self.start_offset is None else interval(self.start_offset),
                end_offset=interval(self.end_offset),
                schedule_interval=interval(self.every),
                if_not_exists="true",
            )
        ]
