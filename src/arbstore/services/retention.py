"""How long each time-series table keeps its rows: what its model declares, what was set, what the server's policy does.

Removing the rows is the task of `maintenance`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

from sqlalchemy import Connection, Executable, Table, delete, func, inspect, select
from sqlalchemy.dialects.postgresql import insert

from alembic_timescaledb import declared, server
from alembic_timescaledb.server import (
    RetentionPolicy,
    refresh_windows,
    remove_retention_policy,
    retention_policies,
    set_retention_policy,
)
from arbstore.errors import ValidationError
from arbstore.models import Base, RetentionOverride
from arbstore.postgres import Lock
from arbstore.records.rules import BEGINNING, ago
from arbstore.services import Service

Ages: TypeAlias = Mapping[str, timedelta | None]  # by table; None keeps its rows for good

_OVERRIDE = RetentionOverride.__table__

log = logging.getLogger(__name__)


class Retention(NamedTuple):
    """How long one table keeps its rows; None is for good.

    `keep_for` is in force now. `declared` is the model's retention, and `wanted` is what was set instead at `set_at`;
    without a setting, `wanted` equals `declared`. `keep_for` differs from `wanted` if somebody changed the server's
    policy directly. `policy` says whether a job of the server removes the rows, at `next_run` if that is known.
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
        """The moment before which rows are too old now; None if no row ever is."""
        return None if self.keep_for is None else ago(self.keep_for)

    @property
    def enforced_by(self) -> str | None:
        """What removes the old rows; None if nothing does."""
        if self.keep_for is None:
            return None
        return "a policy of the server" if self.policy else "`arbstore db cleanup`"


class Retentions(Service):
    """Reads and changes the retention of the time-series tables on the running server."""

    async def retention(self, table: str | None = None) -> list[Retention]:
        """Return the retention of each time-series table, by name; of one table alone if it is given.

        Raises ValidationError if `table` is not a time-series table.
        """
        names = time_series() if table is None else {time_series_table(table).name}
        return [found for found in await self._on_connection(in_force) if found.table in names]

    async def set_retention(self, table: str, keep_for: timedelta | None) -> Retention:
        """Keep the table's rows for `keep_for` (None: for good), whatever its model declares now or later.

        The setting takes effect when the session's transaction ends, for the server's policy and for every cleanup.
        Raises ValidationError for another table, and for a `keep_for` that is not above zero, begins before the year 1,
        or is shorter than the refresh window of a continuous aggregate.
        """
        check_ages({table: keep_for})
        if keep_for is not None and ago(keep_for) == BEGINNING:
            raise ValidationError(f"begins before the year 1: {keep_for}. Use None to keep all rows", field=table)
        statement = insert(_OVERRIDE).values(table_name=table, keep_for=keep_for)
        changed = {"keep_for": statement.excluded.keep_for, "created_at": func.now()}
        setting = statement.on_conflict_do_update(constraint=_OVERRIDE.primary_key, set_=changed)
        return await self._change(table, keep_for, setting)

    async def reset_retention(self, table: str) -> Retention:
        """Keep the table's rows as long as its model declares; see `set_retention`."""
        keep_for = _declared(time_series_table(table))
        return await self._change(table, keep_for, delete(_OVERRIDE).where(_OVERRIDE.c.table_name == table))

    async def hold_retention(self, given: Ages | None = None) -> dict[str, timedelta | None]:
        """Return how long each table keeps its rows; nobody can change that before the transaction ends.

        Ages in `given` replace those in force. Raises ValidationError for an unknown table or an age not above zero.
        """
        check_ages(given or {})
        await self._execute(select(func.pg_advisory_xact_lock_shared(Lock.RETENTION)))
        return {found.table: found.keep_for for found in await self.retention()} | dict(given or {})

    async def _change(self, table: str, keep_for: timedelta | None, statement: Executable) -> Retention:
        await self._execute(select(func.pg_advisory_xact_lock(Lock.RETENTION)))
        await self._on_connection(lambda connection: _check_refreshes(connection, table, keep_for))
        await self._execute(statement)
        await self._on_connection(lambda connection: _apply(connection, table, keep_for))
        return (await self.retention(table))[0]


Settings: TypeAlias = Mapping[str, tuple[timedelta | None, datetime]]  # what was set, and when, by table


def in_force(connection: Connection, settings: Settings | None = None) -> list[Retention]:
    """Return the retention of each time-series table, by name; `settings` are read unless they are given."""
    if settings is None:
        settings = {name: (age, at) for name, age, at in connection.execute(select(*_OVERRIDE.c))}
    policies = retention_policies(connection)
    jobs = server.hypertables(connection) if server.edition(connection).has_policies else {}
    return [
        _in_force(table, settings.get(name), policies.get(name), jobs=name in jobs)
        for name, table in time_series().items()
    ]


def _in_force(
    table: Table, setting: tuple[timedelta | None, datetime] | None, policy: RetentionPolicy | None, *, jobs: bool
) -> Retention:
    wanted, set_at = setting or (_declared(table), None)
    return Retention(
        table=table.name,
        # If the server runs jobs, a table without a policy keeps all its rows: no cleanup may remove them.
        keep_for=(policy and policy.drop_after) if jobs else wanted,
        wanted=wanted,
        declared=_declared(table),
        set_at=set_at,
        policy=policy is not None,
        next_run=policy and policy.next_run,
    )


def is_settable(connection: Connection) -> bool:
    """Return whether the schema is new enough to hold settings of the retention."""
    return inspect(connection).has_table(_OVERRIDE.name)


def overrides(connection: Connection) -> dict[str, timedelta | None]:
    """Return what was set, by table; nothing if the schema is too old to hold settings."""
    if not is_settable(connection):
        return {}
    return {row[0]: row[1] for row in connection.execute(select(_OVERRIDE.c.table_name, _OVERRIDE.c.keep_for))}


def held_overrides(connection: Connection) -> dict[str, timedelta | None]:
    """Return what was set, by table; nobody can change that before the transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock_shared(Lock.RETENTION)))
    return overrides(connection)


def enforce(connection: Connection) -> None:
    """Make the server's policies follow what was set: a revision creates only those that the models declare.

    A setting that a continuous aggregate forbids is left out with a warning, and the table keeps its rows.
    """
    if not overrides(connection):
        return
    for found in in_force(connection):
        if found.set_at is not None and found.keep_for != (wanted := _allowed(connection, found)):
            log.info("%s keeps its rows %s from now on", found.table, wanted or "for good")
            _apply(connection, found.table, wanted)


def _allowed(connection: Connection, found: Retention) -> timedelta | None:
    try:
        _check_refreshes(connection, found.table, found.wanted)
    except ValidationError as error:
        log.warning("%s. All rows are kept until the retention is set again", error)
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
            window_text = "everything" if window is None else f"the last {window}"
            raise ValidationError(
                f"{keep_for} is too short: {view} is refreshed over {window_text}, and a refresh over dropped rows"
                " would erase what was computed from them",
                field=table,
            )


def time_series() -> dict[str, Table]:
    """Return the time-series tables by name: those that have a retention, even if it is for good."""
    return {name: table for name, table in sorted(Base.metadata.tables.items()) if declared(table) is not None}


def time_series_table(name: str) -> Table:
    """Return the table; raise ValidationError if it is not a time-series table."""
    tables = time_series()
    if name not in tables:
        raise ValidationError(f"is not a time-series table; use one of {', '.join(tables)}", field=name)
    return tables[name]


def check_ages(ages: Ages) -> None:
    """Raise ValidationError if a table is not a time series, or an age is not above zero."""
    for table, age in ages.items():
        time_series_table(table)
        if age is not None and age <= timedelta(0):
            raise ValidationError(f"must be above zero, is {age}", field=table)


def _declared(table: Table) -> timedelta | None:
    found = declared(table)
    return None if found is None else found.retention
