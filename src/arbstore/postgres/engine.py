"""The options of an engine, its first connection, and the commits that it refuses. `database` owns the engine."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import stamina
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from arbstore.errors import DatabaseConnectionError, QueryError, driver_error, translated
from arbstore.postgres.foreign_keys import OPTION
from arbstore.settings import Settings

_FAILED = "arbstore.failed"  # a key of Connection.info: a statement of the transaction failed


def refuse_failed_commits(engine: AsyncEngine) -> None:
    """Make a commit after a failed statement raise an error. PostgreSQL would roll back, and the driver not tell."""

    def note(context: ExceptionContext) -> None:
        error = context.sqlalchemy_exception
        # An error that the driver raises before it sends anything has no severity.
        if (
            context.connection is not None
            and isinstance(error, DBAPIError)
            and hasattr(driver_error(error), "severity")
        ):
            context.connection.info[_FAILED] = True

    def check(connection: Connection) -> None:
        if connection.invalidated or connection.info.pop(_FAILED, False):
            if not connection.invalidated:
                connection.connection.rollback()  # because SQLAlchemy takes the transaction for ended
            raise QueryError("a statement of this transaction failed, so nothing of it can be committed")

    def forget(connection: Connection, *_: object) -> None:
        if not connection.invalidated:
            connection.info.pop(_FAILED, None)

    event.listen(engine.sync_engine, "handle_error", note)
    event.listen(engine.sync_engine, "commit", check)
    for name in ("begin", "rollback", "rollback_savepoint"):
        event.listen(engine.sync_engine, name, forget)


def engine_options(settings: Settings) -> dict[str, Any]:
    """Return the arguments of `create_async_engine` that follow from the settings."""
    server = {"application_name": settings.application_name}
    connect: dict[str, Any] = {"server_settings": server, "timeout": settings.connect_timeout}
    if settings.ssl_mode is not None:
        connect["ssl"] = settings.ssl_mode
    if settings.prepared_statements:
        # Over hundreds of chunks the planner expects too high costs, and compiles for longer than the query runs.
        server["jit"] = "off"
        server["statement_timeout"] = f"{settings.statement_timeout * 1000:.0f}"
    else:
        # PgBouncer gives each transaction another server, so no prepared statement is kept, and each has its own name.
        # It refuses startup parameters that it does not know: set them for the role.
        connect |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        connect["prepared_statement_name_func"] = lambda: f"__arbstore_{uuid4()}__"
    return {
        "connect_args": connect,
        "execution_options": {OPTION: settings.batch_checked_foreign_keys},
        "pool_size": settings.pool_size,
        "max_overflow": settings.max_overflow,
        "pool_timeout": settings.pool_timeout,
        "pool_pre_ping": True,
        "hide_parameters": True,  # an error would print all rows of the batch
    }


async def wait_until_ready(engine: AsyncEngine, patience: float) -> None:
    """Connect once, and try again for `patience` seconds while the server may be starting."""
    async for attempt in stamina.retry_context(on=_is_passing, attempts=None, timeout=patience, wait_max=1.0):
        with attempt, translated():
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))


def _is_passing(error: Exception) -> bool:
    """Whether the next try may succeed; a wrong password or database stays wrong."""
    refused = ("28", "3D")
    return isinstance(error, DatabaseConnectionError) and not (error.sqlstate or "").startswith(refused)
