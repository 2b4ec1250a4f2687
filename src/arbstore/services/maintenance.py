"""Sizes of the tables, and the rows that have outlived their retention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
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
from alembic_timescaledb.server import HypertableState, Size, materialized
from arbstore import locks
from arbstore.errors import CleanupRunningError, ValidationError
from arbstore.models import Base
from arbstore.models.rollups import RollUp
from arbstore.records.rules import ago, in_utc
from arbstore.services.retention import Retentions, time_series_table
from arbstore.services.rollup_writes import MINUTES, ROLLED_UP, roll_up_between, roll_up_minutes_of

# A table up to this size is counted, row by row; beyond it the server's estimate is taken.
_COUNTED_BYTES = 64 * 2**20

_CTID: ColumnElement[Any] = literal_column("ctid")


class TableStats(NamedTuple):
    """One table. `estimated` says whether `rows` is; `chunks` is None where it is an ordinary table."""

    table: str
    rows: int
    estimated: bool
    bytes: int
    oldest: datetime | None
    newest: datetime | None
    chunks: int | None


class Cleanup(NamedTuple):
    """What a cleanup removed from one table: rows of an ordinary one, whole chunks of a hypertable."""

    table: str
    older_than: datetime
    rows: int
    chunks: int


class Maintenance(Retentions):
    """Sizes, retention and cleanup of all tables."""

    async def stats(self) -> list[TableStats]:
        """Return the size and the range of time of each table, by name. Reads indexes, never a whole large table."""
        hypertables = await self._hypertables()
        return [
            await self._table_stats(Base.metadata.tables[name], hypertables.get(name))
            for name in sorted(Base.metadata.tables)
        ]

    async def cleanup(
        self, retention: Mapping[str, timedelta | None] | None = None, *, batch_size: int = 10_000
    ) -> list[Cleanup]:
        """Remove the rows older than their table's retention, in the session's transaction; return the counts.

        `retention` is by table name, and wins over what is in force (see `retention()`); None keeps a table whole.
        Ordinary tables lose rows, series by series, in statements of `batch_size`; hypertables lose the chunks that
        are wholly older. Raises ValidationError for a table that has none, CleanupRunningError while another cleanup
        is under way.
        """
        if batch_size < 1:
            raise ValidationError(f"must be 1 or more, is {batch_size}", field="batch_size")
        ages = await self.hold_retention(retention)
        await self.take_turn()
        return [await self._clean(table, age, batch_size) for table, age in ages.items() if age is not None]

    async def take_turn(self) -> None:
        """Keep every other cleanup of this database out until the transaction ends.

        Raises CleanupRunningError while another has the turn.
        """
        # Its owner may sit idle in this transaction while others do the work.
        await self._execute(select(func.set_config("idle_in_transaction_session_timeout", "0", True)))
        if not (await self._execute(select(func.pg_try_advisory_xact_lock(locks.CLEANUP)))).scalar_one():
            raise CleanupRunningError

    async def expire(self, table_name: str, older_than: datetime, limit: int) -> Cleanup:
        """Remove at most `limit` rows (of a hypertable: all chunks) older than the moment.

        Fewer than `limit`: none is left. Trades and quotes leave their candles behind, and go by whole minutes. Raises
        ValidationError for another table, a naive moment, a limit below 1.
        """
        if limit < 1:
            raise ValidationError(f"must be 1 or more, is {limit}", field="limit")
        older_than = in_utc(older_than, "older_than")
        table = time_series_table(table_name)
        if (rolled := ROLLED_UP.get(table_name)) is not None:
            older_than = MINUTES.floor(older_than)
        hypertable = (await self._hypertables()).get(table_name)
        if hypertable is None:
            return Cleanup(table_name, older_than, await self._delete(table, older_than, limit), 0)
        if rolled is not None:
            await self._roll_up(rolled, hypertable, older_than)
        dropped = await self._on_connection(lambda connection: server.drop_chunks(connection, hypertable, older_than))
        return Cleanup(table_name, older_than, 0, dropped)

    async def _clean(self, table: str, age: timedelta, batch_size: int) -> Cleanup:
        older_than = ago(age)
        rows = chunks = 0
        while True:
            done = await self.expire(table, older_than, batch_size)
            rows, chunks = rows + done.rows, chunks + done.chunks
            if done.rows < batch_size:
                return Cleanup(table, older_than, rows, chunks)

    async def _delete(self, table: Table, older_than: datetime, limit: int) -> int:
        series, is_of = _series(table)
        old = select(_CTID, *table.primary_key).where(is_of, table.c.timestamp < older_than)
        found = old.order_by(table.c.timestamp).limit(limit).lateral("old")
        chosen = select(*found.c).select_from(series.join(found, true())).limit(limit).cte("chosen")
        # The time again: a ctid is one of a partition, and where there are several it can be that of a young row too.
        is_old = table.c.timestamp < older_than
        these = func.array(select(chosen.c.ctid).scalar_subquery())
        statement = delete(table).where(any_(these) == _CTID, is_old)
        if (rolled := ROLLED_UP.get(table.name)) is not None:
            # One statement: what came in between would go without a trace.
            statement = statement.add_cte(roll_up_minutes_of(rolled, chosen).cte("rolled_up"))
        result = await self._execute(statement)
        return int(result.rowcount)  # type: ignore[attr-defined] # a delete's result has one

    async def _roll_up(self, rolled: RollUp, hypertable: HypertableState, older_than: datetime) -> None:
        """Store the candles of the chunks that are wholly older, one chunk's after the other's."""
        chunks = await self._on_connection(lambda connection: server.chunks(connection, hypertable))
        views = await self._on_connection(lambda connection: materialized(connection, rolled.views))
        for start, end in sorted({(chunk.start, chunk.end) for chunk in chunks if chunk.end <= older_than}):
            await self._execute(roll_up_between(rolled, MINUTES.floor(start), MINUTES.ceil(end), views))

    async def _hypertables(self) -> dict[str, HypertableState]:
        return await self._on_connection(server.hypertables)

    async def _table_stats(self, table: Table, hypertable: HypertableState | None) -> TableStats:
        size = await self._size(table, hypertable)
        estimated = size.bytes > _COUNTED_BYTES
        rows = size.rows if estimated else (await self._execute(select(func.count()).select_from(table))).scalar_one()
        oldest, newest = await self._range(table, hypertable)
        chunks = None if hypertable is None else hypertable.chunks
        return TableStats(table.name, rows, estimated, size.bytes, oldest, newest, chunks)

    async def _size(self, table: Table, hypertable: HypertableState | None) -> Size:
        def measure(connection: Connection) -> Size:
            if hypertable is None:
                return server.table_size(connection, table.name)
            return server.hypertable_size(connection, hypertable)

        return await self._on_connection(measure)

    async def _range(self, table: Table, hypertable: HypertableState | None) -> tuple[datetime | None, datetime | None]:
        if declared(table) is None:
            registered = select(func.min(table.c.created_at), func.max(table.c.created_at))
            return await self._pair(registered)
        if hypertable is None:
            return await self._edges(table)
        chunks = await self._on_connection(lambda connection: server.chunks(connection, hypertable))
        if not chunks:
            return None, None
        time = table.c.timestamp
        oldest, _ = await self._edges(table, time >= chunks[0].start, time < chunks[0].end)
        _, newest = await self._edges(table, time >= chunks[-1].start, time < chunks[-1].end)
        # A chunk can be empty, after deletes: then the others are asked too.
        return (oldest, newest) if oldest and newest else await self._edges(table)

    async def _edges(self, table: Table, *bounds: ColumnElement[bool]) -> tuple[datetime | None, datetime | None]:
        """Return the oldest and the newest time within the bounds, by two index probes a series."""
        series, is_of = _series(table, *bounds)
        rows = select(table.c.timestamp).where(is_of, *bounds).limit(1)
        first = rows.order_by(table.c.timestamp).lateral("first")
        last = rows.order_by(table.c.timestamp.desc()).lateral("last")
        source = series.join(first, true()).join(last, true())
        statement = select(func.min(first.c.timestamp), func.max(last.c.timestamp)).select_from(source)
        return await self._pair(statement)

    async def _pair(self, statement: Select[Any]) -> tuple[datetime | None, datetime | None]:
        found: Sequence[datetime | None] = (await self._execute(statement)).one()
        return found[0], found[1]


def _series(table: Table, *bounds: ColumnElement[bool]) -> tuple[FromClause, ColumnElement[bool]]:
    """Return the table's series (the key before the time), found by skipping along the key, and the join to one."""
    columns = list(table.primary_key.columns)
    prefix = columns[: columns.index(table.c.timestamp)]
    first = select(*prefix).where(*bounds).order_by(*prefix).limit(1).subquery("first_series")
    found = select(*first.c).cte("series", recursive=True)
    mine = [found.c[part.name] for part in prefix]
    beyond = tuple_(*prefix) > tuple_(*mine)
    following = select(*prefix).where(beyond, *bounds).order_by(*prefix).limit(1).lateral("next_series")
    series = found.union_all(select(*following.c).select_from(found.join(following, true())))
    return series, tuple_(*prefix) == tuple_(*(series.c[part.name] for part in prefix))
