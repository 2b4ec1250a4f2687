"""How long each table is kept: what its model declares, what was set instead, and what the server's policy does."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Table, delete, func, inspect, select
from sqlalchemy.dialects.postgresql import insert

from alembic_timescaledb import declared, server
from alembic_timescaledb.server import (
    RetentionPolicy,
    refresh_windows,
    remove_retention_policy,
    retention_policies,
    set_retention_policy,
)
from arbstore import locks
from arbstore.errors import ValidationError
from arbstore.models import Base, RetentionOverride
from arbstore.records.rules import BEGINNING, ago
from arbstore.services.service import Service

_OVERRIDE = RetentionOverride.__table__

log = logging.getLogger(__name__)


class Retention(NamedTuple):
    """How long one table is kept; None is for good.

    `keep_for` is what holds: the server's policy where it runs jobs on the table, else `wanted`, which is what was
    set at `set_at` or, where that is None, what the model declares. The two differ where somebody changed the policy
    behind arbstore's back. `policy` says whether a job of the server removes the rows, at `next_run` if that is known;
    elsewhere a cleanup does.
    """

    table: str
    keep_for: timedelta | None
    wanted: timedelta | None
    declared: timedelta | None
    set_at: datetime | None
    policy: bool
    next_run: datetime | None

    @property
    def cutoff(self) -> datetime | None:
        """The moment before which rows have outlived the retention by now; None where none ever does."""
        return None if self.keep_for is None else ago(self.keep_for)


class Retentions(Service):
    """The retention of the time-series tables, on the running server."""

    async def retention(self) -> list[Retention]:
        """Return how long each time-series table is kept, by name."""
        return await self._on_connection(in_force)

    async def set_retention(self, table: str, keep_for: timedelta | None) -> Retention:
        """Keep the table's rows that long, None for good, whatever its model declares, now or later.

        It holds from the end of the session's transaction on: for the server's policy, and for every cleanup. Raises
        ValidationError for another table than a time series, and for an age that is not more than zero, that reaches
        back beyond the year 1, or that is shorter than what a continuous aggregate of the server is refreshed over.
        """
        check_ages({table: keep_for})
        if keep_for is not None and ago(keep_for) == BEGINNING:
            raise ValidationError(f"reaches back beyond the year 1: {keep_for}. Keep it for good instead", field=table)
        values = {"table_name": table, "keep_for": keep_for}
        statement = insert(_OVERRIDE).values(**values)
        changed = {"keep_for": statement.excluded.keep_for, "created_at": func.now()}
        await self._execute(select(func.pg_advisory_xact_lock(locks.RETENTION)))
        await self._on_connection(lambda connection: _check_refreshes(connection, table, keep_for))
        await self._execute(statement.on_conflict_do_update(constraint=_OVERRIDE.primary_key, set_=changed))
        return await self._applied(table, keep_for)

    async def reset_retention(self, table: str) -> Retention:
        """Keep the table's rows as long as its model declares; see `set_retention`."""
        keep_for = _declared(table)
        await self._execute(select(func.pg_advisory_xact_lock(locks.RETENTION)))
        await self._on_connection(lambda connection: _check_refreshes(connection, table, keep_for))
        await self._execute(delete(_OVERRIDE).where(_OVERRIDE.c.table_name == table))
        return await self._applied(table, keep_for)

    async def hold_retention(self, given: Mapping[str, timedelta | None] | None = None) -> dict[str, timedelta | None]:
        """Return how long each table is kept, by name; nobody changes that before the transaction ends.

        `given` wins. Raises ValidationError for another table than a time series, and for an age not above zero.
        """
        check_ages(given or {})
        await self._execute(select(func.pg_advisory_xact_lock_shared(locks.RETENTION)))
        return {found.table: found.keep_for for found in await self.retention()} | dict(given or {})

    async def _applied(self, table: str, keep_for: timedelta | None) -> Retention:
        await self._on_connection(lambda connection: _apply(connection, table, keep_for))
        return next(found for found in await self.retention() if found.table == table)


def in_force(connection: Connection) -> list[Retention]:
    """Return how long each time-series table is kept, by name."""
    overrides = {name: (age, at) for name, age, at in connection.execute(select(*_OVERRIDE.c))}
    policies = retention_policies(connection)
    jobs = server.hypertables(connection) if server.edition(connection).has_policies else {}
    return [
        _in_force(table, overrides.get(name), policies.get(name), jobs=name in jobs)
        for name, table in time_series().items()
    ]


def _in_force(
    table: Table, override: tuple[timedelta | None, datetime] | None, policy: RetentionPolicy | None, *, jobs: bool
) -> Retention:
    usual = _declared(table.name)
    wanted, set_at = override or (usual, None)
    return Retention(
        table=table.name,
        # Where jobs run, a table without one was meant to be kept.
        keep_for=(policy and policy.drop_after) if jobs else wanted,
        wanted=wanted,
        declared=usual,
        set_at=set_at,
        policy=policy is not None,
        next_run=policy and policy.next_run,
    )


def overrides(connection: Connection) -> dict[str, timedelta | None]:
    """Return what was set, by table; nothing where the schema is older than the table of it."""
    if not inspect(connection).has_table(_OVERRIDE.name):
        return {}
    return {row[0]: row[1] for row in connection.execute(select(_OVERRIDE.c.table_name, _OVERRIDE.c.keep_for))}


def held_overrides(connection: Connection) -> dict[str, timedelta | None]:
    """Return what was set, by table; nobody changes that before the transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock_shared(locks.RETENTION)))
    return overrides(connection)


def enforce(connection: Connection) -> None:
    """Bring the server's policies to what was set: a revision knows only what the models declare.

    What was set before there were refreshes that forbid it is left out, with a warning: the rows stay.
    """
    if not overrides(connection):
        return
    for found in in_force(connection):
        if found.set_at is not None and found.keep_for != (wanted := _allowed(connection, found)):
            log.info("%s is kept %s from now on", found.table, wanted or "for good")
            _apply(connection, found.table, wanted)


def _allowed(connection: Connection, found: Retention) -> timedelta | None:
    try:
        _check_refreshes(connection, found.table, found.wanted)
    except ValidationError as error:
        log.warning("%s; until it is set anew, all rows are kept", error)
        return None
    return found.wanted


def _apply(connection: Connection, table: str, keep_for: timedelta | None) -> None:
    if not server.edition(connection).has_policies or table not in server.hypertables(connection):
        return
    if keep_for is None:
        remove_retention_policy(connection, table)
    else:
        set_retention_policy(connection, table, keep_for)


def _check_refreshes(connection: Connection, table: str, keep_for: timedelta | None) -> None:
    if keep_for is None:
        return
    for view, window in refresh_windows(connection, table).items():
        if window is None or window > keep_for:
            reach = "everything" if window is None else f"the last {window}"
            raise ValidationError(
                f"{keep_for} is too short: {view} is refreshed over {reach}, and would lose what the dropped rows made",
                field=table,
            )


def time_series() -> dict[str, Table]:
    """Return the tables that have a retention, if only one of for good, by name."""
    tables = {table.name: table for table in Base.metadata.sorted_tables if declared(table) is not None}
    return dict(sorted(tables.items()))


def time_series_table(name: str) -> Table:
    """Return the table; raise ValidationError for another than a time series."""
    tables = time_series()
    if name not in tables:
        raise ValidationError(f"is no time-series table: those are {', '.join(tables)}", field=name)
    return tables[name]


def check_ages(ages: Mapping[str, timedelta | None]) -> None:
    """Raise ValidationError for another table than a time series, and for an age not above zero."""
    for table, age in ages.items():
        time_series_table(table)
        if age is not None and age <= timedelta(0):
            raise ValidationError(f"must be more than zero, is {age}", field=table)


def _declared(table: str) -> timedelta | None:
    found = declared(time_series_table(table))
    return None if found is None else found.retention
