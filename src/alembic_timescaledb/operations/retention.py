"""`op.add_retention_policy` and `op.remove_retention_policy`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from alembic.operations import Operations
from sqlalchemy import Connection

from alembic_timescaledb import catalog
from alembic_timescaledb.catalog import Edition, Feature
from alembic_timescaledb.intervals import interval, spoken
from alembic_timescaledb.naming import regclass
from alembic_timescaledb.operations.operation import TimescaleOp, known


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
        by_creation = catalog.policies_by_creation(connection, self.relation, self.schema)
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
