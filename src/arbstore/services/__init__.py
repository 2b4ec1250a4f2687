"""Queries and writes over one session. Here is the base of all services; each other module is one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Executable, Result, Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from arbstore.cache import ReferenceCache
from arbstore.errors import translated
from arbstore.records import Record

R = TypeVar("R", bound=Record)
T = TypeVar("T")

_ISOLATION = func.current_setting("transaction_isolation").label("isolation")


class Service:
    """Queries and writes over one session. The owner of the session also owns its transaction."""

    def __init__(self, session: AsyncSession, cache: ReferenceCache) -> None:
        """Work in `session`, and look exchanges and symbols up in `cache` first."""
        self._session = session
        self._cache = cache

    async def _execute(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> Result[Any]:
        with translated():
            return await self._session.execute(statement, parameters)

    async def _on_connection(self, work: Callable[[Connection], T]) -> T:
        with translated():
            return await self._session.run_sync(lambda session: work(session.connection()))

    async def _records(self, kind: type[R], statement: Executable) -> list[R]:
        return as_records(kind, (await self._execute(statement)).all())

    async def _record(self, kind: type[R], statement: Executable) -> R | None:
        found = await self._records(kind, statement)
        return found[0] if found else None

    async def _current(self, kind: type[R], statement: Select[Any]) -> tuple[list[R], bool]:
        """Return the records, and whether they are the newest committed ones, so that the cache may keep them.

        A transaction that is REPEATABLE READ or SERIALIZABLE reads what was committed when it began. The server tells
        the isolation along with the rows; only an answer without rows costs another query.
        """
        rows = (await self._execute(statement.add_columns(_ISOLATION))).all()
        level = rows[0].isolation if rows else (await self._execute(select(_ISOLATION))).scalar_one()
        return as_records(kind, rows), level not in ("repeatable read", "serializable")

    async def _current_one(self, kind: type[R], statement: Select[Any]) -> tuple[R | None, bool]:
        """Return what `_current` returns, for a statement with at most one row."""
        found, is_current = await self._current(kind, statement)
        return next(iter(found), None), is_current


def as_records(kind: type[R], rows: Iterable[Row[Any]], **constants: Any) -> list[R]:
    """Return a record for each row, whose columns are its fields; `constants` are fields that all rows share."""
    found = list(rows)
    # A lateral's names are a subclass of str, which msgspec does not take.
    names = tuple(map(str, found[0]._fields)) if found else ()
    return msgspec.convert([constants | dict(zip(names, row, strict=True)) for row in found], list[kind])  # type: ignore[valid-type] # a type made at run time
