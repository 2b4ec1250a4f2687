"""`op.add_continuous_aggregate_policy` and `op.remove_continuous_aggregate_policy`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from alembic.operations import Operations

from alembic_timescaledb.catalog import Feature
from alembic_timescaledb.intervals import interval, spoken
from alembic_timescaledb.naming import regclass
from alembic_timescaledb.operations.operation import TimescaleOp, known


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
