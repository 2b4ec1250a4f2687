"""TimescaleDB's DDL as Alembic operations. Each is safe on every edition: what one lacks is logged."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from alembic.operations import MigrateOperation, Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.dialects import postgresql

from arbstore.timescale import catalog
from arbstore.timescale.catalog import Edition

log = logging.getLogger(__name__)


def edition_of(context: MigrationContext) -> Edition:
    """Return the edition that the migration runs on.

    It is what `context.configure(timescale_edition=...)` said, else what the server has, else, offline, the richest.
    """
    given: Edition | None = context.opts.get("timescale_edition")
    if given is not None:
        return given
    return Edition.COMMUNITY if context.connection is None else catalog.edition(context.connection)


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _interval(value: timedelta) -> str:
    seconds = value.total_seconds()
    return f"INTERVAL '{seconds:.0f} seconds'"


def _regclass(table: str, schema: str | None) -> str:
    quoted = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call] # untyped in SQLAlchemy
    return _literal(".".join(quoted(part) for part in (schema, table) if part))


@Operations.register_operation("create_hypertable")
class CreateHypertableOp(MigrateOperation):
    """Make an empty table a hypertable, without the index that TimescaleDB would add to it."""

    def __init__(self, table: str, time_column: str, chunk_interval: timedelta, schema: str | None = None) -> None:
        """Keep what was asked for."""
        self.table = table
        self.time_column = time_column
        self.chunk_interval = chunk_interval
        self.schema = schema

    @classmethod
    def create_hypertable(
        cls,
        operations: Operations,
        table: str,
        time_column: str,
        *,
        chunk_interval: timedelta,
        schema: str | None = None,
    ) -> None:
        """Issue `create_hypertable`; on plain PostgreSQL the table stays an ordinary one, and the log says so."""
        operations.invoke(cls(table, time_column, chunk_interval, schema))


@Operations.register_operation("add_retention_policy")
class AddRetentionPolicyOp(MigrateOperation):
    """Let the server drop chunks whose rows are all older than `drop_after`."""

    def __init__(self, table: str, drop_after: timedelta, schema: str | None = None) -> None:
        """Keep what was asked for."""
        self.table = table
        self.drop_after = drop_after
        self.schema = schema

    @classmethod
    def add_retention_policy(
        cls, operations: Operations, table: str, *, drop_after: timedelta, schema: str | None = None
    ) -> None:
        """Issue `add_retention_policy`; an edition without background jobs gets a line in the log instead."""
        operations.invoke(cls(table, drop_after, schema))


@Operations.register_operation("remove_retention_policy")
class RemoveRetentionPolicyOp(MigrateOperation):
    """Undo `add_retention_policy`."""

    def __init__(self, table: str, schema: str | None = None) -> None:
        """Keep what was asked for."""
        self.table = table
        self.schema = schema

    @classmethod
    def remove_retention_policy(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Issue `remove_retention_policy` where the edition has policies."""
        operations.invoke(cls(table, schema))


@Operations.implementation_for(CreateHypertableOp)
def _create_hypertable(operations: Operations, op: Any) -> None:
    found = edition_of(operations.get_context())
    if not found.has_hypertables:
        log.info("%s stays an ordinary table: %s PostgreSQL has no hypertables", op.table, found)
        return
    operations.execute(
        f"SELECT create_hypertable({_regclass(op.table, op.schema)},"
        f" by_range({_literal(op.time_column)}, {_interval(op.chunk_interval)}),"
        " create_default_indexes => false)"
    )


@Operations.implementation_for(AddRetentionPolicyOp)
def _add_retention_policy(operations: Operations, op: Any) -> None:
    found = edition_of(operations.get_context())
    if not found.has_policies:
        age = str(op.drop_after).removesuffix(", 0:00:00")
        log.info("%s gets no retention policy (%s): the %s edition runs no jobs", op.table, age, found)
        return
    operations.execute(
        f"SELECT add_retention_policy({_regclass(op.table, op.schema)}, drop_after => {_interval(op.drop_after)})"
    )


@Operations.implementation_for(RemoveRetentionPolicyOp)
def _remove_retention_policy(operations: Operations, op: Any) -> None:
    if edition_of(operations.get_context()).has_policies:
        operations.execute(f"SELECT remove_retention_policy({_regclass(op.table, op.schema)}, if_exists => true)")
