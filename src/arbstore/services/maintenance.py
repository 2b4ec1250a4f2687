"""Sizes of the tables, and the removal of rows that are older than their table's retention."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Table,
    any_,
    delete,
    func,
    literal_column,
    select,
    true,
    tuple_,
)

from alembic_timescaledb import declared, server
from alembic_timescaledb.server import HypertableState, materialized
from arbstore.errors import CleanupRunningError, ValidationError
from arbstore.models import Base
from arbstore.models.rollups import RollUp
from arbstore.postgres import Lock
from arbstore.records import Record
from arbstore.records.rules import ago, in_utc
from arbstore.services.retention import Ages, Retentions, check_ages, time_series, time_series_table
from arbstore.services.rollups import MINUTES, ROLLED_UP, roll_up_between, roll_up_minutes_of

# Rows are counted in tables up to this size; for larger ones the server's estimate is used.
_COUNTED_BYTES = 64 * 2**20

_Range: TypeAlias = tuple[datetime | None, datetime | None]

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
    """How much older than a moment was removed: rows of an ordinary table, or whole chunks of a hypertable."""

    older_than: datetime
    rows: int
    chunks: int


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

    async def expire(self, table_name: str, older_than: datetime, limit: int) -> Removed:
        """Remove at most `limit` rows older than the moment, or all such chunks of a hypertable.

        If fewer than `limit` rows were removed, none is left. Trades and quotes leave their candles behind, and are
        removed by whole minutes. Raises ValidationError for an unknown table, a naive moment or a limit below 1.
        """
        _check_positive(limit, "limit")
        older_than = in_utc(older_than, "older_than")
        table = time_series_table(table_name)
        if (rolled := ROLLED_UP.get(table_name)) is not None:
            older_than = MINUTES.floor(older_than)
        hypertable = (await self._hypertables()).get(table_name)
        if hypertable is None:
            return Removed(older_than, await self._delete(table, older_than, limit), 0)
        if rolled is not None:
            await self._roll_up(rolled, hypertable, older_than)
        dropped = await self._on_connection(lambda connection: server.drop_chunks(connection, hypertable, older_than))
        return Removed(older_than, 0, dropped)

    async def _delete(self, table: Table, older_than: datetime, limit: int) -> int:
        series, is_of = _series(table)
        old = select(_CTID, *table.primary_key).where(is_of, table.c.timestamp < older_than)
        found = old.order_by(table.c.timestamp).limit(limit).lateral("old")
        chosen = select(*found.c).select_from(series.join(found, true())).limit(limit).cte("chosen")
        # The time is checked again because a ctid is unique in one partition only: a young row may have it elsewhere.
        is_old = table.c.timestamp < older_than
        these = func.array(select(chosen.c.ctid).scalar_subquery())
        statement = delete(table).where(any_(these) == _CTID, is_old)
        if (rolled := ROLLED_UP.get(table.name)) is not None:
            # In one statement, so that no row is deleted that came after its candle was made.
            statement = statement.add_cte(roll_up_minutes_of(rolled, chosen).cte("rolled_up"))
        result = await self._execute(statement)
        return int(result.rowcount)  # type: ignore[attr-defined] # a delete's result has one

    async def _roll_up(self, rolled: RollUp, hypertable: HypertableState, older_than: datetime) -> None:
        """Store the candles of the chunks that are wholly older, chunk by chunk."""
        chunks = await self._on_connection(lambda connection: server.chunks(connection, hypertable.key))
        views = await self._on_connection(lambda connection: materialized(connection, rolled.views))
        for start, end in sorted({(chunk.start, chunk.end) for chunk in chunks if chunk.end <= older_than}):
            await self._execute(roll_up_between(rolled, MINUTES.floor(start), MINUTES.ceil(end), views))

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


Transaction: TypeAlias = Callable[[], AbstractAsyncContextManager[Maintenance]]


async def removals(
    transaction: Transaction, table: str, retention: Ages | None, batch_size: int
) -> AsyncIterator[Cleanup]:
    """Remove the table's old rows in batches, and yield after each what was removed so far.

    Each batch runs within a `transaction()`, and reads the retention anew: a change takes effect at once.
    """
    rows = chunks = 0
    while True:
        async with transaction() as maintenance:
            age = (await maintenance.hold_retention(retention))[table]
            done = None if age is None else await maintenance.expire(table, ago(age), batch_size)
        if done is not None:
            rows, chunks = rows + done.rows, chunks + done.chunks
        yield Cleanup(table=table, retention=age, older_than=done and done.older_than, rows=rows, chunks=chunks)
        if done is None or done.rows < batch_size:
            return


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
