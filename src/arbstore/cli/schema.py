"""`arbstore db upgrade`, `current` and `status`: the schema and the server it is on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from arbstore.cli import show
from arbstore.cli.command import options_of, run, settings_of
from arbstore.cli.failures import BEHIND
from arbstore.errors import ConfigurationError, translated
from arbstore.records import Record

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

    from arbstore.database import Database
    from arbstore.timescale.catalog import Edition, HypertableState

T = TypeVar("T")

_CLEANUP = "arbstore db cleanup"


class Applied(Record, frozen=True, kw_only=True):
    """A revision that was applied."""

    revision: str
    title: str


class Lack(Record, frozen=True, kw_only=True):
    """What the server's edition cannot do, and what does it instead."""

    feature: str
    instead: str


class Deployment(Record, frozen=True, kw_only=True):
    """What `deploy` did; `lacks` as in Status."""

    before: str | None
    after: str | None
    applied: tuple[Applied, ...]
    edition: Edition
    lacks: tuple[Lack, ...]


class TableStatus(Record, frozen=True, kw_only=True):
    """One time-series table. `enforced_by` is None where nothing is ever removed, or the table is missing."""

    table: str
    kind: str  # hypertable, ordinary or missing
    chunks: int | None
    chunk_interval: timedelta | None
    retention: timedelta | None
    enforced_by: str | None


class Status(Record, frozen=True, kw_only=True):
    """A server, and the state of the schema on it."""

    database: str
    postgresql: str
    edition: Edition
    timescaledb: str | None
    revision: str | None
    head: str
    tables: tuple[TableStatus, ...]
    lacks: tuple[Lack, ...]


def upgrade(
    context: typer.Context,
    revision: Annotated[
        str, typer.Argument(metavar="REVISION", help="Where to: `head`, or a revision such as 0002.")
    ] = "head",
) -> None:
    """Deploy the schema, or bring it up to date."""
    options = options_of(context)
    _check_known(revision)
    with _log_on_stderr():
        done = run(settings_of(options), lambda db: deploy(db, revision))
    if options.json:
        show.print_json(done)
        return
    show.print_people(*(f"applied {step.revision}: {step.title}" for step in done.applied))
    show.print_people(f"the schema is at {done.after}" + ("" if done.applied else " already"), *_lack_lines(done))


def current(context: typer.Context) -> None:
    """Show the schema's revision; exit with 1 unless it is the newest."""
    options = options_of(context)
    revision, head = run(settings_of(options), _revisions)
    up_to_date = revision == head
    if options.json:
        show.print_json({"revision": revision, "head": head, "up_to_date": up_to_date})
    else:
        remedy = "" if up_to_date else "; run `arbstore db upgrade`"
        show.print_people(f"revision {revision or 'none'}, newest {head}{remedy}")
    if not up_to_date:
        raise typer.Exit(BEHIND)


def status(context: typer.Context) -> None:
    """Show server, edition, tables, and what removes old rows."""
    options = options_of(context)
    found = run(settings_of(options), status_of)
    if options.json:
        show.print_json(found)
        return
    extension = f"TimescaleDB {found.timescaledb}, {found.edition} edition" if found.timescaledb else "no TimescaleDB"
    behind = "" if found.revision == found.head else f", newest {found.head}: run `arbstore db upgrade`"
    show.print_people(
        f"database  {found.database}",
        f"server    PostgreSQL {found.postgresql}, {extension}",
        f"schema    {'not deployed' if found.revision is None else f'revision {found.revision}'}{behind}",
        show.table(map(_table_row, found.tables)),
        *_lack_lines(found),
    )


def _table_row(found: TableStatus) -> dict[str, Any]:
    return {
        "table": found.table,
        "kind": found.kind,
        "chunks": found.chunks,
        "chunk": found.chunk_interval,
        "retention": found.retention or "forever",
        "enforced by": found.enforced_by,
    }


def _lack_lines(found: Deployment | Status) -> list[str]:
    return [f"this edition ({found.edition}) lacks {lack.feature}: {lack.instead}" for lack in found.lacks]


async def deploy(db: Database, revision: str = "head") -> Deployment:
    """Bring the schema to the revision and return what that took; what has been applied already stays."""
    return await _on_connection(db, lambda connection: _deploy(connection, revision))


async def status_of(db: Database) -> Status:
    """Return the state of server and schema; the schema need not be there."""
    return await _on_connection(db, _status)


async def _revisions(db: Database) -> tuple[str | None, str]:
    from arbstore import migrations

    return await _on_connection(db, migrations.current), migrations.head()


async def _on_connection(db: Database, work: Callable[[Connection], T]) -> T:
    with translated():
        async with db.engine.connect() as connection:
            return await connection.run_sync(work)


def _check_known(revision: str) -> None:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    from arbstore import migrations

    try:
        ScriptDirectory.from_config(migrations.config()).get_revisions(revision)
    except CommandError as error:
        raise typer.BadParameter(str(error), param_hint="REVISION") from error


def _deploy(connection: Connection, revision: str) -> Deployment:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    from arbstore import migrations
    from arbstore.timescale import catalog

    before = migrations.current(connection)
    try:
        migrations.upgrade(connection, revision)
    except CommandError as error:
        raise ConfigurationError(f"the schema cannot be brought to {revision}: {error}") from error
    after = migrations.current(connection)
    edition = catalog.edition(connection)
    steps = ScriptDirectory.from_config(migrations.config()).iterate_revisions(after or "base", before or "base")
    applied = tuple(Applied(revision=step.revision, title=(step.doc or "").rstrip(".")) for step in steps)
    return Deployment(before=before, after=after, applied=applied[::-1], edition=edition, lacks=_lacks(edition))


def _status(connection: Connection) -> Status:
    from sqlalchemy import inspect

    from arbstore import migrations
    from arbstore.models import Base
    from arbstore.services import retention
    from arbstore.timescale import catalog, hypertables

    edition = catalog.edition(connection)
    there = set(inspect(connection).get_table_names())
    states = catalog.hypertables(connection)
    kept = retention.overrides(connection)
    return Status(
        database=_place(connection.engine.url),
        postgresql=".".join(map(str, connection.dialect.server_version_info or ())),
        edition=edition,
        timescaledb=catalog.version(connection),
        revision=migrations.current(connection),
        head=migrations.head(),
        tables=tuple(
            _table_status(
                table.name,
                kept.get(table.name, declared.retention),
                states.get(table.name),
                jobs=edition.has_policies,
                exists=table.name in there,
            )
            for table, declared in hypertables(Base.metadata)
        ),
        lacks=_lacks(edition),
    )


def _table_status(
    name: str, wanted: timedelta | None, state: HypertableState | None, *, jobs: bool, exists: bool
) -> TableStatus:
    policy = None if state is None else state.retention
    kept = policy if state and jobs else wanted
    enforced_by = "a policy of the server" if policy else f"`{_CLEANUP}`"
    return TableStatus(
        table=name,
        kind="hypertable" if state else "ordinary" if exists else "missing",
        chunks=state and state.chunks,
        chunk_interval=state and state.chunk_interval,
        retention=kept,
        enforced_by=enforced_by if exists and kept else None,
    )


def _lacks(edition: Edition) -> tuple[Lack, ...]:
    found = []
    if not edition.has_hypertables:
        instead = f"the tables are ordinary ones, and `{_CLEANUP}` deletes their old rows in batches"
        found.append(Lack(feature="hypertables", instead=instead))
    if not edition.has_policies:
        instead = f"`{_CLEANUP} --every 1h` does it as a service, or `{_CLEANUP}` from cron or a timer"
        found.append(Lack(feature="retention policies", instead=instead))
    return tuple(found)


def _place(url: URL) -> str:
    """Return where the database is, without the rest of the URL: a password can stand in its query too."""
    host = url.host or url.query.get("host", "localhost")
    return f"{url.database} of {url.username} on {host}{f':{url.port}' if url.port else ''}"


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show what the migrations say of themselves while they run."""

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # Alembic also says, at each call, what it thinks of the database.
            if record.name.startswith("arbstore") or record.msg.startswith("Running"):
                typer.echo(record.getMessage(), err=True)

    echo = Echo(logging.INFO)
    loggers = [logging.getLogger(name) for name in ("arbstore.timescale", "alembic.runtime.migration")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.addHandler(echo)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(echo)
            logger.setLevel(level)
