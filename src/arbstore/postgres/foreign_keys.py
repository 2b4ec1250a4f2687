"""Foreign keys checked once a batch instead of once a row, with the same guarantee.

The referenced rows are locked `FOR KEY SHARE`, as the triggers lock them, so that nobody deletes them before the end of
the transaction. Then `session_replication_role` switches the triggers off for this batch. Unique keys and checks are
not triggers: they still hold. Only a role that may set that parameter can do it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Table, any_, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

OPTION = "arbstore_batch_checked_foreign_keys"  # an execution option, of the engine or of a connection

_ROLE = "'session_replication_role'"

log = logging.getLogger(__name__)

# Each row is a reason to leave the triggers on. Lock the table first (ROW EXCLUSIVE), so that nobody adds a trigger.
_OBSTACLES = text(
    """
    WITH known AS (
        SELECT * FROM unnest(CAST(:keys AS text[]), CAST(:foreign_tables AS text[])) AS known (key, foreign_table)
    )
    SELECT 'the role may not set session_replication_role: GRANT SET ON PARAMETER session_replication_role TO '
           || quote_ident(current_user)
    WHERE NOT has_parameter_privilege('session_replication_role', 'SET')
    UNION ALL
    SELECT DISTINCT 'the role may not lock rows of ' || foreign_table || ': GRANT UPDATE ON ' || foreign_table || ' TO '
           || quote_ident(current_user)
    FROM known WHERE NOT has_any_column_privilege(foreign_table, 'UPDATE')
    UNION ALL
    SELECT 'the foreign key ' || key || ' refers to another table than ' || foreign_table
    FROM known
    LEFT JOIN pg_constraint ON conrelid = CAST(:table AS regclass) AND contype = 'f' AND conname = key
    WHERE confrelid IS DISTINCT FROM to_regclass(foreign_table)
    UNION ALL
    SELECT 'the table has a trigger of its own, ' || quote_ident(tgname)
    FROM pg_trigger LEFT JOIN pg_constraint ON pg_constraint.oid = tgconstraint
    WHERE tgrelid = CAST(:table AS regclass) AND tgname <> 'ts_insert_blocker'  -- TimescaleDB's: it never fires
    AND (tgconstraint = 0 OR contype <> 'f' OR conname <> ALL (CAST(:keys AS text[])))
    """
)


@asynccontextmanager
async def checked_once(
    connection: AsyncConnection, table: Table, columns: Mapping[str, Sequence[Any]]
) -> AsyncIterator[None]:
    """Check all references of the columns now, and switch the row-by-row check off inside the block.

    Enter it in a savepoint: an error rolls the parameter back. The check row by row stays on if the connection's
    execution options do not ask for this, or if a referenced row is missing. It also stays on if the role or the table
    does not allow this, which is logged once.
    """
    options = connection.sync_connection.get_execution_options() if connection.sync_connection is not None else {}
    asked = options.get(OPTION) and not options.get("schema_translate_map")  # the SQL below has the models' names
    if not asked or not await _may_be_skipped(connection, table):
        yield
        return
    for constraint in table.foreign_key_constraints:
        if not await _are_there(connection, constraint, columns):
            yield  # the trigger's error says which one is missing
            return
    before = await connection.scalar(text(f"SELECT current_setting({_ROLE}), set_config({_ROLE}, 'replica', true)"))
    yield
    await connection.execute(text(f"SELECT set_config({_ROLE}, :before, true)"), {"before": before})


async def _may_be_skipped(connection: AsyncConnection, table: Table) -> bool:
    preparer = connection.dialect.identifier_preparer
    name = preparer.format_table(table)
    await connection.execute(text(f"LOCK TABLE ONLY {name} IN ROW EXCLUSIVE MODE"))
    keys = {key.name: preparer.format_table(key.referred_table) for key in table.foreign_key_constraints}
    parameters = {"table": name, "keys": list(keys), "foreign_tables": list(keys.values())}
    obstacles = (await connection.scalars(_OBSTACLES, parameters)).all()
    for obstacle in obstacles:
        _warn_once(name, obstacle)
    return not obstacles


@lru_cache(maxsize=64)
def _warn_once(table: str, obstacle: str) -> None:
    log.warning("%s: foreign keys are checked row by row: %s", table, obstacle)


async def _are_there(
    connection: AsyncConnection, constraint: ForeignKeyConstraint, columns: Mapping[str, Sequence[Any]]
) -> bool:
    (column,) = constraint.column_keys
    (referred,) = (element.column for element in constraint.elements)
    wanted = sorted(set(columns[column]) - {None})  # a null refers to no row
    statement = select(referred).where(referred == any_(bindparam("wanted", type_=ARRAY(referred.type))))
    # ONLY leaves out tables that inherit from this one. The order keeps two writers of the same rows from a deadlock.
    statement = statement.with_hint(referred.table, "ONLY", "postgresql").order_by(referred)
    locked = statement.with_for_update(read=True, key_share=True)
    return len((await connection.scalars(locked, {"wanted": wanted})).all()) == len(wanted)
