"""How `alembic revision --autogenerate` and `alembic check` see TimescaleDB, and how revisions write it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, ops
from alembic.util import PriorityDispatchResult
from sqlalchemy import MetaData, Table, text

from alembic_timescaledb import server
from alembic_timescaledb.compare import Differences, Scope
from alembic_timescaledb.declare import DECLARED, Order
from alembic_timescaledb.names import DeclarationError
from alembic_timescaledb.operations import EnableColumnstoreOp, GoneWithRelationOp, TimescaleOp, edition_of
from alembic_timescaledb.server import Edition

log = logging.getLogger(__name__)

_INTERNAL = {"timescaledb_information", "timescaledb_experimental"}
_TIME_INDEXES = (
    "SELECT c.relname FROM timescaledb_information.dimensions d"
    " JOIN pg_index i ON i.indrelid = to_regclass(format('%I.%I', d.hypertable_schema, d.hypertable_name))"
    " JOIN pg_class c ON c.oid = i.indexrelid"
    " WHERE d.dimension_number = 1 AND d.hypertable_name = :table"
    "  AND d.hypertable_schema = coalesce(CAST(:schema AS name), current_schema())"
    "  AND NOT i.indisunique AND i.indnatts <= 2 AND i.indpred IS NULL AND c.relname LIKE '%\\_idx'"
    "  AND pg_index_column_has_property(i.indexrelid, i.indnatts, 'desc')"
    "  AND pg_get_indexdef(i.indexrelid, i.indnatts, false) = quote_ident(d.column_name)"
)


def hide_internal_schemas(
    _context: AutogenContext, _upgrade: ops.UpgradeOps, schemas: set[str | None]
) -> PriorityDispatchResult:
    """Keep TimescaleDB's own schemas, with chunks and catalogs, from being compared."""
    schemas -= {name for name in schemas if name and (name.startswith("_timescaledb_") or name in _INTERNAL)}
    return PriorityDispatchResult.CONTINUE


def keep_time_indexes(
    context: AutogenContext, changes: ops.ModifyTableOps, schema: str | None, name: str, *_tables: object
) -> PriorityDispatchResult:
    """Keep the index that TimescaleDB added by itself when a table became a hypertable."""
    connection = context.connection
    dropped = any(isinstance(op, ops.DropIndexOp) for op in changes.ops)
    if connection is not None and dropped and server.edition(connection).has_hypertables:
        # A declared index of the same name takes its place.
        replaced = {op.index_name for op in changes.ops if isinstance(op, ops.CreateIndexOp)}
        own = set(connection.scalars(text(_TIME_INDEXES), {"schema": schema, "table": name})) - replaced
        changes.ops[:] = [op for op in changes.ops if not (isinstance(op, ops.DropIndexOp) and op.index_name in own)]
    return PriorityDispatchResult.CONTINUE


def compare_declarations(
    context: AutogenContext, upgrade: ops.UpgradeOps, schemas: set[str | None]
) -> PriorityDispatchResult:
    """Add the operations to the upgrade that make the server as the models declare; Alembic reverses them.

    Removals come before Alembic's own changes, as no column can be dropped that a columnstore names. The rest follows
    them, as it may need new columns.
    """
    if context.connection is None or context.metadata is None:
        return PriorityDispatchResult.CONTINUE
    retentions, scope = context.opts.get("timescale_retentions"), _scope(context, upgrade, schemas)
    differences = Differences(context.connection, context.metadata, retentions=retentions, scope=scope)
    edition = edition_of(context.migration_context)
    created = {(op.schema, op.table_name) for op in upgrade.ops if isinstance(op, ops.CreateTableOp)}
    new = {(table.schema, table.name): table for table in differences.tables() if _names(table, differences) & created}
    tables = [
        op
        for table in differences.tables()
        if table not in new.values()
        for op in _checked(differences.of_table(table), upgrade, _names(table, differences))
    ]
    views = list(differences.of_aggregates(lambda table: table not in new.values()))
    _tell_unseen([*tables, *views], edition)
    upgrade.ops[:] = [
        *differences.dropped_aggregates(),
        *(op for op in tables if op.removes and edition.has(op.needs)),
        *_beside_tables(upgrade.ops, new, differences),
        *(op for op in tables if not op.removes and edition.has(op.needs)),
        *(op for op in views if edition.has(op.needs)),
        *differences.of_aggregates(lambda table: table in new.values()),
    ]
    return PriorityDispatchResult.CONTINUE


def _tell_unseen(found: Iterable[TimescaleOp], edition: Edition) -> None:
    if unseen := sorted({op.needs for op in found if not edition.has(op.needs)}):
        log.warning(
            "the server's edition (%s) has no %s: changes of these in tables that exist are not seen here;"
            " generate revisions on TimescaleDB's Community edition",
            edition,
            ", ".join(unseen),
        )


def _checked(
    found: Iterable[TimescaleOp], upgrade: ops.UpgradeOps, names: set[tuple[str | None, str]]
) -> Iterator[TimescaleOp]:
    """Yield the operations. Raises DeclarationError if a columnstore changes together with columns that it names."""
    altered = (op for op in upgrade.ops if isinstance(op, ops.ModifyTableOps) and (op.schema, op.table_name) in names)
    changes = [change for op in altered for change in op.ops]
    dropped = {op.column_name for op in changes if isinstance(op, ops.DropColumnOp)}
    added = {op.column.name for op in changes if isinstance(op, ops.AddColumnOp)}
    for op in found:
        both = dropped & _named(op.former) | added & _named(op)
        if both and isinstance(op, EnableColumnstoreOp) and op.former is not None:
            raise DeclarationError(
                f"hypertable {op.place}: its columnstore changes together with columns that it names"
                f" ({', '.join(sorted(both))}); make two revisions: add a column before the columnstore names it, and"
                " drop a column after the columnstore names it no more"
            )
        yield op


def _named(op: TimescaleOp | None) -> set[str]:
    if not isinstance(op, EnableColumnstoreOp):
        return set()
    return {*op.segment_by, *(Order.parse(words).column for words in op.order_by)}


def _names(table: Table, differences: Differences) -> set[tuple[str | None, str]]:
    schema, name = differences.key(table)
    return {(table.schema, name), (schema, name), *([(None, name)] if schema == differences.found.schema else [])}


def _beside_tables(
    found: Sequence[MigrateOperation], new: dict[tuple[str | None, str], Table], differences: Differences
) -> Iterator[MigrateOperation]:
    for op in found:
        if isinstance(op, ops.DropTableOp):
            yield from differences.of_dropped_table(op.schema, op.table_name)
        yield op
        if isinstance(op, ops.CreateTableOp) and (op.schema, op.table_name) in new:
            op.info.pop(DECLARED, None)  # the operations that follow show it
            yield from differences.of_new_table(new[op.schema, op.table_name])


def _scope(context: AutogenContext, upgrade: ops.UpgradeOps, schemas: Iterable[str | None]) -> Scope:
    def has_table(table: Table) -> bool:
        return context.run_object_filters(table, table.name, "table", False, None)

    def has_view(schema: str | None, name: str) -> bool:
        if not context.run_name_filters(name, "table", {"schema_name": schema}):
            return False
        view = Table(name, MetaData(), schema=schema)
        context.inspector.reflect_table(view, include_columns=None)
        return context.run_object_filters(view, name, "table", True, None)

    dropped = frozenset((op.schema, op.table_name) for op in upgrade.ops if isinstance(op, ops.DropTableOp))
    return Scope(has_table, has_view, frozenset(schemas), dropped)


@renderers.dispatch_for(TimescaleOp)
def _render(context: AutogenContext, op: Any) -> str | list[str]:
    if isinstance(op, GoneWithRelationOp):
        return []
    context.imports.add("from datetime import timedelta")
    context.imports.add("import alembic_timescaledb.operations  # noqa: F401 # gives op its hypertables")
    arguments: list[str] = op.arguments()
    return f"op.{op.name}({', '.join(arguments)})"
