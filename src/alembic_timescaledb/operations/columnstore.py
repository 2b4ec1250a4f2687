"""`op.enable_columnstore`, `op.add_columnstore_policy` and their reversals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from alembic.operations import Operations
from sqlalchemy import Connection

from alembic_timescaledb import server
from alembic_timescaledb.declare import Order
from alembic_timescaledb.names import interval, literal, quoted, regclass, spoken
from alembic_timescaledb.operations.operation import GoneWithRelationOp, TimescaleOp, known
from alembic_timescaledb.server import Feature


@dataclass(frozen=True)
class _ColumnstoreOp(TimescaleOp):
    needs = Feature.COLUMNSTORE

    relation: str
    aggregate: bool = field(default=False, kw_only=True)
    schema: str | None = field(default=None, kw_only=True)

    def _altered(self, *settings: str) -> list[str]:
        kind = "MATERIALIZED VIEW" if self.aggregate else "TABLE"
        return [f"ALTER {kind} {quoted(self.relation, self.schema)} SET ({', '.join(settings)})"]


@Operations.register_operation("enable_columnstore")
@dataclass(frozen=True)
class EnableColumnstoreOp(_ColumnstoreOp):
    """Let chunks be stored by column."""

    name = "enable_columnstore"

    segment_by: Sequence[str] = field(default=(), kw_only=True)
    order_by: Sequence[str] = field(default=(), kw_only=True)
    former: EnableColumnstoreOp | None = field(default=None, kw_only=True, repr=False, compare=False)
    with_relation: bool = field(default=False, kw_only=True, repr=False, compare=False)  # comes and goes with it

    @classmethod
    def enable_columnstore(
        cls,
        operations: Operations,
        table: str,
        *,
        segment_by: Sequence[str] = (),
        order_by: Sequence[str] = (),
        aggregate: bool = False,
        schema: str | None = None,
    ) -> None:
        """Let chunks be stored by column, rows grouped by `segment_by` and sorted by `order_by` (by default by time).

        Again, with other columns: chunks stored so far stay as they are. `aggregate` says that `table` is one. Only the
        Community edition has it; others get a line in the log.

            op.enable_columnstore("trades", segment_by=["symbol_id"], order_by=["timestamp DESC"])

        Reversed by `op.disable_columnstore`.
        """
        segments, order = tuple(segment_by), tuple(order_by)
        operations.invoke(cls(table, segment_by=segments, order_by=order, aggregate=aggregate, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        by = f" by {', '.join(self.segment_by)}" if self.segment_by else ""
        along = f" along {', '.join(self.order_by)}" if self.order_by else ""
        return f"store {self.place} by column{by}{along}"

    def statements(self) -> list[str]:
        """Return its SQL."""
        settings = ["timescaledb.enable_columnstore = true"]
        settings.append(f"timescaledb.segmentby = {literal(', '.join(map(quoted, self.segment_by)))}")
        if self.order_by:
            settings.append(f"timescaledb.orderby = {literal(', '.join(map(_sorted_by, self.order_by)))}")
        return self._altered(*settings)

    def reverse(self) -> TimescaleOp:
        """Return the former columns where there were any, else the end of it."""
        if self.with_relation:
            return GoneWithRelationOp(self)
        if self.former is not None:
            return EnableColumnstoreOp(
                self.relation,
                segment_by=self.former.segment_by,
                order_by=self.former.order_by,
                aggregate=self.aggregate,
                schema=self.schema,
                former=self,
            )
        return DisableColumnstoreOp(self.relation, aggregate=self.aggregate, schema=self.schema, former=self)


def _sorted_by(words: str) -> str:
    order = Order.parse(words)
    way = "DESC" if order.descending else "ASC"
    return f"{quoted(order.column)} {way} NULLS {'FIRST' if order.nulls_first else 'LAST'}"


@Operations.register_operation("disable_columnstore")
@dataclass(frozen=True)
class DisableColumnstoreOp(_ColumnstoreOp):
    """Undo `enable_columnstore`."""

    name = "disable_columnstore"
    removes = True

    former: EnableColumnstoreOp | None = field(default=None, kw_only=True, repr=False, compare=False)

    @classmethod
    def disable_columnstore(
        cls, operations: Operations, table: str, *, aggregate: bool = False, schema: str | None = None
    ) -> None:
        """Store chunks by row again: those stored by column are converted first, which may take long.

            op.disable_columnstore("trades")

        Reversed by `op.enable_columnstore`.
        """
        operations.invoke(cls(table, aggregate=aggregate, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        return f"store {self.place} by row again"

    def statements(self) -> list[str]:
        """Return its SQL."""
        chunks = f"show_chunks({regclass(self.relation, self.schema)})"
        return [
            f"SELECT decompress_chunk(chunk, if_compressed => true) FROM {chunks} chunk",  # noqa: S608 # quoted above
            *self._altered("timescaledb.enable_columnstore = false"),
        ]

    def statements_on(self, _connection: Connection) -> list[str]:
        """Return its SQL, with the policy's job kept from converting chunks again meanwhile."""
        locked = f"LOCK TABLE ONLY {quoted(self.relation, self.schema)} IN ACCESS EXCLUSIVE MODE"
        return self.statements() if self.aggregate else [locked, *self.statements()]

    def reverse(self) -> EnableColumnstoreOp:
        """Return what was there."""
        return known(self, self.former)


@Operations.register_operation("add_columnstore_policy")
@dataclass(frozen=True)
class AddColumnstorePolicyOp(TimescaleOp):
    """Let the server convert chunks whose rows are all older than `after`."""

    name = "add_columnstore_policy"
    needs = Feature.COLUMNSTORE

    relation: str
    after: timedelta = field(kw_only=True)
    schema: str | None = field(default=None, kw_only=True)

    @classmethod
    def add_columnstore_policy(
        cls, operations: Operations, table: str, *, after: timedelta, schema: str | None = None
    ) -> None:
        """Let the server store chunks by column once all their rows are older than `after`.

        `table`, or an aggregate, has the columnstore enabled. A policy that is there stays, but for one by
        when chunks were created (`created_before`), which is replaced.

            op.add_columnstore_policy("trades", after=timedelta(hours=6))

        Reversed by `op.remove_columnstore_policy`.
        """
        operations.invoke(cls(table, after=after, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        return f"move rows of {self.place} to the columnstore after {spoken(self.after)}"

    def statements(self) -> list[str]:
        """Return its SQL."""
        relation = regclass(self.relation, self.schema)
        return [f"CALL add_columnstore_policy({relation}, after => {interval(self.after)}, if_not_exists => true)"]

    def statements_on(self, connection: Connection) -> list[str]:
        """Return its SQL; a policy by the chunks' creation gives way to it."""
        by_creation = server.policies_by_creation(connection, self.relation, self.schema)
        former = self.reverse().statements() if "policy_compression" in by_creation else []
        return [*former, *self.statements()]

    def reverse(self) -> RemoveColumnstorePolicyOp:
        """Return its removal."""
        return RemoveColumnstorePolicyOp(self.relation, schema=self.schema, former=self)


@Operations.register_operation("remove_columnstore_policy")
@dataclass(frozen=True)
class RemoveColumnstorePolicyOp(TimescaleOp):
    """Undo `add_columnstore_policy`."""

    name = "remove_columnstore_policy"
    needs = Feature.COLUMNSTORE
    removes = True

    relation: str
    schema: str | None = field(default=None, kw_only=True)
    former: AddColumnstorePolicyOp | None = field(default=None, kw_only=True, repr=False, compare=False)

    @classmethod
    def remove_columnstore_policy(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Convert no more chunks by itself; those converted stay so.

            op.remove_columnstore_policy("trades")

        Reversed by `op.add_columnstore_policy`.
        """
        operations.invoke(cls(table, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        return f"move no more rows of {self.place} to the columnstore"

    def statements(self) -> list[str]:
        """Return its SQL."""
        return [f"CALL remove_columnstore_policy({regclass(self.relation, self.schema)}, if_exists => true)"]

    def reverse(self) -> AddColumnstorePolicyOp:
        """Return the policy that was there."""
        return known(self, self.former)
