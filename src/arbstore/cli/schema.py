"""`arbstore db upgrade` and `current`: the revision of the schema."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from arbstore.cli import show
from arbstore.cli.command import options_of, run, settings_of
from arbstore.cli.failures import BEHIND
from arbstore.cli.status import lack_lines
from arbstore.errors import ConfigurationError, translated
from arbstore.records import Record

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from alembic_timescaledb.server import Edition
    from arbstore.database import Database
    from arbstore.deploy.status import Drift, Lack

T = TypeVar("T")


class Applied(Record, frozen=True, kw_only=True):
    """A revision that was applied."""

    revision: str
    title: str


class Deployment(Record, frozen=True, kw_only=True):
    """What `deploy` did; `lacks` and `drift` as in Status."""

    before: str | None
    after: str | None
    applied: tuple[Applied, ...]
    edition: Edition
    lacks: tuple[Lack, ...]
    drift: tuple[Drift, ...]


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
    drifted = [f"{len(done.drift)} things are not as declared: run `arbstore db sync`"] if done.drift else []
    state = f"the schema is at {done.after}" + ("" if done.applied else " already")
    show.print_people(state, *drifted, *lack_lines(done.edition, done.lacks))


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


async def deploy(db: Database, revision: str = "head") -> Deployment:
    """Bring the schema to the revision and return what that took; what has been applied already stays."""
    return await _on_connection(db, lambda connection: _deploy(connection, revision))


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

    from alembic_timescaledb import server
    from arbstore import migrations
    from arbstore.deploy.status import drift, lacks

    before = migrations.current(connection)
    try:
        migrations.upgrade(connection, revision)
    except CommandError as error:
        raise ConfigurationError(f"the schema cannot be brought to {revision}: {error}") from error
    after = migrations.current(connection)
    edition = server.edition(connection)
    steps = ScriptDirectory.from_config(migrations.config()).iterate_revisions(after or "base", before or "base")
    applied = tuple(Applied(revision=step.revision, title=(step.doc or "").rstrip(".")) for step in steps)
    return Deployment(
        before=before,
        after=after,
        applied=applied[::-1],
        edition=edition,
        lacks=lacks(connection),
        drift=tuple(drift(connection)) if after == migrations.head() else (),
    )


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show what the migrations say of themselves while they run."""

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # Alembic also says, at each call, what it thinks of the database.
            if record.name.startswith("alembic_timescaledb") or record.msg.startswith("Running"):
                typer.echo(record.getMessage(), err=True)

    echo = Echo(logging.INFO)
    loggers = [logging.getLogger(name) for name in ("alembic_timescaledb", "alembic.runtime.migration")]
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
