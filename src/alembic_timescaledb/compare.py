"""Differences between the models' declarations and a server, as operations that would remove them.

`compare` returns the operations that the server's edition can do, `missing` those that it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, NamedTuple

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, Table

from alembic_timescaledb import operations as ops
from alembic_timescaledb import server
from alembic_timescaledb.aggregate import ContinuousAggregate, aggregates
from alembic_timescaledb.catalog import AggregateState, ColumnstoreState, HypertableState, Key, Managed, Settings
from alembic_timescaledb.declare import Hypertable, check, declared

Retentions = Mapping[str, timedelta | None]  # by the table's name as MetaData has it: `table` or `schema.table`


def compare(
    connection: Connection, metadata: MetaData | Sequence[MetaData], *, retentions: Retentions | None = None
) -> list[ops.TimescaleOp]:
    """Return the operations that make the server as declared, in the order in which to do them.

    `str()` of an operation tells people what it does. `op.removes` says whether it takes something away from the
    server. `op.reverse()` is the way back. `retentions` are the ones set on the running server: they win over the
    models' own, and None keeps all rows. Tables that are not there are left to Alembic. Raises DeclarationError.
    """
    found = server.edition(connection)
    return [op for op in Differences(connection, metadata, retentions=retentions).all() if found.has(op.needs)]


def missing(connection: Connection, metadata: MetaData | Sequence[MetaData]) -> list[ops.TimescaleOp]:
    """Return the declared operations that the server's edition cannot do. Raises DeclarationError."""
    found = server.edition(connection)
    return [op for op in Differences(connection, metadata).all() if not found.has(op.needs)]


def apply(connection: Connection, differences: Iterable[ops.TimescaleOp]) -> None:
    """Do the operations that `compare` returned, in the connection's transaction; the caller commits."""
    operations = Operations(MigrationContext.configure(connection))
    for op in differences:
        operations.invoke(op)


@dataclass(frozen=True)
class Scope:
    """The part of models and server that is compared.

    `schemas` None are those in which something is declared; a None among them, or as that of a view, is the default
    schema. Aggregates over the tables of `dropped` go too.
    """

    has_table: Callable[[Table], bool] = lambda _table: True
    has_view: Callable[[str | None, str], bool] = lambda _schema, _name: True
    schemas: frozenset[str | None] | None = None
    dropped: frozenset[tuple[str | None, str]] = frozenset()


class Relation(NamedTuple):
    """The table or aggregate that settings are of; `with_relation` says that they come or go together with it."""

    relation: str
    schema: str | None
    aggregate: bool = False
    with_relation: bool = False


@dataclass(eq=False)
class Differences:
    """The declarations beside a server's state, which is read at once. Raises DeclarationError."""

    connection: Connection
    metadata: MetaData | Sequence[MetaData]
    retentions: Retentions | None = None
    scope: Scope = Scope()

    def __post_init__(self) -> None:
        """Check the declarations and read the server's state."""
        self.metadatas = [self.metadata] if isinstance(self.metadata, MetaData) else list(self.metadata)
        for one in self.metadatas:
            check(one)
        self.found = server.state(self.connection)

    def all(self) -> Iterator[ops.TimescaleOp]:
        """Yield all differences."""
        yield from self.dropped_aggregates()
        for table in self.tables():
            if self.key(table) in self.found.tables:
                yield from self.of_table(table)
        yield from self.of_aggregates(lambda table: self.key(table) in self.found.tables)

    def key(self, table: Table) -> Key:
        """Return schema and name, the default schema filled in."""
        return table.schema or self.found.schema, table.name

    def tables(self) -> Iterator[Table]:
        """Yield the declared tables within the scope, in order of dependency."""
        for metadata in self.metadatas:
            yield from filter(self.scope.has_table, metadata.sorted_tables)

    def aggregates(self) -> Iterator[ContinuousAggregate]:
        """Yield the declared aggregates within the scope, each after the one that it is stacked on."""
        for metadata in self.metadatas:
            yield from (one for one in aggregates(metadata) if self.scope.has_table(one.table))

    def of_new_table(self, table: Table, *, with_relation: bool = True) -> Iterator[ops.TimescaleOp]:
        """Yield the operations that make a table as declared; by default they come with its creation."""
        if (wanted := declared(table)) is not None:
            relation = Relation(table.name, table.schema, with_relation=with_relation)
            yield _creation(relation, wanted)
            yield from changes(relation, Settings(), self._wanted(table, wanted))

    def of_dropped_table(self, schema: str | None, name: str) -> list[ops.TimescaleOp]:
        """Return the operations whose reverse makes a hypertable again of a dropped one."""
        if (found := self.found.hypertables.get((schema or self.found.schema, name))) is None:
            return []
        relation = Relation(name, schema, with_relation=True)
        return [*changes(relation, found.settings, Settings()), _creation(relation, found).reverse()]

    def of_table(self, table: Table) -> Iterator[ops.TimescaleOp]:
        """Yield the differences of an existing table."""
        wanted, found = declared(table), self.found.hypertables.get(self.key(table))
        relation = Relation(table.name, table.schema)
        if found is not None and self._is_reverted(table):
            yield from changes(relation._replace(with_relation=True), found.settings, Settings())
            yield _creation(relation, found).reverse()
            found = None
        if found is None:
            yield from self.of_new_table(table, with_relation=False)
        elif wanted is not None:
            yield from _chunk_interval(found, wanted.chunk_interval, table.schema)
            yield from changes(relation, found.settings, self._wanted(table, wanted))

    def _wanted(self, table: Table, wanted: Hypertable | ContinuousAggregate) -> Settings:
        retention = (self.retentions or {}).get(table.key, wanted.retention)
        if isinstance(wanted, ContinuousAggregate):
            settings = Settings(retention_policy=retention, refresh=wanted.refresh)
        elif wanted.retention_job is not None:
            settings = Settings(retention_job=wanted.retention_job, drop_after=retention)
        else:
            settings = Settings(retention_policy=retention)
        if (store := wanted.columnstore) is None:
            return settings
        columnstore = ColumnstoreState(tuple(store.segment_by), store.ordered(wanted.time_column))
        return replace(settings, columnstore=columnstore, columnstore_after=store.after)

    def dropped_aggregates(self) -> Iterator[ops.TimescaleOp]:
        """Yield the end of undeclared and changed aggregates: an aggregate goes after those stacked on it."""
        for found in reversed(list(self.found.aggregates.values())):
            if found.key in self.stale:
                schema = self._written(found.schema)
                relation = Relation(found.name, schema, aggregate=True, with_relation=True)
                yield from changes(relation, found.settings, Settings())
                yield _created(found, found.definition.strip(), schema).reverse()

    def of_aggregates(self, is_there: Callable[[Table], bool]) -> Iterator[ops.TimescaleOp]:
        """Yield the differences of the declared aggregates whose hypertable is there."""
        for wanted in self.aggregates():
            if is_there(wanted.root):
                yield from self._of_aggregate(wanted)

    def _of_aggregate(self, wanted: ContinuousAggregate) -> Iterator[ops.TimescaleOp]:
        key = self.key(wanted.table)
        found = self.found.aggregates.get(key)
        settings = self._wanted(wanted.table, wanted)
        relation = Relation(wanted.name, wanted.schema, aggregate=True)
        if found is None or key in self.stale:
            yield _created(wanted, wanted.sql, wanted.schema)
            yield from changes(relation._replace(with_relation=True), Settings(), settings)
            return
        if wanted.chunk_interval is not None:
            yield from _chunk_interval(found, wanted.chunk_interval, wanted.schema)
        if found.materialized_only != wanted.materialized_only:
            yield ops.SetMaterializedOnlyOp(wanted.name, wanted.materialized_only, schema=wanted.schema)
        yield from changes(relation, found.settings, settings)

    @cached_property
    def stale(self) -> frozenset[Key]:
        """The server's aggregates that differ from their declarations, and those over relations that go."""
        wanted = {self.key(one.table): one for one in self.aggregates()}
        going = {self.key(table) for table in self.tables() if self._is_reverted(table)}
        going |= {(schema or self.found.schema, name) for schema, name in self.scope.dropped}
        stale = set()
        for found in self.found.aggregates.values():
            if found.source in going or self._is_other(found, wanted.get(found.key)):
                stale.add(found.key)
                going.add(found.stored_in)
        return frozenset(stale)

    def _is_other(self, found: AggregateState, wanted: ContinuousAggregate | None) -> bool:
        if wanted is None:
            return found.schema in self._schemas and self.scope.has_view(self._written(found.schema), found.name)
        return server.canonical(self.connection, wanted.sql) != found.definition

    def _written(self, schema: str) -> str | None:
        """Return the schema as revisions write it: None is the default one."""
        return None if schema == self.found.schema else schema

    @cached_property
    def _schemas(self) -> frozenset[str]:
        declared_in = {table.schema for table in (*self.tables(), *(one.table for one in self.aggregates()))}
        schemas = declared_in if self.scope.schemas is None else self.scope.schemas
        return frozenset(name or self.found.schema for name in schemas)

    def _is_reverted(self, table: Table) -> bool:
        """Whether the hypertable must become an ordinary table, which TimescaleDB cannot do."""
        found, wanted = self.found.hypertables.get(self.key(table)), declared(table)
        return found is not None and (wanted is None or wanted.time_column != found.time_column)


def _creation(relation: Relation, split: Hypertable | HypertableState) -> ops.CreateHypertableOp:
    return ops.CreateHypertableOp(
        relation.relation,
        split.time_column,
        chunk_interval=split.chunk_interval,
        migrate_data=not relation.with_relation,
        schema=relation.schema,
        with_relation=relation.with_relation,
    )


def _created(view: ContinuousAggregate | AggregateState, query: str, schema: str | None) -> ops.TimescaleOp:
    options: dict[str, Any] = {"chunk_interval": view.chunk_interval, "materialized_only": view.materialized_only}
    return ops.CreateContinuousAggregateOp(view.name, query, schema=schema, **options)


def _chunk_interval(found: Managed, wanted: timedelta, schema: str | None) -> Iterator[ops.TimescaleOp]:
    if found.chunk_interval != wanted:
        yield ops.SetChunkIntervalOp(found.name, wanted, schema=schema, before=found.chunk_interval)


def changes(relation: Relation, before: Settings, after: Settings) -> Iterator[ops.TimescaleOp]:
    """Yield the steps from one to the other: removals first. A policy is changed by removing and adding it."""
    yield from (op.reverse() for op in reversed(_policies(relation, before, unless=after)))
    if before.columnstore != after.columnstore:
        there, wanted = _columnstore(relation, before.columnstore), _columnstore(relation, after.columnstore)
        if wanted is not None:
            yield replace(wanted, former=there)
        elif there is not None:
            yield there.reverse()
    yield from _policies(relation, after, unless=before)


def _policies(relation: Relation, own: Settings, *, unless: Settings) -> list[ops.TimescaleOp]:
    """Return the policies of the settings that the others lack."""
    place: dict[str, Any] = {"relation": relation.relation, "schema": relation.schema}
    found: list[ops.TimescaleOp] = []
    if own.columnstore_after not in (None, unless.columnstore_after):
        found.append(ops.AddColumnstorePolicyOp(**place, after=own.columnstore_after))
    if own.retention_policy not in (None, unless.retention_policy):
        found.append(ops.AddRetentionPolicyOp(**place, drop_after=own.retention_policy))
    job = own.retention_job
    if job is not None and (job, own.drop_after) != (unless.retention_job, unless.drop_after):
        found.append(ops.AddRetentionJobOp(**place, **asdict(job), drop_after=own.drop_after))
    if own.refresh is not None and own.refresh != unless.refresh:
        found.append(ops.AddContinuousAggregatePolicyOp(**place, **asdict(own.refresh)))
    return found


def _columnstore(relation: Relation, settings: ColumnstoreState | None) -> ops.EnableColumnstoreOp | None:
    if settings is None:
        return None
    order_by = tuple(map(str, settings.order_by))
    return ops.EnableColumnstoreOp(**relation._asdict(), segment_by=settings.segment_by, order_by=order_by)
