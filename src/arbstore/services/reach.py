"""How far back a query for the newest rows looks: a few chunks, then more, and all of them only when it must.

Planning a query, and starting a plan, takes its time for every chunk that the query may read.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Table, bindparam

from alembic_timescaledb.declare import declared
from arbstore.services.service import ago, in_utc

_CHUNKS = (2, 32)
_BEGINNING = datetime.min.replace(tzinfo=UTC)


def starts(table: Table, since: datetime | None, until: datetime | None = None) -> Iterator[datetime | None]:
    """Yield from when to look for what is newest before `until` (now): ever longer back, and at last from `since`.

    They are multiples of the chunk interval: a statement stays the same, and prepared, for as long as a chunk lasts.
    """
    hypertable = declared(table)
    assert hypertable is not None, table.name  # noqa: S101 # a test holds that each series is one
    interval = hypertable.chunk_interval
    since = None if since is None else in_utc(since, "since")
    until = None if until is None else in_utc(until, "until")
    for chunks in _CHUNKS:
        start = _floor(ago(chunks * interval, until), interval)
        if since is not None and start <= since:
            break
        yield start
    yield None if since is None else _floor(since, interval)


def after(time: ColumnElement[datetime], start: datetime | None) -> list[ColumnElement[bool]]:
    """Return the condition that leaves older chunks out of the plan.

    The start is a literal: a plan that is prepared for any value of a parameter has all chunks in it.
    """
    return [] if start is None else [time >= bindparam(None, start, time.type, literal_execute=True)]


def _floor(moment: datetime, interval: timedelta) -> datetime:
    return moment - (moment - _BEGINNING) % interval
