"""The upsert of many rows, given as columns and written in the order of their keys.

A small batch is one statement over arrays. A large one is copied into the table, inside a savepoint. If some of its
keys exist already, it is merged instead: from arrays, or from a temporary table if it is very large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import compress, count, islice
from operator import eq
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import (
    Column,
    ColumnElement,
    DateTime,
    DefaultClause,
    FromClause,
    Insert,
    Integer,
    MetaData,
    Select,
    Table,
    TableValuedAlias,
    and_,
    bindparam,
    case,
    column,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.schema import CreateTable, DropTable

from arbstore import models
from arbstore.errors import translated
from arbstore.postgres.copying import copy
from arbstore.postgres.foreign_keys import checked_once
from arbstore.records import Origin

# Measured: with so many rows, COPY and its savepoint cost less than one statement over arrays.
_WORTH_A_SAVEPOINT = 500
# If keys exist already, a temporary table costs less than arrays only with so many rows.
_WORTH_A_TABLE = 5_000
# A transaction with an old snapshot may not see how far minutes are closed.
_LEDGER = models.Ledger.__table__
_CLOSED_UNTIL = case(
    (func.current_setting("transaction_isolation") == "read committed", _LEDGER.c.closed_until),
    else_=literal_column("TIMESTAMPTZ 'infinity'"),
)
_MAY_CREATE_TEMPORARY = select(func.has_database_privilege(func.current_database(), "TEMPORARY"))


class InsertResult(NamedTuple):
    """The numbers of a batch's rows: `given` = `written` + `superseded`, the latter by a later row of the same key.

    `written` also counts rows that were stored already with equal values (to PostgreSQL, -0.0 equals 0.0), and
    unfinished candles that a stored complete one keeps out. `too_late` trades or quotes are stored, but the candles of
    their minutes (`too_late_minutes`) stay as they are, because the minutes' other rows are gone.
    """

    given: int
    written: int
    superseded: int
    too_late: int = 0
    too_late_minutes: int = 0

    def __add__(self, other: object) -> InsertResult:
        """Return the counts of two batches added up."""
        if not isinstance(other, InsertResult):
            return NotImplemented
        return InsertResult(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class _Rows(NamedTuple):
    """Rows of `table`, as columns; `order` has the numbers of the rows to write, sorted by their keys.

    In the columns named in `partly`, None stands for the server's default.
    """

    table: Table
    makes: Origin | None
    final: str | None
    columns: Mapping[str, Sequence[Any]]
    partly: frozenset[str]
    order: Sequence[int]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def arrays(self) -> dict[str, list[Any]]:
        return {name: [values[number] for number in self.order] for name, values in self.columns.items()}

    def merged_from(self, given: FromClause) -> Insert:
        """Return the upsert that reads these rows from `given`, which has columns of the same names."""
        return _merge(self.table, self.names, self.partly, given, self.final)


async def upsert(
    session: AsyncSession,
    table: Table,
    columns: Mapping[str, Sequence[Any]],
    *,
    makes: Origin | None = None,
    final: str | None = None,
) -> InsertResult:
    """Insert or update rows in the session's transaction and return how many; the last row of a key wins.

    A row in whose column `final` is false never replaces one that is final. `makes` is the origin of the candles that
    are made of the rows.

    The columns have equal lengths and checked values (see `records.columns`). None becomes the server's default if
    the column has one. A row whose values are stored already is left alone, and counts as written. If an error is
    raised, nothing of the batch is written.
    """
    key = [columns[column.name] for column in table.primary_key]
    total = len(key[0])
    if not total:
        return InsertResult(0, 0, 0)
    defaulted = {
        name: count
        for name, values in columns.items()
        if table.c[name].server_default is not None and (count := values.count(None))
    }
    given = {name: values for name, values in columns.items() if defaulted.get(name) != total}
    order = _order(key, None if final is None else columns[final])
    rows = _Rows(table, makes, final, given, frozenset(defaulted.keys() & given.keys()), order)
    with translated():
        late = await _write(session, rows)
    return InsertResult(total, len(rows.order), total - len(rows.order), *late)


def _order(key: Sequence[Sequence[Any]], final: Sequence[bool] | None) -> Sequence[int]:
    """Return the numbers of the rows, sorted by key; if rows have equal keys, only that of the last (final) one."""
    # Two writers that upsert the same keys in different orders deadlock. An index also grows faster in its own order.
    order: Sequence[int] = range(len(key[0]))
    if final is not None and not all(final):
        order = sorted(order, key=final.__getitem__)
    for values in reversed(key):
        order = sorted(order, key=values.__getitem__)
    # Neighbours rarely have an equal last column (the time), so that few keys have to be compared in full.
    last = list(map(key[-1].__getitem__, order))
    candidates = compress(count(), map(eq, last, islice(last, 1, None)))
    pairs = [(order[place], order[place + 1]) for place in candidates]
    # The sorts are stable: rows with equal keys are still in the order in which they were given.
    superseded = {one for one, other in pairs if all(values[one] == values[other] for values in key)}
    return [number for number in order if number not in superseded] if superseded else order


async def _write(session: AsyncSession, rows: _Rows) -> Sequence[int]:
    """Write the rows; return how many came too late for how many minutes, or nothing."""
    if len(rows.order) >= _WORTH_A_SAVEPOINT:
        connection = await session.connection(bind_arguments={"clause": rows.table})
        raw = await connection.get_raw_connection()
        # In autocommit mode there are no savepoints, and each statement is atomic by itself.
        if not raw.dbapi_connection.autocommit:  # type: ignore[union-attr] # SQLAlchemy's adapter of asyncpg
            if not await _copied(connection, rows):
                async with connection.begin_nested():
                    await _merge_into(connection, rows)
            return () if rows.makes is None else await _marked(connection, rows, rows.makes)
    merged = rows.merged_from(_unnested(rows.table, rows.names))
    if rows.makes is None:
        await session.execute(merged, rows.arrays())
        return ()
    return tuple(
        (await session.execute(_marking(rows.table, rows.names, rows.partly, rows.makes), rows.arrays())).one()
    )


async def _marked(connection: AsyncConnection, rows: _Rows, makes: Origin) -> Sequence[int]:
    """Mark the minutes of late rows that were written already."""
    times = rows.columns["timestamp"]
    until = await connection.scalar(select(_CLOSED_UNTIL).where(_LEDGER.c.origin == makes))
    if min(times) >= until:
        return ()
    late = [number for number in rows.order if times[number] < until]
    given = {name: [rows.columns[name][number] for number in late] for name in ("symbol_id", "timestamp")}
    return tuple((await connection.execute(select(_mark_late(literal(makes.value))), given)).one())


async def _copied(connection: AsyncConnection, rows: _Rows) -> bool:
    """Copy the rows into the table; return False, and leave nothing behind, if they need an upsert."""
    # COPY cannot leave a column to the server in some of the rows.
    if rows.partly or await _ends_exist(connection, rows):
        return False
    try:
        async with connection.begin_nested(), checked_once(connection, rows.table, rows.columns):
            return await copy(connection, rows.table, rows.columns, rows.order)
    except (asyncpg.UniqueViolationError, asyncpg.FeatureNotSupportedError):  # the latter with row-level security
        return False


async def _ends_exist(connection: AsyncConnection, rows: _Rows) -> bool:
    """Whether the table has the first or the last key already, as in a replay or an overlapping window.

    To know this early saves a COPY that would fail.
    """
    key = rows.table.primary_key.columns
    ends = [tuple(rows.columns[column.name][number] for column in key) for number in (rows.order[0], rows.order[-1])]
    return bool(await connection.scalar(select(exists().where(tuple_(*key).in_(ends)))))


async def _merge_into(connection: AsyncConnection, rows: _Rows) -> None:
    if len(rows.order) < _WORTH_A_TABLE or not await connection.scalar(_MAY_CREATE_TEMPORARY):
        await connection.execute(rows.merged_from(_unnested(rows.table, rows.names)), rows.arrays())
        return
    given = _temporary(rows.table, rows.names, rows.partly)
    await connection.execute(CreateTable(given))
    await copy(connection, given, rows.columns, rows.order)
    await connection.execute(rows.merged_from(given))
    await connection.execute(DropTable(given))


@lru_cache(maxsize=64)
def _temporary(table: Table, names: tuple[str, ...], partly: frozenset[str]) -> Table:
    kinds = [table.c[name] for name in names]
    columns = [Column(kind.name, kind.type, nullable=kind.nullable or kind.name in partly) for kind in kinds]
    # The schema is given because a table of the user's may have the same name, and come first on the search path.
    named = MetaData(schema="pg_temp")
    return Table(f"arbstore_{table.name}"[:63], named, *columns, prefixes=["TEMPORARY"], postgresql_on_commit="DROP")


@lru_cache(maxsize=64)
def _unnested(table: Table, names: tuple[str, ...]) -> FromClause:
    arrays = [bindparam(name, type_=ARRAY(table.c[name].type)) for name in names]
    columns = [column(name, table.c[name].type) for name in names]
    return func.unnest(*arrays).table_valued(*columns, name="given").render_derived()


@lru_cache(maxsize=64)
def _marking(table: Table, names: tuple[str, ...], partly: frozenset[str], makes: Origin) -> Select[Any]:
    """Return one statement that writes the rows and marks late ones."""
    written = _merge(table, names, partly, _unnested(table, names), None).returning(literal(1)).cte("written")
    # The function must be called after the rows are written: only then does it see all that they waited for.
    count = select(func.count().label("rows")).select_from(written).subquery("count")
    late = _mark_late(case((count.c.rows >= 0, makes.value))).lateral()
    return select(*late.c).select_from(count.join(late, true()))


def _mark_late(makes: ColumnElement[str]) -> TableValuedAlias:
    arrays = bindparam("symbol_id", type_=ARRAY(Integer)), bindparam("timestamp", type_=ARRAY(DateTime(timezone=True)))
    return func.arbstore_mark_late(makes, *arrays).table_valued("too_late", "too_late_minutes", name="late")


@lru_cache(maxsize=128)
def _merge(
    table: Table, names: tuple[str, ...], partly: frozenset[str], given: FromClause, final: str | None
) -> Insert:
    defaults = {name: _default(table.c[name]) for name in partly}
    values = [func.coalesce(given.c[name], defaults[name]) if name in partly else given.c[name] for name in names]
    statement = insert(table).from_select(names, select(*values))
    kept = {column.name: statement.excluded[column.name] for column in table.c if not column.primary_key}
    # A row whose values are stored already is not written again: that costs half as much, and leaves no dead row.
    differs = [
        and_(new.is_distinct_from(table.c[name]), *([new.is_distinct_from(defaults[name])] if name in partly else []))
        for name, new in kept.items()
        if name in names
    ]
    may = or_(*differs)
    if final is not None:
        may &= statement.excluded[final] >= table.c[final]
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=kept, where=may)


def _default(column: Column[Any]) -> Any:
    assert isinstance(column.server_default, DefaultClause), column  # noqa: S101 # not an identity, nor computed
    return column.server_default.arg
