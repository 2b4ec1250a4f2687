"""Database: an engine with its sessions, the reference cache, and the connections that frames are read over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import stamina
from pydantic import SecretStr
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from arbstore import embedded
from arbstore.cache import ReferenceCache
from arbstore.errors import ConfigurationError, DatabaseConnectionError, QueryError, driver_error, translated
from arbstore.postgres.foreign_keys import OPTION
from arbstore.services.store import Store
from arbstore.settings import EMBEDDED, Settings

if TYPE_CHECKING:
    from arbstore.frames import Connections, Frames

__all__ = ["Database", "Store", "engine_options"]


class Database:
    """An engine, its sessions and the reference cache. It belongs to the event loop that opened it."""

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        """Use `url`, or else the URL of `settings`, which are read from the environment unless they are given.

        `embedded:` and `embedded:/path` start a PostgreSQL server of their own. `open` connects.
        """
        self.settings = settings or Settings.load()
        if url is not None:
            self.settings = self.settings.model_copy(update={"database_url": SecretStr(url)})
        self.cache = ReferenceCache(self.settings)
        self._url = self.settings.url
        self._server: embedded.EmbeddedServer | None = None
        self._opening = asyncio.Lock()
        self._engine: AsyncEngine | None = None
        self._connection: AsyncConnection | None = None  # of `over`: it belongs to the caller, like its engine
        self._frames: Connections | None = None  # made by the first frame

    @classmethod
    def over(cls, connection: AsyncConnection, *, settings: Settings | None = None) -> Database:
        """Return a Database whose sessions all work inside a transaction of this connection; for tests.

        Their commits only release savepoints, so a rollback of the connection removes all they wrote. Use one session
        at a time.
        """
        database = cls(connection.engine.url.render_as_string(hide_password=False), settings=settings)
        database._connection = connection
        database._engine = connection.engine
        return database

    def __repr__(self) -> str:
        """Show the URL without its password."""
        return f"<Database {self._url.render_as_string()} {'open' if self.is_open else 'closed'}>"

    async def __aenter__(self) -> Self:
        """Open it."""
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self._engine is not None

    @property
    def engine(self) -> AsyncEngine:
        """The engine, for your own statements."""
        if self._engine is None:
            raise ConfigurationError(
                "the database is not open: use `async with Database() as db`, or call `await db.open()`"
            )
        return self._engine

    @property
    def is_borrowed(self) -> bool:
        """Whether it works `over` a caller's connection. Other connections do not see its rows before that commits."""
        return self._connection is not None

    @property
    def frames(self) -> Frames[Any]:
        """History as Arrow tables, or as frames of polars and pandas. Needs the extra `frames`."""
        try:
            from arbstore.frames import Connections, arrow_frames
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("arbstore"):
                raise
            raise ConfigurationError("frames need: pip install 'arbstore[frames]'") from error
        if self._frames is None:
            self._frames = Connections(self.settings)
        return arrow_frames(self, self._frames)

    async def open(self, *, warm: bool = False) -> None:
        """Connect, waiting up to `connect_timeout` for a server that is starting; `warm` fills the reference cache.

        Raises DatabaseConnectionError if no server answers, ConfigurationError if no setting names one.
        """
        async with self._opening:  # two tasks may call this at once
            if not self.is_open:
                await self._open(warm=warm)

    async def _open(self, *, warm: bool) -> None:
        engine = create_async_engine(await self._locate(), **engine_options(self.settings))
        refuse_failed_commits(engine)
        try:
            try:
                await wait_until_ready(engine, self.settings.connect_timeout)
            except DatabaseConnectionError as error:
                error.args = (f"{engine.url}: {error}",)  # str() of a URL hides its password
                raise
            self._engine = engine
            if warm:
                await self._warm()
        except BaseException:
            self._engine = None
            await engine.dispose()
            await self._release()
            raise

    async def close(self) -> None:
        """Close all connections. An embedded server stops when no program uses it any more."""
        if self._connection is not None:
            return
        engine, self._engine = self._engine, None
        frames, self._frames = self._frames, None
        if frames is not None:
            frames.dispose()
        if engine is not None:
            await engine.dispose()
        await self._release()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Store]:
        """Yield a Store in one transaction, which commits at the end and rolls back on any error."""
        async with self.session() as session:
            try:
                yield Store(session, self.cache)
                with translated():
                    await session.commit()
            except BaseException:
                try:
                    await session.rollback()
                except DBAPIError:
                    # The connection is lost, and its transaction with it: only the first error matters.
                    await session.invalidate()
                raise

    def session(self) -> AsyncSession:
        """Return a new session. The caller commits and closes it."""
        return AsyncSession(
            self._connection or self.engine, expire_on_commit=False, join_transaction_mode="create_savepoint"
        )

    async def _locate(self) -> URL:
        if self._url.drivername != EMBEDDED:
            return self._url
        # Starting a server blocks for seconds, so it is done in a thread.
        starting = asyncio.ensure_future(asyncio.to_thread(embedded.acquire, self._url.database))
        try:
            self._server = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread goes on: its server is released when it ends.
            starting.add_done_callback(_release_when_started)
            raise
        return make_url(self._server.url).set(drivername="postgresql+asyncpg")

    async def _release(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.release)

    async def _warm(self) -> None:
        async with self.begin() as store:
            for exchange in await store.exchanges.all():
                await store.exchanges.get(exchange.id)
                await store.exchanges.by_enum(exchange.enum_value)
                await store.symbols.warm(exchange.id)


def _release_when_started(starting: asyncio.Future[embedded.EmbeddedServer]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().release()


_FAILED = "arbstore.failed"  # a key of Connection.info: a statement of the transaction failed


def refuse_failed_commits(engine: AsyncEngine) -> None:
    """Make a commit after a failed statement raise an error. PostgreSQL would roll back, and the driver not tell."""

    def note(context: ExceptionContext) -> None:
        error = context.sqlalchemy_exception
        # While SQLAlchemy asks for the server's version, there is no transaction, and so no commit. An error that the
        # driver raises before it sends anything has no severity.
        if (
            context.connection is not None
            and context.connection.in_transaction()
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
