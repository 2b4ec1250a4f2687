"""What every service is made of: one session, the reference cache, and rows that become records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Executable, Result, Row
from sqlalchemy.ext.asyncio import AsyncSession

from arbstore.cache import ReferenceCache
from arbstore.errors import ValidationError, translated
from arbstore.records import Record

R = TypeVar("R", bound=Record)
T = TypeVar("T")

EARLIEST = datetime.min.replace(tzinfo=UTC)


class Service:
    """Queries and writes over one session; the transaction belongs to whoever made the session."""

    def __init__(self, session: AsyncSession, cache: ReferenceCache) -> None:
        """Work in `session`, with the answers of `cache`."""
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
        return as_records(kind, await self._execute(statement))

    async def _record(self, kind: type[R], statement: Executable) -> R | None:
        found = await self._records(kind, statement)
        return found[0] if found else None


def in_utc(moment: datetime, field: str) -> datetime:
    """Return the moment in UTC; raise ValidationError for a naive one, and for what is none.

    Wall clocks repeat an hour, and two datetimes of one zone are compared without their offsets.
    """
    if not isinstance(moment, datetime):
        raise ValidationError(f"must be a datetime, is {moment!r}", field=field)
    if moment.utcoffset() is None:
        raise ValidationError(f"must be aware, {moment} has no time zone: give it tzinfo=UTC", field=field)
    try:
        return moment.astimezone(UTC)
    except OverflowError:  # a zone's first or last hours of all time
        return moment.replace(tzinfo=UTC)


def ago(age: timedelta, end: datetime | None = None) -> datetime:
    """Return the moment so long ago, or before `end`; the earliest there is, if it was before that."""
    try:
        return (end or datetime.now(UTC)) - age
    except OverflowError:
        return EARLIEST


def as_records(kind: type[R], rows: Iterable[Row[Any]], **constants: Any) -> list[R]:
    """Return a record for each row, whose columns are its fields; `constants` are fields that all rows share."""
    found = list(rows)
    names = tuple(map(str, found[0]._fields)) if found else ()  # of a lateral a subclass, which msgspec does not take
    return msgspec.convert([constants | dict(zip(names, row, strict=True)) for row in found], list[kind])  # type: ignore[valid-type] # a type made at run time
