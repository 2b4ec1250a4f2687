"""Deploys the schema: runs the revisions of `alembic/` for the `alembic` command, the command line or a program."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from logging.config import fileConfig
from pathlib import Path

from alembic import command, context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from alembic_timescaledb import server
from alembic_timescaledb.server import Edition
from arbstore.database import Database
from arbstore.errors import ConfigurationError, DeployRunningError, translated
from arbstore.models import Base
from arbstore.postgres import Lock
from arbstore.records import Record
from arbstore.services import retention

_PLUGINS = ["alembic.autogenerate.*", "alembic_timescaledb"]
_RUNNING = threading.Lock()
_LOCK = text("SELECT pg_advisory_xact_lock(:key)").bindparams(key=Lock.MIGRATIONS)
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(:key)").bindparams(key=Lock.MIGRATIONS)

log = logging.getLogger(__name__)


class Applied(Record, frozen=True, kw_only=True):
    """A revision that was applied."""

    revision: str
    title: str


class Deployment(Record, frozen=True, kw_only=True):
    """What a deploy did; `before` and `after` are revisions, None before the first one."""

    before: str | None
    after: str | None
    applied: tuple[Applied, ...]


def script_location() -> Path:
    """Return the folder of the revisions: inside the wheel, or at the top of a checkout."""
    packaged = Path(__file__).with_name("alembic")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "alembic"


def config(connection: Connection | None = None, *, edition: Edition | None = None) -> Config:
    """Return a configuration for Alembic's commands that works without `alembic.ini`.

    The commands use `connection` if it is given, else the database of the settings.
    """
    made = Config()
    made.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    made.attributes["edition"] = edition
    return made


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(config())


@contextmanager
def _alone() -> Iterator[None]:
    """Refuse a second migration while one runs: `alembic.op` is global, and two would write through one another."""
    if not _RUNNING.acquire(blocking=False):
        raise ConfigurationError("a migration is running in this process: wait for it, or start another process")
    try:
        yield
    finally:
        _RUNNING.release()


def head() -> str:
    """Return the newest revision that this version of arbstore has."""
    return str(_scripts().get_current_head())


def current(connection: Connection) -> str | None:
    """Return the revision that the database is at, None before the first."""
    return MigrationContext.configure(connection).get_current_revision()


async def revisions(db: Database) -> tuple[str | None, str]:
    """Return the revision that an open database is at, None before the first, and the newest one."""
    with translated():
        async with db.engine.connect() as connection:
            return await connection.run_sync(current), head()


def check_revision(revision: str) -> None:
    """Raise ConfigurationError if no revision has this name."""
    try:
        _scripts().get_revisions(revision)
    except CommandError as error:
        raise ConfigurationError(str(error), parameter="revision") from error


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the database to the revision; call it by `AsyncConnection.run_sync`."""
    with _alone():
        command.upgrade(config(connection), revision)


async def deploy(db: Database, revision: str = "head") -> Deployment:
    """Bring an open database to the revision, and return what was applied.

    Raises ConfigurationError if the database's own revision is unknown, as after a deploy by a newer arbstore.
    """
    with translated():
        async with db.engine.connect() as connection:
            return await connection.run_sync(_deploy, revision)


def _deploy(connection: Connection, revision: str) -> Deployment:
    before = current(connection)
    try:
        upgrade(connection, revision)
    except CommandError as error:
        raise ConfigurationError(f"the schema cannot be brought to {revision}: {error}") from error
    after = current(connection)
    steps = list(_scripts().iterate_revisions(after or "base", before or "base"))
    applied = (Applied(revision=step.revision, title=(step.doc or "").rstrip(".")) for step in reversed(steps))
    return Deployment(before=before, after=after, applied=tuple(applied))


@asynccontextmanager
async def hold_deploy_lock(db: Database) -> AsyncIterator[None]:
    """Keep every deploy of the database out while the block runs. Takes a connection.

    Raises DeployRunningError while another deploy is running.
    """
    async with db.engine.begin() as connection:
        # This transaction sits idle while other connections do the work.
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        if not await connection.scalar(_TRY_LOCK):
            raise DeployRunningError
        yield


def downgrade(connection: Connection, revision: str = "base") -> None:
    """Take the database back to the revision; "base" drops every table with its data."""
    with _alone():
        command.downgrade(config(connection), revision)


def ddl(edition: Edition = Edition.COMMUNITY) -> str:
    """Return the whole schema as SQL, as `alembic upgrade head --sql` prints it."""
    made = config(edition=edition)
    made.output_buffer = io.StringIO()
    command.upgrade(made, "head", sql=True)
    return str(made.output_buffer.getvalue())


def run() -> None:
    """Run Alembic's current command; `alembic/env.py` is this call."""
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    connection: Connection | None = context.config.attributes.get("connection")
    if context.is_offline_mode():
        _run_offline()
    elif connection is not None:
        _run_online(connection)
    else:
        asyncio.run(_run_on_configured())


async def _run_on_configured() -> None:
    async with Database() as db, db.engine.connect() as connection:
        await connection.run_sync(_run_online)


def _wanted_edition() -> Edition | None:
    given = context.get_x_argument(as_dictionary=True).get("edition") or context.config.attributes.get("edition")
    try:
        return None if given is None else Edition(given)
    except ValueError:
        options = "|".join(Edition)
        raise CommandError(f"-x edition={given} is unknown: use {options}") from None


def _run_offline() -> None:
    edition = _wanted_edition() or Edition.COMMUNITY
    context.configure(
        dialect_name="postgresql",
        target_metadata=Base.metadata,
        dialect_opts={"paramstyle": "named"},  # the default one doubles each percent sign
        literal_binds=True,
        timescale_edition=edition,
    )
    with context.begin_transaction():
        if edition.has_hypertables:
            context.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        context.run_migrations()


def _run_online(connection: Connection) -> None:
    edition = _wanted_edition()
    connection.commit()  # Alembic does not commit a transaction that began before it
    if edition is None:
        # The extension gets a transaction of its own: a connection can create it only once, even after a rollback.
        _wait_for_deploy_lock(connection)
        edition = server.enable(connection)
        connection.commit()
    overrides = retention.overrides(connection)
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        autogenerate_plugins=_PLUGINS,
        timescale_edition=edition,
        timescale_retentions=overrides,
    )
    with context.begin_transaction():
        _wait_for_deploy_lock(connection)
        before = current(connection)
        context.run_migrations()
        if current(connection) != before:
            retention.enforce(connection)


def _wait_for_deploy_lock(connection: Connection) -> None:
    """Keep other deploys out until the transaction ends, and give this one all the time it needs."""
    # Both belong to the transaction: through PgBouncer, the session's could stay on another client's connection.
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    if not connection.scalar(_TRY_LOCK):
        log.info("another deploy is running: waiting for its end")
        connection.execute(_LOCK)
