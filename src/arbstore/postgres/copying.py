"""COPY of columns into a table, in PostgreSQL's binary format, over the driver of SQLAlchemy's connection.

asyncpg encodes row by row, value by value. Here whole columns are packed, in pieces so small that the server reads one
while the next is made. https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS-BINARY
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, groupby, repeat
from operator import floordiv, sub
from struct import Struct
from typing import Any

import asyncpg
from sqlalchemy import BigInteger, Column, DateTime, Double, Integer, SmallInteger, Table, Text, text
from sqlalchemy.ext.asyncio import AsyncConnection

_ROWS_AT_ONCE = 1_000
_CHARACTERS_AT_ONCE = 500_000
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no extension of the header
_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"  # for a field's length
_EPOCH, _MICROSECOND = datetime(2000, 1, 1, tzinfo=UTC), timedelta(microseconds=1)  # what a timestamptz counts
_COUNT, _LENGTH = Struct(">h"), Struct(">i")
# Of types with one length: the code of `struct`.
_CODES: Mapping[type, str] = {SmallInteger: "h", Integer: "i", BigInteger: "q", Double: "d", DateTime: "q"}
_TYPES = text(
    "SELECT CAST(attname AS text), format_type(atttypid, atttypmod) AS kind FROM pg_attribute"
    " WHERE attrelid = to_regclass(:place) AND attname = ANY (CAST(:names AS text[]))"
)


async def copy(
    connection: AsyncConnection, table: Table, columns: Mapping[str, Sequence[Any]], order: Sequence[int]
) -> None:
    """Copy the rows of these numbers, in this order, into the table's columns of these names, inside a savepoint.

    The session speaks UTF-8, and the columns are as the model says (`fits`). SQLAlchemy begins a transaction with its
    own first statement, and does not know of this one. Raises the driver's errors; one of a lost connection leaves the
    connection invalidated.
    """
    driver = await _driver(connection)
    kinds = [table.c[name] for name in columns]
    schema = _schema(connection, table)
    sending: Coroutine[Any, Any, str]
    if packs(kinds):
        source = _packed_rows(kinds, columns, order)
        sending = driver.copy_to_table(table.name, schema_name=schema, columns=columns, source=source, format="binary")
    else:
        records = chain.from_iterable(zip(*part, strict=True) for part in _parts(columns, order))
        sending = driver.copy_records_to_table(table.name, schema_name=schema, columns=columns, records=records)
    try:
        await _unless_lost(driver, sending)
    finally:
        if driver.is_closed():
            await connection.invalidate()  # SQLAlchemy does not know, and would go on with it


async def speaks_utf8(connection: AsyncConnection) -> bool:
    """Whether the session takes texts as they are copied; statements are in the encoding that it was set to."""
    driver = await _driver(connection)
    encoding: str = driver.get_settings().client_encoding
    return encoding.replace("-", "").upper() == "UTF8"


async def fits(connection: AsyncConnection, table: Table, names: Iterable[str]) -> bool:
    """Whether the server's columns have the types of the model's: COPY takes any eight bytes for a number.

    Ask in a transaction that has read the table: until its end nobody else alters it.
    """
    preparer = connection.dialect.identifier_preparer
    schema = _schema(connection, table)
    place = f"{preparer.quote(schema)}.{preparer.quote(table.name)}" if schema else preparer.quote(table.name)
    declared = {name: table.c[name].type.compile(connection.dialect).lower() for name in names}
    found = await connection.execute(_TYPES, {"place": place, "names": list(declared)})
    return {row.attname: row.kind for row in found} == declared


def packs(kinds: Iterable[Column[Any]]) -> bool:
    """Whether these columns are packed here; otherwise, the driver encodes them."""
    return all(type(kind.type) in {*_CODES, Text} for kind in kinds)


async def _driver(connection: AsyncConnection) -> asyncpg.Connection[Any]:
    driver: Any = (await connection.get_raw_connection()).driver_connection
    return driver  # type: ignore[no-any-return] # of any driver, for SQLAlchemy


def _schema(connection: AsyncConnection, table: Table) -> str | None:
    sync = connection.sync_connection
    schemas = sync.get_execution_options().get("schema_translate_map", {}) if sync is not None else {}
    found: str | None = schemas.get(table.schema, table.schema)
    return found


def _parts(columns: Mapping[str, Sequence[Any]], order: Sequence[int]) -> Iterator[list[list[Any]]]:
    for start in range(0, len(order), _ROWS_AT_ONCE):
        part = order[start : start + _ROWS_AT_ONCE]
        yield [[values[number] for number in part] for values in columns.values()]


async def _packed_rows(
    kinds: Sequence[Column[Any]], columns: Mapping[str, Sequence[Any]], order: Sequence[int]
) -> AsyncIterator[bytes]:
    yield _SIGNATURE
    for part in _parts(columns, order):
        for piece in _not_too_long(kinds, part):
            yield _rows(kinds, piece)
            await asyncio.sleep(0)  # the driver does not wait while it may write
    yield _END


def _not_too_long(kinds: Sequence[Column[Any]], part: list[list[Any]]) -> Iterator[list[list[Any]]]:
    """Yield the part as it is, or, where its texts are long, in pieces."""
    texts = (values for kind, values in zip(kinds, part, strict=True) if type(kind.type) is Text)
    length = sum(len(value) for values in texts for value in values if value is not None)
    rows = len(part[0])
    step = max(1, rows // (length // _CHARACTERS_AT_ONCE + 1))
    for start in range(0, rows, step):
        yield [values[start : start + step] for values in part]


def _rows(kinds: Sequence[Column[Any]], part: list[list[Any]]) -> bytes:
    """Return rows: of each the count of its fields, then of each field the length and the value."""
    fields: list[Iterable[bytes]] = [repeat(_COUNT.pack(len(kinds)))]
    for all_there, group in groupby(zip(kinds, part, strict=True), _is_packed_whole):
        if all_there:
            fields.append(_packed(list(group)))
        else:
            fields += [_texts(values) if type(kind.type) is Text else _nullable(kind, values) for kind, values in group]
    return b"".join(chain.from_iterable(zip(*fields)))  # noqa: B905 # the count is repeated without end


def _is_packed_whole(given: tuple[Column[Any], list[Any]]) -> bool:
    kind, _ = given
    return type(kind.type) in _CODES and not kind.nullable


def _packed(group: Sequence[tuple[Column[Any], Iterable[Any]]]) -> Iterator[bytes]:
    layout, arguments = ">", []
    for kind, values in group:
        code = _CODES[type(kind.type)]
        layout += f"i{code}"
        if type(kind.type) is DateTime:
            values = map(floordiv, map(sub, values, repeat(_EPOCH)), repeat(_MICROSECOND))
        arguments += [repeat(Struct(f">{code}").size), values]
    return map(Struct(layout).pack, *arguments)


def _nullable(kind: Column[Any], values: Sequence[Any]) -> Iterator[bytes]:
    there = _packed([(kind, [value for value in values if value is not None])])
    return (_NULL if value is None else next(there) for value in values)


def _texts(values: Iterable[str | None]) -> Iterator[bytes]:
    for value in values:
        if value is None:
            yield _NULL
        else:
            encoded = value.encode()
            yield _LENGTH.pack(len(encoded)) + encoded


async def _unless_lost(driver: asyncpg.Connection[Any], sending: Coroutine[Any, Any, Any]) -> None:
    """Wait for it, but not for good: asyncpg does, until it may write, where the connection is lost meanwhile."""
    copying = asyncio.ensure_future(sending)

    def stop(_: object) -> None:
        copying.cancel()

    driver.add_termination_listener(stop)
    try:
        await copying
    except (asyncio.CancelledError, asyncpg.InternalClientError, asyncpg.PostgresError) as error:
        if _is_lost(error):
            driver.terminate()
        task = asyncio.current_task()
        if driver.is_closed() and not (task is not None and task.cancelling()):
            raise asyncpg.ConnectionDoesNotExistError("the connection was lost in the middle of a COPY") from error
        raise
    finally:
        driver.remove_termination_listener(stop)


def _is_lost(error: BaseException) -> bool:
    """Whether the server says that it goes, or the driver has lost its place in the protocol."""
    return isinstance(error, asyncpg.InternalClientError | asyncpg.OperatorInterventionError) and not isinstance(
        error, asyncpg.QueryCanceledError
    )
