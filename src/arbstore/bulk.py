"""The one way many rows are written: an upsert of whole columns, in the order of the key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Insert, Table, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from arbstore.errors import translated

# Bounds the memory of one statement: 50,000 book tickers are some 3 MB of parameters.
_ROWS_A_STATEMENT = 50_000


class InsertResult(NamedTuple):
    """What became of a batch: `given` = `written` + `superseded`, the latter by a later row of the same key."""

    given: int
    written: int
    superseded: int

    def __add__(self, other: object) -> InsertResult:
        """Return the counts of two batches together."""
        if not isinstance(other, InsertResult):
            return NotImplemented
        return InsertResult(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


async def upsert(session: AsyncSession, table: Table, columns: Mapping[str, Sequence[Any]]) -> InsertResult:
    """Write the columns' rows in the session's transaction; of equal keys the last row wins, here and in the table.

    The columns are equally long and checked already (see `records.columns`).
    """
    key = [columns[column.name] for column in table.primary_key]
    last = {values: number for number, values in enumerate(zip(*key, strict=True))}
    # Writers that upsert overlapping keys in different orders deadlock.
    order = [last[values] for values in sorted(last)]
    given = len(key[0])
    for part in _slices(order):
        rows = {name: [values[number] for number in part] for name, values in columns.items()}
        with translated():
            await session.execute(_statement(table, tuple(columns)), rows)
    return InsertResult(given, len(order), given - len(order))


def _slices(order: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(order), _ROWS_A_STATEMENT):
        yield order[start : start + _ROWS_A_STATEMENT]


@lru_cache(maxsize=64)
def _statement(table: Table, names: tuple[str, ...]) -> Insert:
    arrays = [bindparam(name, type_=ARRAY(table.c[name].type)) for name in names]
    rows = (
        func.unnest(*arrays)
        .table_valued(*(column(name, table.c[name].type) for name in names), name="given")
        .render_derived()
    )
    values = [_or_now(rows.c[name]) if name == "created_at" else rows.c[name] for name in names]
    statement = insert(table).from_select(names, select(*values))
    kept = {name: statement.excluded[name] for name in names if name not in table.primary_key.columns}
    return statement.on_conflict_do_update(constraint=table.primary_key, set_=kept)


def _or_now(given: Any) -> Any:
    return func.coalesce(given, func.now())
