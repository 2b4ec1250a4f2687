"""Brings a deployed database up to a server that can more than it could: what the models declare and it lacks."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from alembic_timescaledb import server
from alembic_timescaledb.server import Edition
from alembic_timescaledb.upgrade import IN_USE, Left, Plan, Step, holders, perform, plan, unhurry
from arbstore import migrations
from arbstore.database import Database
from arbstore.errors import ArbstoreError, DatabaseError, SchemaOutOfDateError, SyncError, translated
from arbstore.models import Base
from arbstore.records import Record
from arbstore.records.rules import ago
from arbstore.services import retention
from arbstore.services.maintenance import TableStats

Progress: TypeAlias = Callable[[int, int, str], None]

# How long a step waits for a table that is in use; who comes after it waits behind it.
PATIENCE = timedelta(seconds=10)

log = logging.getLogger(__name__)


class PlannedStep(Record, frozen=True, kw_only=True):
    """One step. `rows` (or their estimate) and `bytes` are of a table whose rows move, under a lock.

    `drops_from` is the time of the oldest row where the server will drop rows as soon as the step is done.
    """

    what: str
    place: str
    rows: int | None = None
    estimated: bool | None = None
    bytes: int | None = None
    drops_from: datetime | None = None


class SyncPlan(Record, frozen=True, kw_only=True):
    """What a sync would do, in its order, and what it would leave."""

    edition: Edition
    steps: tuple[PlannedStep, ...]
    left: tuple[Left, ...]


async def plan_sync(db: Database) -> SyncPlan:
    """Return what would bring the server up to what the models declare, and what operators set; change nothing.

    Raises SchemaOutOfDateError where that takes another revision.
    """
    found, edition = await _plan(db)
    sizes: dict[str, TableStats] = {}
    if any(step.moves_rows or step.drops_after for step in found.steps):
        async with db.begin() as store:
            sizes = {one.table: one for one in await store.maintenance.stats()}
    return SyncPlan(edition=edition, steps=tuple(_planned(step, sizes) for step in found.steps), left=found.left)


async def sync(
    db: Database, planned: SyncPlan, *, patience: timedelta = PATIENCE, progress: Progress | None = None
) -> SyncPlan:
    """Do the planned steps, and return what is to be done after that: nothing, unless it came up meanwhile.

    Each step commits by itself, so what is interrupted keeps those that are done, and a repetition goes on from there;
    a step that somebody else has done meanwhile is passed over. Rows written meanwhile wait, and come in. Where a
    table is in use, a step waits for it for `patience`. `progress` is told the step's number, their count, and the
    step. Takes two connections.

    Raises SyncError for a step that failed, DeployRunningError while another deploy is under way.
    """
    wanted = {step.what for step in planned.steps}
    with translated():
        async with migrations.turn(db):
            steps = [step for step in (await _plan(db))[0].steps if str(step) in wanted]
            async with _own_connection(db) as connection:
                for number, step in enumerate(steps):
                    if progress is not None:
                        progress(number + 1, len(steps), str(step))
                    log.info("%s", step)
                    await _perform(connection, step, patience, done=number, left=len(steps) - number)
    return await plan_sync(db)


async def _plan(db: Database) -> tuple[Plan, Edition]:
    def read(connection: Connection) -> tuple[Plan, Edition]:
        _check_revision(connection)
        overrides = retention.overrides(connection)
        edition = server.edition(connection)
        connection.rollback()
        direct = db.settings.prepared_statements
        return plan(connection, Base.metadata, retentions=overrides, tries=direct), edition

    with translated():
        async with _own_connection(db) as connection:
            return await connection.run_sync(read)


def _check_revision(connection: Connection) -> None:
    current, head = migrations.current(connection), migrations.head()
    if current != head:
        there = f"at revision {current}, newest {head}" if current else "not deployed"
        raise SchemaOutOfDateError(f"the schema is {there}: run `arbstore db upgrade` first")


@asynccontextmanager
async def _own_connection(db: Database) -> AsyncIterator[AsyncConnection]:
    """Yield a connection that nobody takes over: what it has set, and seen of an extension, goes with it."""
    async with db.engine.connect() as connection:
        try:
            if db.settings.prepared_statements:  # else it is PgBouncer's, and a setting would stay on another's
                await connection.run_sync(unhurry)
            yield connection
        finally:
            await connection.invalidate()


async def _perform(connection: AsyncConnection, step: Step, patience: timedelta, *, done: int, left: int) -> None:
    def work(sync_connection: Connection) -> None:
        perform(sync_connection, step, Base.metadata, retentions=retention.held_overrides, patience=patience)

    try:
        with translated():
            await connection.run_sync(work)
    except ArbstoreError as error:
        state = error.sqlstate if isinstance(error, DatabaseError) else None
        reason = await _reason(connection, step, error, state, patience)
        raise SyncError(str(step), reason, done=done, left=left, sqlstate=state) from error


async def _reason(
    connection: AsyncConnection, step: Step, error: ArbstoreError, state: str | None, patience: timedelta
) -> str:
    if state == "53200":
        return f"{error}: raise max_locks_per_transaction of the server, or remove old rows by `arbstore db cleanup`"
    if state not in IN_USE:
        return str(error)
    others = await connection.run_sync(lambda sync_connection: holders(sync_connection, step))
    by = ", ".join(
        f"{one.application} (pid {one.pid}, since {one.since.astimezone(UTC):%H:%M:%S} UTC)" for one in others
    )
    return f"{step.place} is in use{f' by {by}' if by else ''}, and was not free within {patience.total_seconds():g} s"


def _planned(step: Step, sizes: Mapping[str, TableStats]) -> PlannedStep:
    size = sizes.get(step.place)
    if size is None:
        return PlannedStep(what=str(step), place=step.place)
    if step.moves_rows:
        return PlannedStep(what=str(step), place=step.place, rows=size.rows, estimated=size.estimated, bytes=size.bytes)
    old = step.drops_after is not None and size.oldest is not None and size.oldest < ago(step.drops_after)
    return PlannedStep(what=str(step), place=step.place, drops_from=size.oldest if old else None)
