"""What the models declare and a server lacks, or has otherwise: as operations that would make them equal.

`compare` gives those that the server's edition can do, `missing` those that it cannot: together they are the record of
all that is not as declared. `alembic revision --autogenerate` writes the first, and `alembic check` reports them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, Table

from alembic_timescaledb import server
from alembic_timescaledb.aggregate import ContinuousAggregate, Refresh, aggregates
from alembic_timescaledb.declare import Columnstore, Hypertable, check, declared
from alembic_timescaledb.operations import (
    AddColumnstorePolicyOp,
    AddContinuousAggregatePolicyOp,
    AddRetentionPolicyOp,
    CreateContinuousAggregateOp,
    CreateHypertableOp,
    DisableColumnstoreOp,
    EnableColumnstoreOp,
    GoneWithRelationOp,
    RevertHypertableOp,
    SetChunkIntervalOp,
    SetMaterializedOnlyOp,
    TimescaleOp,
)
from alembic_timescaledb.server import (
    AggregateFound,
    ColumnstoreState,
    Dimensions,
    HypertableFound,
    Key,
    PolicyState,
    ServerState,
    edition,
    state,
)

Retentions = Mapping[str, timedelta | None]  # by the table's name as MetaData has it: `table` or `schema.table`


def compare(
    connection: Connection, metadata: MetaData | Sequence[MetaData], *, retentions: Retentions | None = None
) -> list[TimescaleOp]:
    """Return what makes the server as declared, in the order in which to do it; empty where it is.

    `str()` of an operation says it to people, `op.removes` whether something of the server's goes, `op.reverse()` is
    the way back. `retentions` win over what the models declare, for those set on the running server; None keeps for
    good. Tables that are not there are left to Alembic. Raises DeclarationError.
    """
    found = edition(connection)
    differences = Differences(connection, metadata, retentions=retentions)
    return [op for op in differences.all() if found.has(op.needs)]


def missing(connection: Connection, metadata: MetaData | Sequence[MetaData]) -> list[TimescaleOp]:
    """Return what is declared and the server's edition cannot do; empty on the richest. Raises DeclarationError."""
    found = edition(connection)
    return [op for op in Differences(connection, metadata).all() if not found.has(op.needs)]


def apply(connection: Connection, ops: Iterable[TimescaleOp]) -> None:
    """Do what `compare` returned, in the connection's transaction, whose commit is the caller's."""
    operations = Operations(MigrationContext.configure(connection))
    for op in ops:
        operations.invoke(op)


@dataclass(frozen=True)
class Scope:
    """What of models and server is compared; `schemas` None are those that something is declared in.

    A None among the schemas, or as that of a view, is the default one. What is over the tables of `dropped` goes too.
    """

    has_table: Callable[[Table], bool] = lambda _table: True
    has_view: Callable[[str | None, str], bool] = lambda _schema, _name: True
    schemas: frozenset[str | None] | None = None
    dropped: frozenset[tuple[str | None, str]] = frozenset()


class Differences:
    """Declarations beside a server's state."""

    def __init__(
        self,
        connection: Connection,
        metadata: MetaData | Sequence[MetaData],
        *,
        retentions: Retentions | None = None,
        scope: Scope | None = None,
    ) -> None:
        """Read the server's state. Raises DeclarationError."""
        self.metadatas = [metadata] if isinstance(metadata, MetaData) else list(metadata)
        for one in self.metadatas:
            check(one)
        self.connection = connection
        self.found: ServerState = state(connection)
        self.retentions = retentions or {}
        self.scope = scope or Scope()

    def all(self) -> Iterator[TimescaleOp]:
        """Yield all of it."""
        yield from self.dropped_aggregates()
        for table in self.tables():
            if self.key(table) in self.found.tables:
                yield from self.of_table(table)
        yield from self.of_aggregates(lambda table: self.key(table) in self.found.tables)

    def key(self, table: Table) -> Key:
        """Return schema and name, the default schema filled in."""
        return table.schema or self.found.schema, table.name

    def tables(self) -> Iterator[Table]:
        """Yield the declared tables that count, in order of dependency."""
        for metadata in self.metadatas:
            yield from filter(self.scope.has_table, metadata.sorted_tables)

    def of_new_table(self, table: Table) -> list[TimescaleOp]:
        """Return what follows the creation of a table."""
        wanted = declared(table)
        return [] if wanted is None else list(self._made(table, wanted, with_relation=True))

    def of_dropped_table(self, schema: str | None, name: str) -> list[TimescaleOp]:
        """Return what goes with a table, so that the way back makes a hypertable of it again."""
        found = self.found.hypertables.get((schema or self.found.schema, name))
        if found is None:
            return []
        made = _creation(schema, name, found.dimensions, with_relation=True)
        there = Settings(name, schema, found.columnstore, found.policies, with_relation=True)
        return [*changes(there, there.without()), made.reverse()]

    def of_table(self, table: Table) -> Iterator[TimescaleOp]:
        """Yield the differences of a table that is there."""
        wanted, found = declared(table), self.found.hypertables.get(self.key(table))
        if found is None:
            if wanted is not None:
                yield from self._made(table, wanted)
        elif wanted is None:
            yield from _reverted(table, found)
        elif self._is_remade(wanted, found):
            yield from _reverted(table, found)
            yield from self._made(table, wanted)
        else:
            now = found.dimensions.chunk_interval
            if now != wanted.chunk_interval:
                yield SetChunkIntervalOp(table.name, wanted.chunk_interval, schema=table.schema, before=now)
            there = Settings(table.name, table.schema, found.columnstore, found.policies)
            yield from changes(there, self._wanted(table, wanted))

    def columnstore_after(self, table: Table) -> timedelta | None:
        """Return the age of the columnstore's policy that the table has on the server."""
        found = self.found.hypertables.get(self.key(table))
        return None if found is None else found.policies.columnstore_after

    def _made(self, table: Table, wanted: Hypertable, *, with_relation: bool = False) -> Iterator[TimescaleOp]:
        dimensions = Dimensions(wanted.time_column, wanted.chunk_interval, wanted.space)
        yield _creation(table.schema, table.name, dimensions, with_relation=with_relation)
        settings = self._wanted(table, wanted, with_relation=with_relation)
        yield from changes(settings.without(), settings)

    def _wanted(self, table: Table, wanted: Hypertable, *, with_relation: bool = False) -> Settings:
        retention = self.retentions.get(table.key, wanted.retention)
        return Settings(
            table.name,
            table.schema,
            columnstore_state(wanted.columnstore, wanted.time_column),
            PolicyState(retention, wanted.columnstore.after if wanted.columnstore else None),
            with_relation=with_relation,
        )

    def dropped_aggregates(self) -> Iterator[TimescaleOp]:
        """Yield the end of aggregates that are declared no more, or otherwise: those stacked on others first."""
        for found in reversed(list(self.found.aggregates.values())):
            if found.key in self.stale:
                schema = self._written(found.schema)
                there = _settings_of_aggregate(found, schema, with_relation=True)
                yield from changes(there, there.without())
                yield _created(found, schema).reverse()

    def of_aggregates(self, is_there: Callable[[Table], bool]) -> Iterator[TimescaleOp]:
        """Yield the differences of the declared aggregates whose tables are there, and the creation of the lacking."""
        for wanted in self.aggregates():
            if is_there(wanted.root):
                yield from self._of_aggregate(wanted)

    def aggregates(self) -> Iterator[ContinuousAggregate]:
        """Yield the declared aggregates that count, each after the one that it is stacked on."""
        for metadata in self.metadatas:
            yield from (one for one in aggregates(metadata) if self.scope.has_table(one.table))

    def _of_aggregate(self, wanted: ContinuousAggregate) -> Iterator[TimescaleOp]:
        key = self.key(wanted.table)
        found = self.found.aggregates.get(key)
        after = wanted.columnstore.after if wanted.columnstore else None
        settings = Settings(
            wanted.name,
            wanted.schema,
            columnstore_state(wanted.columnstore, wanted.time_column),
            PolicyState(self.retentions.get(wanted.table.key, wanted.retention), after, wanted.refresh),
            aggregate=True,
        )
        if found is None or key in self.stale:
            yield CreateContinuousAggregateOp(
                wanted.name,
                wanted.sql,
                chunk_interval=wanted.chunk_interval,
                materialized_only=wanted.materialized_only,
                schema=wanted.schema,
            )
            settings = replace(settings, with_relation=True)
            yield from changes(settings.without(), settings)
            return
        length = found.chunk_interval
        if wanted.chunk_interval not in (None, length):
            yield SetChunkIntervalOp(wanted.name, wanted.chunk_interval, schema=wanted.schema, before=length)
        if found.materialized_only != wanted.materialized_only:
            yield SetMaterializedOnlyOp(wanted.name, wanted.materialized_only, schema=wanted.schema)
        yield from changes(_settings_of_aggregate(found, wanted.schema), settings)

    @cached_property
    def stale(self) -> frozenset[Key]:
        """The server's aggregates that are not as declared, and those over what goes or is made anew."""
        wanted = {self.key(one.table): one for one in self.aggregates()}
        going = {self.key(table) for table in self.tables() if self._is_remade_or_reverted(table)}
        going |= {(schema or self.found.schema, name) for schema, name in self.scope.dropped}
        stale = set()
        for found in self.found.aggregates.values():
            if found.source in going or self._is_other(found, wanted.get(found.key)):
                stale.add(found.key)
                going.add(found.stored_in)
        return frozenset(stale)

    def _is_other(self, found: AggregateFound, wanted: ContinuousAggregate | None) -> bool:
        if wanted is None:
            return found.schema in self._schemas and self.scope.has_view(self._written(found.schema), found.name)
        return server.canonical(self.connection, wanted.sql) != found.definition

    def _written(self, schema: str) -> str | None:
        """Return the schema as Alembic and revisions have it: None is the default one."""
        return None if schema == self.found.schema else schema

    @cached_property
    def _schemas(self) -> frozenset[str]:
        if self.scope.schemas is not None:
            return frozenset(name or self.found.schema for name in self.scope.schemas)
        declared_in = {self.key(table)[0] for table in self.tables()}
        return frozenset(declared_in | {self.key(one.table)[0] for one in self.aggregates()})

    def _is_remade_or_reverted(self, table: Table) -> bool:
        found, wanted = self.found.hypertables.get(self.key(table)), declared(table)
        return found is not None and (wanted is None or self._is_remade(wanted, found))

    def _is_remade(self, wanted: Hypertable, found: HypertableFound) -> bool:
        return (wanted.time_column, wanted.space) != (found.dimensions.time_column, found.dimensions.space)


def _creation(schema: str | None, name: str, split: Dimensions, *, with_relation: bool = False) -> CreateHypertableOp:
    return CreateHypertableOp(
        name,
        split.time_column,
        chunk_interval=split.chunk_interval,
        space_column=split.space.column if split.space else None,
        partitions=split.space.partitions if split.space else None,
        migrate_data=not with_relation,
        schema=schema,
        with_relation=with_relation,
    )


def _reverted(table: Table, found: HypertableFound) -> Iterator[TimescaleOp]:
    there = Settings(table.name, table.schema, found.columnstore, found.policies, with_relation=True)
    yield from changes(there, there.without())
    made = _creation(table.schema, table.name, found.dimensions)
    yield RevertHypertableOp(table.name, schema=table.schema, former=made)


def _created(found: AggregateFound, schema: str | None) -> CreateContinuousAggregateOp:
    return CreateContinuousAggregateOp(
        found.name,
        found.definition.strip(),
        chunk_interval=found.chunk_interval,
        materialized_only=found.materialized_only,
        schema=schema,
    )


def _settings_of_aggregate(found: AggregateFound, schema: str | None, *, with_relation: bool = False) -> Settings:
    return Settings(found.name, schema, found.columnstore, found.policies, aggregate=True, with_relation=with_relation)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one relation; `with_relation` says that it is made, or dropped, in the same breath."""

    relation: str
    schema: str | None
    columnstore: ColumnstoreState | None
    policies: PolicyState
    aggregate: bool = False
    with_relation: bool = False

    def without(self) -> Settings:
        """Return the same relation with nothing set."""
        return replace(self, columnstore=None, policies=PolicyState())


def columnstore_state(wanted: Columnstore | None, time_column: str) -> ColumnstoreState | None:
    """Return what a server with the declared columnstore says of it."""
    return None if wanted is None else ColumnstoreState(tuple(wanted.segment_by), wanted.ordered(time_column))


def changes(before: Settings, after: Settings) -> Iterator[TimescaleOp]:
    """Yield the steps from one to the other: what goes, then what comes; a policy is changed by a new one."""
    old, new = before.policies, after.policies
    if old.refresh is not None and old.refresh != new.refresh:
        yield _refresh(before, old.refresh).reverse()
    if old.retention is not None and old.retention != new.retention:
        yield AddRetentionPolicyOp(before.relation, drop_after=old.retention, schema=before.schema).reverse()
    if old.columnstore_after is not None and old.columnstore_after != new.columnstore_after:
        yield AddColumnstorePolicyOp(before.relation, after=old.columnstore_after, schema=before.schema).reverse()
    yield from _columnstore_changes(before, after)
    if new.columnstore_after is not None and old.columnstore_after != new.columnstore_after:
        yield AddColumnstorePolicyOp(after.relation, after=new.columnstore_after, schema=after.schema)
    if new.retention is not None and old.retention != new.retention:
        yield AddRetentionPolicyOp(after.relation, drop_after=new.retention, schema=after.schema)
    if new.refresh is not None and old.refresh != new.refresh:
        yield _refresh(after, new.refresh)


def _columnstore_changes(before: Settings, after: Settings) -> Iterator[TimescaleOp]:
    if before.columnstore == after.columnstore:
        return
    there = None if before.columnstore is None else _enabled(before, before.columnstore)
    if after.columnstore is not None:
        yield replace(_enabled(after, after.columnstore), former=there)
    elif there is not None and before.with_relation:
        yield GoneWithRelationOp(there)
    elif there is not None:
        yield DisableColumnstoreOp(there.relation, aggregate=there.aggregate, schema=there.schema, former=there)


def _enabled(settings: Settings, columnstore: ColumnstoreState) -> EnableColumnstoreOp:
    return EnableColumnstoreOp(
        settings.relation,
        segment_by=columnstore.segment_by,
        order_by=tuple(map(str, columnstore.order_by)),
        aggregate=settings.aggregate,
        schema=settings.schema,
        with_relation=settings.with_relation,
    )


def _refresh(settings: Settings, refresh: Refresh) -> AddContinuousAggregatePolicyOp:
    return AddContinuousAggregatePolicyOp(
        settings.relation,
        start_offset=refresh.start_offset,
        end_offset=refresh.end_offset,
        every=refresh.every,
        schema=settings.schema,
    )
