"""After moving to a richer server, creates what the models declare and the old server could not have."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from alembic_timescaledb import server
from alembic_timescaledb.server import Edition
from alembic_timescaledb.upgrade import IN_USE, Left, Plan, Step, holders, perform, plan, unhurry
from arbstore import migrations
from arbstore.database import Database
from arbstore.errors import (
    AlignmentError,
    ArbstoreError,
    ConfigurationError,
    DatabaseError,
    SchemaOutOfDateError,
    translated,
)
from arbstore.models import Base
from arbstore.records import Record
from arbstore.records.rules import ago
from arbstore.services import retention
from arbstore.services.maintenance import TableStats

Progress: TypeAlias = Callable[[int, int, str], None]

# How long a step waits for a table that is in use. Sessions that come after it wait behind it.
PATIENCE = timedelta(seconds=10)

log = logging.getLogger(__name__)


class PlannedStep(Record, frozen=True, kw_only=True):
    """One step. If it moves a table's rows under a lock, `rows` (perhaps `estimated`) and `bytes` are the table's size.

    `drops_from` is the time of the oldest row if the server will drop old rows as soon as the step is done.
    """

    what: str
    place: str
    rows: int | None = None
    estimated: bool | None = None
    bytes: int | None = None
    drops_from: datetime | None = None


class AlignmentPlan(Record, frozen=True, kw_only=True):
    """The steps that an alignment would take, in order, and the differences that it would leave."""

    edition: Edition
    steps: tuple[PlannedStep, ...]
    left: tuple[Left, ...]


async def plan_alignment(db: Database) -> AlignmentPlan:
    """Return the steps that bring the server to what the models declare and operators have set; change nothing.

    Raises SchemaOutOfDateError unless the schema is at the newest revision, and ConfigurationError through PgBouncer.
    """
    found, edition = await _plan(db)
    sizes: dict[str, TableStats] = {}
    if any(step.moves_rows or step.drops_after for step in found.steps):
        async with db.begin() as store:
            sizes = {one.table: one for one in await store.maintenance.stats()}
    return AlignmentPlan(edition=edition, steps=tuple(_planned(step, sizes) for step in found.steps), left=found.left)


async def align(
    db: Database, planned: AlignmentPlan, *, patience: timedelta = PATIENCE, progress: Progress | None = None
) -> AlignmentPlan:
    """Take the planned steps, and return a new plan: it has no steps unless something changed meanwhile.

    Each step commits by itself. An interrupted alignment keeps the steps that are done, and a second call goes on from
    there. Rows that are written during a step wait for it, and none is lost. A step waits for a table in use for at
    most `patience`. `progress` is called before each step with its number, the number of steps, and the step. Takes
    two connections. Raises AlignmentError if a step fails, and DeployRunningError while another deploy is running.
    """
    wanted = {step.what for step in planned.steps}
    with translated():
        async with migrations.hold_deploy_lock(db):
            steps = [step for step in (await _plan(db))[0].steps if str(step) in wanted]
            async with _own_connection(db) as connection:
                for number, step in enumerate(steps):
                    if progress is not None:
                        progress(number + 1, len(steps), str(step))
                    log.info("%s", step)
                    await _perform(connection, step, patience, done=number, left=len(steps) - number)
    return await plan_alignment(db)


async def _plan(db: Database) -> tuple[Plan, Edition]:
    def read(connection: Connection) -> tuple[Plan, Edition]:
        _check_revision(connection)
        overrides = retention.overrides(connection)
        edition = server.edition(connection)
        connection.rollback()
        return plan(connection, Base.metadata, retentions=overrides), edition

    with translated():
        async with _own_connection(db) as connection:
            return await connection.run_sync(read)


def _check_revision(connection: Connection) -> None:
    current, head = migrations.current(connection), migrations.head()
    if current != head:
        state = f"at revision {current}, newest {head}" if current else "not deployed"
        raise SchemaOutOfDateError(f"the schema is {state}: run `arbstore db upgrade` first")


@asynccontextmanager
async def _own_connection(db: Database) -> AsyncIterator[AsyncConnection]:
    """Yield a connection that is closed afterwards: its settings, and its view of the extension, end with it."""
    if not db.settings.prepared_statements:
        raise ConfigurationError(
            "an alignment needs a session of its own, which PgBouncer does not give:"
            " connect to PostgreSQL directly, and set ARBSTORE_PREPARED_STATEMENTS=true"
        )
    async with db.engine.connect() as connection:
        try:
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
        reason = str(error)
        if state == "53200":
            reason += ": raise the server's max_locks_per_transaction, or remove old rows by `arbstore db cleanup`"
        elif state in IN_USE:
            reason = await _in_use(connection, step, patience)
        raise AlignmentError(str(step), reason, done=done, left=left, sqlstate=state) from error


async def _in_use(connection: AsyncConnection, step: Step, patience: timedelta) -> str:
    others = await connection.run_sync(lambda sync_connection: holders(sync_connection, step))
    by = ", ".join(
        f"{one.application} (pid {one.pid}, since {one.since.astimezone(UTC):%H:%M:%S} UTC)" for one in others
    )
    return f"{step.place} is in use{f' by {by}' if by else ''}, and was not free within {patience.total_seconds():g} s"


def _planned(step: Step, sizes: Mapping[str, TableStats]) -> PlannedStep:
    more: dict[str, Any] = {}
    size = sizes.get(step.place)
    if size is not None and step.moves_rows:
        more = {"rows": size.rows, "estimated": size.estimated, "bytes": size.bytes}
    elif size is not None and step.drops_after and size.oldest and size.oldest < ago(step.drops_after):
        more = {"drops_from": size.oldest}
    return PlannedStep(what=str(step), place=step.place, **more)
