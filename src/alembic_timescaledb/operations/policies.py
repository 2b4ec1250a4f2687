"""The policies: retention, and the refresh of aggregates."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from alembic.operations import Operations
from sqlalchemy import Connection

from alembic_timescaledb import server
from alembic_timescaledb.names import interval, regclass, spoken
from alembic_timescaledb.operations.operation import TimescaleOp, known
from alembic_timescaledb.server import Edition, Feature


@Operations.register_operation("add_continuous_aggregate_policy")
@dataclass(frozen=True)
class AddContinuousAggregatePolicyOp(TimescaleOp):
    """Let the server refresh an aggregate."""

    name = "add_continuous_aggregate_policy"
    needs = Feature.AGGREGATES

    relation: str
    start_offset: timedelta | None = field(kw_only=True)
    end_offset: timedelta = field(kw_only=True)
    every: timedelta = field(kw_only=True)
    schema: str | None = field(default=None, kw_only=True)

    @classmethod
    def add_continuous_aggregate_policy(
        cls,
        operations: Operations,
        view: str,
        *,
        start_offset: timedelta | None,
        end_offset: timedelta,
        every: timedelta,
        schema: str | None = None,
    ) -> None:
        """Let the server compute anew, each `every`, what lies from `start_offset` to `end_offset` before now.

        `start_offset` None begins with the oldest row. A policy that is there stays.

            op.add_continuous_aggregate_policy(
                "trades_1h",
                start_offset=timedelta(days=1),
                end_offset=timedelta(hours=1),
                every=timedelta(minutes=30),
            )

        Reversed by `op.remove_continuous_aggregate_policy`.
        """
        operations.invoke(cls(view, start_offset=start_offset, end_offset=end_offset, every=every, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        start = "the beginning" if self.start_offset is None else f"{spoken(self.start_offset)} ago"
        end = f"{spoken(self.end_offset)} ago" if self.end_offset else "now"
        return f"refresh {self.place} every {spoken(self.every)}, from {start} to {end}"

    def statements(self) -> list[str]:
        """Return its SQL."""
        start = "NULL" if self.start_offset is None else interval(self.start_offset)
        return [
            f"SELECT add_continuous_aggregate_policy({regclass(self.relation, self.schema)}, start_offset => {start},"
            f" end_offset => {interval(self.end_offset)}, schedule_interval => {interval(self.every)},"
            " if_not_exists => true)"
        ]

    def reverse(self) -> RemoveContinuousAggregatePolicyOp:
        """Return its removal."""
        return RemoveContinuousAggregatePolicyOp(self.relation, schema=self.schema, former=self)


@Operations.register_operation("remove_continuous_aggregate_policy")
@dataclass(frozen=True)
class RemoveContinuousAggregatePolicyOp(TimescaleOp):
    """Undo `add_continuous_aggregate_policy`."""

    name = "remove_continuous_aggregate_policy"
    needs = Feature.AGGREGATES
    removes = True

    relation: str
    schema: str | None = field(default=None, kw_only=True)
    former: AddContinuousAggregatePolicyOp | None = field(default=None, kw_only=True, repr=False, compare=False)

    @classmethod
    def remove_continuous_aggregate_policy(
        cls, operations: Operations, view: str, *, schema: str | None = None
    ) -> None:
        """Refresh the aggregate no more by itself.

            op.remove_continuous_aggregate_policy("trades_1h")

        Reversed by `op.add_continuous_aggregate_policy`.
        """
        operations.invoke(cls(view, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        return f"refresh {self.place} no more"

    def statements(self) -> list[str]:
        """Return its SQL."""
        return [f"SELECT remove_continuous_aggregate_policy({regclass(self.relation, self.schema)}, if_exists => true)"]

    def reverse(self) -> AddContinuousAggregatePolicyOp:
        """Return the policy that was there."""
        return known(self, self.former)


@Operations.register_operation("add_retention_policy")
@dataclass(frozen=True)
class AddRetentionPolicyOp(TimescaleOp):
    """Let the server drop chunks whose rows are all older than `drop_after`."""

    name = "add_retention_policy"
    needs = Feature.RETENTION

    relation: str
    drop_after: timedelta = field(kw_only=True)
    schema: str | None = field(default=None, kw_only=True)

    @classmethod
    def add_retention_policy(
        cls, operations: Operations, table: str, *, drop_after: timedelta, schema: str | None = None
    ) -> None:
        """Let the server drop chunks whose rows are all older than `drop_after`; `table` may be an aggregate.

        An edition without background jobs gets a line in the log instead. A policy that is there stays, but
        for one by when chunks were created (`drop_created_before`), which is replaced.

            op.add_retention_policy("trades", drop_after=timedelta(days=7))

        Reversed by `op.remove_retention_policy`.
        """
        operations.invoke(cls(table, drop_after=drop_after, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        return f"drop rows of {self.place} after {spoken(self.drop_after)}"

    def lack(self, edition: Edition) -> str:
        """Say what is left to others."""
        return f"{self.place} gets no retention policy ({spoken(self.drop_after)}): the {edition} edition runs no jobs"

    def statements(self) -> list[str]:
        """Return its SQL."""
        relation = regclass(self.relation, self.schema)
        return [
            f"SELECT add_retention_policy({relation}, drop_after => {interval(self.drop_after)}, if_not_exists => true)"
        ]

    def statements_on(self, connection: Connection) -> list[str]:
        """Return its SQL; a policy by the chunks' creation gives way to it."""
        by_creation = server.policies_by_creation(connection, self.relation, self.schema)
        former = self.reverse().statements() if "policy_retention" in by_creation else []
        return [*former, *self.statements()]

    def reverse(self) -> RemoveRetentionPolicyOp:
        """Return its removal."""
        return RemoveRetentionPolicyOp(self.relation, schema=self.schema, former=self)


@Operations.register_operation("remove_retention_policy")
@dataclass(frozen=True)
class RemoveRetentionPolicyOp(TimescaleOp):
    """Undo `add_retention_policy`."""

    name = "remove_retention_policy"
    needs = Feature.RETENTION
    removes = True

    relation: str
    schema: str | None = field(default=None, kw_only=True)
    former: AddRetentionPolicyOp | None = field(default=None, kw_only=True, repr=False, compare=False)

    @classmethod
    def remove_retention_policy(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Let nothing be dropped by itself any more; `table` may be an aggregate.

            op.remove_retention_policy("trades")

        Reversed by `op.add_retention_policy`.
        """
        operations.invoke(cls(table, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        return f"drop no rows of {self.place} any more"

    def statements(self) -> list[str]:
        """Return its SQL."""
        return [f"SELECT remove_retention_policy({regclass(self.relation, self.schema)}, if_exists => true)"]

    def reverse(self) -> AddRetentionPolicyOp:
        """Return the policy that was there."""
        return known(self, self.former)
