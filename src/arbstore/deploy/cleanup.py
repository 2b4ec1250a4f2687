"""Cleanup of a whole database in many short transactions: one round, or one every so often as a service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TypeAlias

from arbstore.database import Database
from arbstore.errors import CleanupRunningError, DatabaseError
from arbstore.records.rules import ago
from arbstore.services.maintenance import ORIGINS, Cleanup, Maintenance, removals
from arbstore.services.retention import Ages, check_ages, time_series

_ROWS_A_TRANSACTION = 10_000
_RETRY = timedelta(minutes=1)
_PATIENCE = timedelta(seconds=10)  # how long minutes wait for transactions that write their rows

Progress: TypeAlias = Callable[[Cleanup], None]

log = logging.getLogger(__name__)


async def plan_cleanup(db: Database, retention: Ages | None = None) -> list[Cleanup]:
    """Return what `cleanup` would look at: each table's retention and oldest row; remove nothing."""
    async with db.begin() as store:
        ages = await store.maintenance.hold_retention(retention)
        oldest = {found.table: found.oldest for found in await store.maintenance.stats()}
    return [
        Cleanup(table=table, retention=age, older_than=None if age is None else ago(age), oldest=oldest[table])
        for table, age in ages.items()
    ]


async def cleanup(db: Database, retention: Ages | None = None, *, progress: Progress | None = None) -> list[Cleanup]:
    """Remove the rows that are older than their table's retention, and return what was removed from each table.

    `retention` is by table and replaces what is in force. Each transaction is short, so writers hardly wait, and an
    interrupted round keeps what it has done. A retention that is changed during the round takes effect at once.
    `progress` is called after each transaction with what was removed from the table so far. Takes two connections.
    Raises CleanupRunningError while another cleanup is running, ValidationError for a table that is not a time series.
    """
    check_ages(retention or {})
    async with db.begin() as holder:
        await holder.maintenance.hold_cleanup_lock()
        return [await _clean(db, table, retention, progress) for table in time_series()]


async def serve(db: Database, every: timedelta, retention: Ages | None = None) -> None:
    """Clean now and then `every` so often until cancelled; log what was removed.

    If a round fails because of the database, such as a lost connection, the failure is logged. The next attempt
    follows after a minute, or earlier if the next round is due. A round is skipped while another cleanup is running.
    """
    while True:
        began, pause = time.monotonic(), every
        try:
            if not any(done.rows or done.chunks for done in await cleanup(db, retention)):
                log.info("no rows are older than their retention")
        except CleanupRunningError as error:
            log.info("this round is skipped: %s", error)
        except DatabaseError as error:
            pause = min(every, _RETRY)
            log.warning("the cleanup failed and is tried again in %s: %s", pause, error)
        await asyncio.sleep(pause.total_seconds() - (time.monotonic() - began))


async def _may_make(db: Database, table: str) -> bool:
    """Close the minutes of trades or quotes; return whether the transactions that were writing them have ended."""
    async with _transaction(db) as maintenance:
        await maintenance.close_minutes(table)
    deadline = time.monotonic() + _PATIENCE.total_seconds()
    async with _transaction(db) as maintenance:
        before = await maintenance.writers(table)
    while before and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        async with _transaction(db) as maintenance:
            before &= await maintenance.writers(table)
    if before:
        log.info("%s is still being written: the next cleanup makes its newest minutes", table)
    return not before


async def _clean(db: Database, table: str, retention: Ages | None, progress: Progress | None) -> Cleanup:
    done: Cleanup | None = None
    try:
        make = table in ORIGINS and await _may_make(db, table)
        async for done in removals(partial(_transaction, db), table, retention, _ROWS_A_TRANSACTION, make=make):
            if progress is not None:
                progress(done)
    finally:
        if done is not None and (done.rows or done.chunks):
            log.info("removed %s of %s", f"{done.chunks:,} chunks" if done.chunks else f"{done.rows:,} rows", table)
    assert done is not None  # noqa: S101 # `removals` yields at least once
    return done


@asynccontextmanager
async def _transaction(db: Database) -> AsyncIterator[Maintenance]:
    async with db.begin() as store:
        yield store.maintenance
