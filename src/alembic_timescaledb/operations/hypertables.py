"""`op.create_hypertable`, `op.revert_hypertable` and `op.set_chunk_interval`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

from alembic.operations import Operations
from sqlalchemy import Connection

from alembic_timescaledb.names import interval, literal, regclass, spoken
from alembic_timescaledb.operations.operation import GoneWithRelationOp, TimescaleOp, known
from alembic_timescaledb.operations.reverting import copied_back
from alembic_timescaledb.server import Edition, Feature


@Operations.register_operation("create_hypertable")
@dataclass(frozen=True)
class CreateHypertableOp(TimescaleOp):
    """Make a table a hypertable, without the index that TimescaleDB would add to it."""

    name = "create_hypertable"
    needs = Feature.HYPERTABLES

    relation: str
    time_column: str
    chunk_interval: timedelta = field(kw_only=True)
    space_column: str | None = field(default=None, kw_only=True)
    partitions: int | None = field(default=None, kw_only=True)
    migrate_data: bool = field(default=False, kw_only=True)
    schema: str | None = field(default=None, kw_only=True)
    with_relation: bool = field(default=False, kw_only=True, repr=False, compare=False)  # comes and goes with it

    @classmethod
    def create_hypertable(
        cls,
        operations: Operations,
        table: str,
        time_column: str,
        *,
        chunk_interval: timedelta,
        space_column: str | None = None,
        partitions: int | None = None,
        migrate_data: bool = False,
        schema: str | None = None,
    ) -> None:
        """Split a table into chunks by its time, and by the hash of `space_column` into `partitions` if given.

        A table with rows is refused unless `migrate_data`, which moves them into chunks under a lock. On plain
        PostgreSQL the table stays an ordinary one, and the log says so.

            op.create_hypertable("trades", "timestamp", chunk_interval=timedelta(hours=1))

        Reversed by dropping the table, or by `op.revert_hypertable`, which keeps its rows.
        """
        operations.invoke(
            cls(
                table,
                time_column,
                chunk_interval=chunk_interval,
                space_column=space_column,
                partitions=partitions,
                migrate_data=migrate_data,
                schema=schema,
            )
        )

    def __str__(self) -> str:
        """Say it."""
        by = f" and {self.partitions} partitions by {self.space_column}" if self.space_column else ""
        moved = "; its rows move into them" if self.migrate_data else ""
        return f"make {self.place} a hypertable, in chunks of {spoken(self.chunk_interval)}{by}{moved}"

    def is_ready(self, _connection: Connection) -> bool:
        """It works on any table."""
        return True

    def lack(self, edition: Edition) -> str:
        """Say what stays."""
        return f"{self.place} stays an ordinary table: {edition} PostgreSQL has no hypertables"

    def statements(self) -> list[str]:
        """Return its SQL."""
        table = regclass(self.relation, self.schema)
        options = ["create_default_indexes => false", "if_not_exists => true"]
        if self.migrate_data:
            options.append("migrate_data => true")
        by_time = f"by_range({literal(self.time_column)}, {interval(self.chunk_interval)})"
        made = [f"SELECT create_hypertable({table}, {by_time}, {', '.join(options)})"]
        if self.space_column is not None:
            by_hash = f"by_hash({literal(self.space_column)}, {self.partitions})"
            made.append(f"SELECT add_dimension({table}, {by_hash}, if_not_exists => true)")
        return made

    def reverse(self) -> TimescaleOp:
        """Return nothing to do where the table is dropped next, else what keeps its rows in an ordinary table."""
        if self.with_relation:
            return GoneWithRelationOp(self)
        return RevertHypertableOp(self.relation, schema=self.schema, former=self)


@Operations.register_operation("revert_hypertable")
@dataclass(frozen=True)
class RevertHypertableOp(TimescaleOp):
    """Make a hypertable an ordinary table again."""

    name = "revert_hypertable"
    needs = Feature.HYPERTABLES
    removes = True

    relation: str
    schema: str | None = field(default=None, kw_only=True)
    former: CreateHypertableOp | None = field(default=None, kw_only=True, repr=False, compare=False)

    @classmethod
    def revert_hypertable(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Copy a hypertable's rows into an ordinary table of its name.

        It has the same keys, checks, indexes, sequences, grants, owner, comments and storage options. TimescaleDB has
        no way back of its own, so this writes every row, under a lock. What would get lost by it is refused: triggers,
        row security, identity columns, publications, comments on keys and indexes, and whatever depends on the table,
        such as aggregates and foreign keys. Nothing happens to a table that is ordinary.

            op.revert_hypertable("trades")
        """
        operations.invoke(cls(table, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        return f"copy {self.place} back into an ordinary table"

    def statements(self) -> list[str]:
        """Return its SQL."""
        return [copied_back(self.relation, self.schema)]

    def reverse(self) -> CreateHypertableOp:
        """Return what made it one."""
        return known(self, self.former)


@Operations.register_operation("set_chunk_interval")
@dataclass(frozen=True)
class SetChunkIntervalOp(TimescaleOp):
    """Let the chunks to come be of another length."""

    name = "set_chunk_interval"
    needs = Feature.HYPERTABLES

    relation: str
    chunk_interval: timedelta
    schema: str | None = field(default=None, kw_only=True)
    before: timedelta | None = field(default=None, kw_only=True, repr=False, compare=False)

    @classmethod
    def set_chunk_interval(
        cls, operations: Operations, table: str, chunk_interval: timedelta, *, schema: str | None = None
    ) -> None:
        """Let the chunks to come be of another length; those that are there stay as they are.

            op.set_chunk_interval("trades", timedelta(hours=6))

        Reversed by setting the former length.
        """
        operations.invoke(cls(table, chunk_interval, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        former = f", not {spoken(self.before)}" if self.before else ""
        return f"let new chunks of {self.place} be of {spoken(self.chunk_interval)}{former}"

    def statements(self) -> list[str]:
        """Return its SQL."""
        return [
            f"SELECT set_chunk_time_interval({regclass(self.relation, self.schema)}, {interval(self.chunk_interval)})"
        ]

    def reverse(self) -> SetChunkIntervalOp:
        """Return the setting of the former length."""
        if self.before is None:
            raise ValueError(f"the former length of the chunks of {self.place} is not known")
        return replace(self, chunk_interval=self.before, before=self.chunk_interval)
