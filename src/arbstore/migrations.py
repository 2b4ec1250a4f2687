"""Deploys the schema: the revisions of `alembic/`, run by the `alembic` command, the command line or a program."""

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
from arbstore import locks
from arbstore.database import Database
from arbstore.errors import ConfigurationError, DeployRunningError
from arbstore.models import Base
from arbstore.services import retention

_PLUGINS = ["alembic.autogenerate.*", "alembic_timescaledb"]
_RUNNING = threading.Lock()

log = logging.getLogger(__name__)


def script_location() -> Path:
    """Return the folder of the revisions: inside the wheel, or at the top of a checkout."""
    packaged = Path(__file__).with_name("alembic")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "alembic"


def config(connection: Connection | None = None, *, edition: Edition | None = None) -> Config:
    """Return a configuration for Alembic's commands that works without `alembic.ini`.

    They run over `connection` where one is given, else over the database of the settings.
    """
    made = Config()
    made.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    made.attributes["edition"] = edition
    return made


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
    return str(ScriptDirectory.from_config(config()).get_current_head())


def current(connection: Connection) -> str | None:
    """Return the revision that the database is at, None before the first."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the database to the revision; call it by `AsyncConnection.run_sync`."""
    with _alone():
        command.upgrade(config(connection), revision)


async def deploy(db: Database) -> None:
    """Bring an open database to the newest revision; nothing happens where it is there already."""
    async with db.engine.connect() as connection:
        await connection.run_sync(upgrade)


@asynccontextmanager
async def turn(db: Database) -> AsyncIterator[None]:
    """Keep every deploy of the database out while the block runs. Takes a connection.

    Raises DeployRunningError while one is under way.
    """
    async with db.engine.begin() as connection:
        # It sits idle in this transaction while others do the work.
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        if not await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": locks.MIGRATIONS}):
            raise DeployRunningError
        yield


def downgrade(connection: Connection, revision: str = "base") -> None:
    """Take the database back to the revision; with "base" all data goes."""
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
        raise CommandError(f"-x edition={given}: there is {options}") from None


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
    connection.commit()  # Alembic leaves the commit to whoever began a transaction before it
    if edition is None:
        # By itself: were it undone by a failure of the rest, this connection could not create it a second time.
        _wait_for_turn(connection)
        edition = server.enable(connection)
        connection.commit()
    set_here = retention.overrides(connection)
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        autogenerate_plugins=_PLUGINS,
        timescale_edition=edition,
        timescale_retentions=set_here,
    )
    with context.begin_transaction():
        _wait_for_turn(connection)
        before = current(connection)
        context.run_migrations()
        if current(connection) != before:
            retention.enforce(connection)


def _wait_for_turn(connection: Connection) -> None:
    """Keep other deploys out until the transaction ends, and let it take its time."""
    # Of the transaction: through PgBouncer a session's lock or setting would stay on another's connection.
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": locks.MIGRATIONS}):
        log.info("another deploy is under way: waiting for its end")
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": locks.MIGRATIONS})
