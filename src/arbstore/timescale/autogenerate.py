"""What `alembic revision --autogenerate` writes for a table that declares a hypertable."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import CreateTableOp, DropTableOp, MigrateOperation, MigrationScript, OpContainer
from alembic.runtime.migration import MigrationContext

from arbstore.timescale.hypertable import DECLARED, Hypertable
from arbstore.timescale.operations import AddRetentionPolicyOp, CreateHypertableOp, RemoveRetentionPolicyOp


def add_hypertables(_context: MigrationContext, _revision: object, scripts: list[MigrationScript]) -> None:
    """Follow each new table by the operations that it declares; for `process_revision_directives`."""
    for script in scripts:
        declarations: dict[str, Hypertable] = {}
        for upgrade in script.upgrade_ops_list:
            upgrade.ops = list(_upgraded(upgrade, declarations))
        for downgrade in script.downgrade_ops_list:
            downgrade.ops = list(_downgraded(downgrade, declarations))


def _upgraded(container: OpContainer, declarations: dict[str, Hypertable]) -> Iterable[MigrateOperation]:
    for op in container.ops:
        yield op
        if isinstance(op, CreateTableOp) and (declared := op.info.pop(DECLARED, None)) is not None:
            declarations[op.table_name] = declared
            yield CreateHypertableOp(
                op.table_name, declared.time_column, chunk_interval=declared.chunk_interval, schema=op.schema
            )
            if declared.retention is not None:
                yield AddRetentionPolicyOp(op.table_name, drop_after=declared.retention, schema=op.schema)


def _downgraded(container: OpContainer, declarations: dict[str, Hypertable]) -> Iterable[MigrateOperation]:
    for op in container.ops:
        if isinstance(op, DropTableOp) and (declared := declarations.get(op.table_name)) and declared.retention:
            yield RemoveRetentionPolicyOp(op.table_name, schema=op.schema)
        yield op


def _call(context: AutogenContext, name: str, *values: str, schema: str | None, **options: timedelta) -> str:
    context.imports.add("from datetime import timedelta")
    context.imports.add("import arbstore.timescale.operations  # noqa: F401 # gives op its hypertables")
    words = [repr(value) for value in values]
    words += [f"{option}=timedelta(seconds={value.total_seconds():.0f})" for option, value in options.items()]
    if schema is not None:
        words.append(f"schema={schema!r}")
    return f"op.{name}({', '.join(words)})"


@renderers.dispatch_for(CreateHypertableOp)
def _render_create(context: AutogenContext, op: Any) -> str:
    interval = op.chunk_interval
    return _call(context, "create_hypertable", op.relation, op.time_column, schema=op.schema, chunk_interval=interval)


@renderers.dispatch_for(AddRetentionPolicyOp)
def _render_add_retention(context: AutogenContext, op: Any) -> str:
    return _call(context, "add_retention_policy", op.relation, schema=op.schema, drop_after=op.drop_after)


@renderers.dispatch_for(RemoveRetentionPolicyOp)
def _render_remove_retention(context: AutogenContext, op: Any) -> str:
    return _call(context, "remove_retention_policy", op.relation, schema=op.schema)
