"""Cleanup of a whole database, in rounds of many short transactions: once, or every so often as a service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TypeAlias

from arbstore.database import Database
from arbstore.errors import CleanupRunningError, DatabaseError
from arbstore.records import Record
from arbstore.records.rules import ago
from arbstore.services.retention import check_ages, time_series

_ROWS_A_TRANSACTION = 10_000
_RETRY = timedelta(minutes=1)

Progress: TypeAlias = Callable[[str, int, int], None]
Ages: TypeAlias = Mapping[str, timedelta | None]

log = logging.getLogger(__name__)


class Removed(Record, frozen=True, kw_only=True):
    """What a round removed from one table, or, where `rows` and `chunks` are None, would.

    `older_than` is None where everything is kept; `oldest` is known only where nothing was removed.
    """

    table: str
    retention: timedelta | None
    older_than: datetime | None
    rows: int | None = None
    chunks: int | None = None
    oldest: datetime | None = None


async def clean(db: Database, ages: Ages | None = None, *, progress: Progress | None = None) -> list[Removed]:
    """Remove the rows that have outlived their table's retention, and return what that was, by table.

    `ages` are by table and win over what is in force. Writers wait for none of it long, and what is interrupted keeps
    what it has done; a retention that is changed meanwhile holds at once. `progress` is told table, rows and chunks.
    Takes two connections. Raises CleanupRunningError while another cleanup is under way, ValidationError for a table
    that has no retention.
    """
    check_ages(ages or {})
    async with db.begin() as turn:
        await turn.maintenance.take_turn()
        return [
            await _clean(db, table, ages, progress or (lambda table, rows, chunks: None)) for table in time_series()
        ]


async def serve(db: Database, every: timedelta, ages: Ages | None = None) -> None:
    """Clean now and `every` so often until cancelled, and log what was removed.

    A round that fails by the database's fault, such as a lost connection, is logged and tried again after a minute,
    or when the next one is due. A round that finds another cleanup under way leaves it to that.
    """
    while True:
        began, pause = time.monotonic(), every
        try:
            if not any(removed.rows or removed.chunks for removed in await clean(db, ages)):
                log.info("nothing has outlived its retention")
        except CleanupRunningError as error:
            log.info("this round is left out: %s", error)
        except DatabaseError as error:
            pause = min(every, _RETRY)
            log.warning("the cleanup failed, and is tried again in %s: %s", pause, error)
        await asyncio.sleep(pause.total_seconds() - (time.monotonic() - began))


async def _clean(db: Database, table: str, ages: Ages | None, progress: Progress) -> Removed:
    rows = chunks = 0
    try:
        while True:
            async with db.begin() as store:
                age = (await store.maintenance.hold_retention(ages))[table]
                if age is None:
                    return Removed(table=table, retention=None, older_than=None, rows=rows, chunks=chunks)
                older_than = ago(age)
                done = await store.maintenance.expire(table, older_than, _ROWS_A_TRANSACTION)
            rows, chunks = rows + done.rows, chunks + done.chunks
            progress(table, rows, chunks)
            if done.rows < _ROWS_A_TRANSACTION:
                return Removed(table=table, retention=age, older_than=older_than, rows=rows, chunks=chunks)
    finally:
        if rows or chunks:
            log.info("removed %s of %s", f"{chunks:,} chunks" if chunks else f"{rows:,} rows", table)
