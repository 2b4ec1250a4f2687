"""`HistoryQuery` says which rows of one time series are wanted. The functions make PostgreSQL's statements for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import index
from typing import Any, Self, TypedDict, Unpack

from sqlalchemy import ColumnElement, Select, Table, bindparam, select

from alembic_timescaledb import declared
from arbstore.errors import ValidationError
from arbstore.kinds import Kind
from arbstore.records import rules

_MOST_ROWS = 2**63 - 1  # PostgreSQL's bigint
# How many chunks back the newest rows are looked for first. Planning and starting a query costs time for each chunk.
_CHUNKS = (2, 32)


class Window(TypedDict, total=False):
    """The wanted rows: `since <= timestamp < until`; with `limit`, only the newest that many of them."""

    since: datetime | None
    until: datetime | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """The rows of one series with `since <= timestamp < until`, oldest first; with `limit`, the newest that many.

    `series` has the values of the key's columns that name the series. `names` has what a stored record shows beside its
    columns: the exchange, and the pair of a symbol. Every row shares both, so they are not sent with each row.
    `computed` says that the rows are made when they are read, so that only the service can run the query.
    """

    kind: Kind[Any, Any]
    series: Mapping[str, Any]
    names: Mapping[str, str]
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None
    computed: bool = False

    @classmethod
    def of(
        cls, kind: Kind[Any, Any], series: Mapping[str, Any], names: Mapping[str, str], **window: Unpack[Window]
    ) -> Self:
        """Return the query, with its times in UTC; raise ValidationError for a bad time, range or limit."""
        begin, end = checked_range(window.get("since"), window.get("until"))
        limit = window.get("limit")
        return cls(kind, series, names, begin, end, None if limit is None else _checked_limit(limit))

    @property
    def constants(self) -> dict[str, Any]:
        """The fields of the stored records that all rows share."""
        return {**self.names, **self.series}


def statements(query: HistoryQuery) -> Iterator[Select[Any]]:
    """Yield statements for the rows, without the columns that all rows share.

    One statement is enough without a limit; its rows are oldest first. With a limit, rows are newest first, and each
    statement looks further back than the one before. The first that finds as many rows as the limit has the answer.
    """
    rows = _rows(query)
    if query.limit is None:
        yield rows
        return
    for start in starts(query.kind.table, query.since, query.until):
        yield rows.where(*after(query.kind.table.c.timestamp, start))


def oldest_first(query: HistoryQuery) -> Select[Any]:
    """Return one statement for all rows, oldest first. With a limit the server sorts before it sends the first row."""
    rows = _rows(query)
    if query.limit is None:
        return rows
    newest = rows.subquery("newest")
    return select(newest).order_by(*(newest.c[name] for name in _order(query.kind.table) if name in newest.c))


def _rows(query: HistoryQuery) -> Select[Any]:
    table = query.kind.table
    sent = [column for column in query.kind.columns if column.name not in query.series]
    conditions = [table.c[name] == value for name, value in query.series.items()]
    order: list[ColumnElement[Any]] = [table.c[name] for name in _order(table)]
    if query.limit is not None:
        order = [column.desc() for column in order]
    bounds = within(table.c.timestamp, query.since, query.until)
    return select(*sent).where(*conditions, *bounds).order_by(*order).limit(query.limit)


def _order(table: Table) -> list[str]:
    """Return the columns that rows are sorted by: the time, then the rest of the key to break ties."""
    key = [column.name for column in table.primary_key]
    return ["timestamp", *(name for name in key if name != "timestamp")]


def within(time: ColumnElement[datetime], since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    """Return the conditions of `since <= time < until`, both in UTC."""
    bounds = [] if since is None else [time >= since]
    return bounds if until is None else [*bounds, time < until]


def starts(table: Table, since: datetime | None, until: datetime | None = None) -> Iterator[datetime | None]:
    """Yield where to begin to look for the newest rows before `until` (default: now), ever further back.

    The last start is `since`, or None for the first row. Starts are multiples of the chunk interval, so a statement
    stays the same, and stays prepared, for as long as a chunk lasts.
    """
    hypertable = declared(table)
    assert hypertable is not None, table.name  # noqa: S101 # a test checks that each series is one
    interval = hypertable.chunk_interval
    for chunks in _CHUNKS:
        start = _floor(rules.ago(chunks * interval, until), interval)
        if since is not None and start <= since:
            break
        yield start
    yield None if since is None else _floor(since, interval)


def after(time: ColumnElement[datetime], start: datetime | None) -> list[ColumnElement[bool]]:
    """Return the condition that keeps older chunks out of the plan.

    The start is a literal: a plan that is prepared for any value of a parameter contains all chunks.
    """
    return [] if start is None else [time >= bindparam(None, start, time.type, literal_execute=True)]


def _floor(moment: datetime, interval: timedelta) -> datetime:
    return moment - (moment - rules.BEGINNING) % interval


def checked_range(since: datetime | None, until: datetime | None) -> tuple[datetime | None, datetime | None]:
    """Return both times in UTC; raise ValidationError if `since` is after `until`."""
    begin = None if since is None else rules.in_utc(since, "since")
    end = None if until is None else rules.in_utc(until, "until")
    if begin is not None and end is not None and begin > end:
        raise ValidationError(f"{begin} is after until {end}", field="since")
    return begin, end


def _checked_limit(limit: int) -> int:
    try:
        count = index(limit)
    except TypeError as error:
        raise ValidationError(f"must be an integer, is {limit!r}", field="limit") from error
    if not 1 <= count <= _MOST_ROWS:
        raise ValidationError(f"must be an integer from 1 to {_MOST_ROWS}, is {limit}", field="limit")
    return count
