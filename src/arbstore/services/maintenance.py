"""Sizes of the tables, and the removal of rows that are older than their table's retention."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    FromClause,
    Select,
    Table,
    any_,
    delete,
    func,
    literal,
    literal_column,
    select,
    true,
    tuple_,
)

from alembic_timescaledb import declared, server
from alembic_timescaledb.server import HypertableState
from arbstore.errors import CleanupRunningError, ValidationError
from arbstore.kinds import KINDS
from arbstore.models import Base, LateMinute, Ledger
from arbstore.postgres import Lock
from arbstore.records import Record
from arbstore.records.rules import ago, in_utc
from arbstore.services.retention import Ages, Retentions, check_ages, time_series, time_series_table

# Rows are counted in tables up to this size; for larger ones the server's estimate is used.
_COUNTED_BYTES = 64 * 2**20

_Range: TypeAlias = tuple[datetime | None, datetime | None]

# The origin of the candles that are made of a table's rows, by the table's name.
ORIGINS = {kind.table.name: kind.makes for kind in KINDS.values() if kind.makes is not None}

_CTID: ColumnElement[Any] = literal_column("ctid")


class TableStats(NamedTuple):
    """The size of one table. `estimated` says whether `rows` is an estimate; `chunks` is None for an ordinary table."""

    table: str
    rows: int
    estimated: bool
    bytes: int
    oldest: datetime | None
    newest: datetime | None
    chunks: int | None


class Removed(NamedTuple):
    """How much older than a moment was removed: rows of an ordinary table, or whole chunks of a hypertable.

    `more` says that another call may have more to do.
    """

    older_than: datetime | None
    rows: int
    chunks: int
    more: bool


class Watermark(NamedTuple):
    """How far trades or quotes are made into candles, and before when their rows may be dropped (at first: 1970).

    `late` minutes are to be made again because rows came late.
    """

    origin: str
    made_until: datetime
    dropped_before: datetime
    late: int


class Cleanup(Record, frozen=True, kw_only=True):
    """What a cleanup removed from one table; `older_than` is None if the table keeps its rows for good.

    A planned cleanup has removed nothing yet: `oldest` is the oldest time that the table holds.
    """

    table: str
    retention: timedelta | None
    older_than: datetime | None
    rows: int = 0
    chunks: int = 0
    oldest: datetime | None = None

    @property
    def has_old_rows(self) -> bool:
        """Whether `oldest` is older than `older_than`."""
        return self.oldest is not None and self.older_than is not None and self.oldest < self.older_than


class Maintenance(Retentions):
    """Sizes, retention and cleanup of all tables."""

    async def stats(self) -> list[TableStats]:
        """Return the size and the range of time of each table, by name. Reads indexes, never a whole large table."""
        hypertables = await self._hypertables()
        return [
            await self._table_stats(Base.metadata.tables[name], hypertables.get(name))
            for name in sorted(Base.metadata.tables)
        ]

    async def cleanup(self, retention: Ages | None = None, *, batch_size: int = 10_000) -> list[Cleanup]:
        """Remove the rows older than their table's retention, in the session's transaction; return what was removed.

        `retention` is by table name and replaces what is in force (see `retention()`); None keeps a table whole.
        Ordinary tables lose rows in statements of `batch_size`; hypertables lose the chunks that are wholly older.
        `arbstore.deploy.cleanup` does the same in many short transactions. Raises ValidationError for a table that is
        not a time series, and CleanupRunningError while another cleanup is running.
        """
        _check_positive(batch_size, "batch_size")
        check_ages(retention or {})
        await self.hold_cleanup_lock()
        for table in ORIGINS:
            await self.close_minutes(table, alone=True)
        return [
            [done async for done in removals(lambda: nullcontext(self), table, retention, batch_size)][-1]
            for table in time_series()
        ]

    async def hold_cleanup_lock(self) -> None:
        """Keep every other cleanup of this database out until the transaction ends.

        Raises CleanupRunningError while another cleanup holds the lock.
        """
        # The holder's transaction may sit idle while other transactions do the work.
        await self._execute(select(func.set_config("idle_in_transaction_session_timeout", "0", True)))
        if not (await self._execute(select(func.pg_try_advisory_xact_lock(Lock.CLEANUP)))).scalar_one():
            raise CleanupRunningError

    async def expire(self, table_name: str, older_than: datetime | None, limit: int, *, make: bool = True) -> Removed:
        """Remove at most `limit` rows older than the moment (None: no row), or chunks of a hypertable.

        Trades and quotes are made into candles first: each call makes an hour of them, or removes rows. With `make`
        false, minutes are made of late rows only. Raises ValidationError for an unknown table, a naive moment or a
        limit below 1.
        """
        _check_positive(limit, "limit")
        older_than = None if older_than is None else in_utc(older_than, "older_than")
        table = time_series_table(table_name)
        if (origin := ORIGINS.get(table_name)) is not None:
            moment = literal(older_than, DateTime(timezone=True))
            did = func.arbstore_keep(origin, moment, limit, make).table_valued("more", "rows", "chunks")
            rows, chunks, more = tuple((await self._execute(select(did.c.rows, did.c.chunks, did.c.more))).one())
            return Removed(older_than, rows, chunks, more)
        if older_than is None:
            return Removed(None, 0, 0, more=False)
        if (hypertable := (await self._hypertables()).get(table_name)) is None:
            rows = await self._delete(table, older_than, limit)
            return Removed(older_than, rows, 0, more=rows == limit)
        dropped = await self._on_connection(lambda connection: server.drop_chunks(connection, hypertable, older_than))
        return Removed(older_than, 0, dropped, more=False)

    async def close_minutes(self, table: str, *, alone: bool = False) -> None:
        """Let rows of trades or quotes leave marks, from now on, for minutes that ended a minute ago.

        Such minutes can be made when the transactions have ended that were writing the table as this one committed: see
        `writers`. With `alone`, this call waits for them, and new writers wait until this transaction ends.
        """
        await self._execute(select(func.arbstore_close_minutes(ORIGINS[table], alone)))

    async def writers(self, table: str) -> frozenset[str]:
        """Return the transactions of others that have written to a table of trades or quotes, and are still open."""
        return frozenset((await self._execute(select(func.arbstore_writers(ORIGINS[table])))).scalar_one())

    async def _delete(self, table: Table, older_than: datetime, limit: int) -> int:
        series, is_of = _series(table)
        old = select(_CTID).where(is_of, table.c.timestamp < older_than)
        found = old.order_by(table.c.timestamp).limit(limit).lateral("old")
        chosen = select(found.c.ctid).select_from(series.join(found, true())).limit(limit)
        # The time is checked again because a ctid is unique in one partition only: a young row may have it elsewhere.
        is_old = table.c.timestamp < older_than
        result = await self._execute(delete(table).where(any_(func.array(chosen.scalar_subquery())) == _CTID, is_old))
        return int(result.rowcount)  # type: ignore[attr-defined] # a delete's result has one

    async def _hypertables(self) -> dict[str, HypertableState]:
        return await self._on_connection(server.hypertables)

    async def _table_stats(self, table: Table, hypertable: HypertableState | None) -> TableStats:
        size = await self._on_connection(lambda connection: server.size(connection, hypertable or table.name))
        estimated = size.bytes > _COUNTED_BYTES
        rows = size.rows if estimated else (await self._execute(select(func.count()).select_from(table))).scalar_one()
        oldest, newest = await self._range(table, hypertable)
        chunks = None if hypertable is None else hypertable.chunks
        return TableStats(table.name, rows, estimated, size.bytes, oldest, newest, chunks)

    async def _range(self, table: Table, hypertable: HypertableState | None) -> _Range:
        if "created_at" not in table.c:
            return None, None
        if declared(table) is None:
            return await self._pair(select(func.min(table.c.created_at), func.max(table.c.created_at)))
        if hypertable is not None:
            chunks = await self._on_connection(lambda connection: server.chunks(connection, hypertable.key))
            if not chunks:
                return None, None
            time = table.c.timestamp
            oldest, _ = await self._edges(table, time >= chunks[0].start, time < chunks[0].end)
            _, newest = await self._edges(table, time >= chunks[-1].start, time < chunks[-1].end)
            if oldest and newest:  # else deletes have emptied one of these chunks: all are searched
                return oldest, newest
        return await self._edges(table)

    async def _edges(self, table: Table, *bounds: ColumnElement[bool]) -> _Range:
        """Return the oldest and the newest time within the bounds, by two index probes for each series."""
        series, is_of = _series(table, *bounds)
        rows = select(table.c.timestamp).where(is_of, *bounds).limit(1)
        first = rows.order_by(table.c.timestamp).lateral("first")
        last = rows.order_by(table.c.timestamp.desc()).lateral("last")
        source = series.join(first, true()).join(last, true())
        return await self._pair(select(func.min(first.c.timestamp), func.max(last.c.timestamp)).select_from(source))

    async def _pair(self, statement: Select[Any]) -> _Range:
        found: Sequence[datetime | None] = (await self._execute(statement)).one()
        return found[0], found[1]


def watermarks(connection: Connection) -> list[Watermark]:
    """Return the watermarks of trades and of quotes."""
    ledger, late = Ledger.__table__.c, LateMinute.__table__.c
    count = select(func.count()).where(late.origin == ledger.origin).scalar_subquery()
    found = select(ledger.origin, ledger.made_until, ledger.dropped_before, count).order_by(ledger.origin)
    return [Watermark(*row) for row in connection.execute(found)]


Transaction: TypeAlias = Callable[[], AbstractAsyncContextManager[Maintenance]]


async def removals(
    transaction: Transaction, table: str, retention: Ages | None, batch_size: int, *, make: bool = True
) -> AsyncIterator[Cleanup]:
    """Remove the table's old rows in batches, and yield after each what was removed so far; see `expire`.

    Each batch runs within a `transaction()`, and reads the retention anew: a change takes effect at once.
    """
    rows = chunks = 0
    more = True
    while more:
        async with transaction() as maintenance:
            age = (await maintenance.hold_retention(retention))[table]
            done = await maintenance.expire(table, None if age is None else ago(age), batch_size, make=make)
        more, rows, chunks = done.more, rows + done.rows, chunks + done.chunks
        yield Cleanup(table=table, retention=age, older_than=done.older_than, rows=rows, chunks=chunks)


def _check_positive(number: int, field: str) -> None:
    if number < 1:
        raise ValidationError(f"must be 1 or more, is {number}", field=field)


def _series(table: Table, *bounds: ColumnElement[bool]) -> tuple[FromClause, ColumnElement[bool]]:
    """Return the table's series (each key without its time) and the condition that joins a row to its series.

    The recursive query skips along the primary key from one series to the next.
    """
    columns = list(table.primary_key.columns)
    prefix = columns[: columns.index(table.c.timestamp)]
    first = select(*prefix).where(*bounds).order_by(*prefix).limit(1).subquery("first_series")
    found = select(*first.c).cte("series", recursive=True)
    mine = [found.c[part.name] for part in prefix]
    beyond = tuple_(*prefix) > tuple_(*mine)
    following = select(*prefix).where(beyond, *bounds).order_by(*prefix).limit(1).lateral("next_series")
    series = found.union_all(select(*following.c).select_from(found.join(following, true())))
    return series, tuple_(*prefix) == tuple_(*(series.c[part.name] for part in prefix))
