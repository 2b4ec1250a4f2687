"""Database (engine, sessions, cache) and Store (the services over one session)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from pydantic import SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from arbstore import embedded
from arbstore.cache import ReferenceCache
from arbstore.errors import ConfigurationError, DatabaseConnectionError, translated
from arbstore.postgres.engine import engine_options, reach, refuse_failed_commits
from arbstore.services.balances import Balances
from arbstore.services.book_tickers import BookTickers
from arbstore.services.candles import Candles
from arbstore.services.collectors import Collectors
from arbstore.services.exchanges import Exchanges
from arbstore.services.funding_rates import FundingRates
from arbstore.services.maintenance import Maintenance
from arbstore.services.opportunities import Opportunities
from arbstore.services.order_flow import OrderFlows
from arbstore.services.symbols import Symbols
from arbstore.services.ticks import Ticks
from arbstore.services.trades import Trades
from arbstore.settings import EMBEDDED, Settings

if TYPE_CHECKING:
    from arbstore.frames import Frames


class Store:
    """The services over one session, yours or a Database's. They never commit: the session's owner does."""

    def __init__(self, session: AsyncSession, cache: ReferenceCache | None = None) -> None:
        """Work in `session`, sharing the answers of `cache` (usually `Database.cache`)."""
        self.session = session
        self.cache = cache or ReferenceCache()

    @cached_property
    def exchanges(self) -> Exchanges:
        """Markets of exchanges."""
        return Exchanges(self.session, self.cache)

    @cached_property
    def symbols(self) -> Symbols:
        """What is traded on them."""
        return Symbols(self.session, self.cache)

    @cached_property
    def book_tickers(self) -> BookTickers:
        """Best bids and asks."""
        return BookTickers(self.session, self.cache)

    @cached_property
    def trades(self) -> Trades:
        """Trades."""
        return Trades(self.session, self.cache)

    @cached_property
    def funding_rates(self) -> FundingRates:
        """Funding rates of perpetuals."""
        return FundingRates(self.session, self.cache)

    @cached_property
    def balances(self) -> Balances:
        """Balances of accounts."""
        return Balances(self.session, self.cache)

    @cached_property
    def ticks(self) -> Ticks:
        """Quotes without sizes."""
        return Ticks(self.session, self.cache)

    @cached_property
    def candles(self) -> Candles:
        """Candles."""
        return Candles(self.session, self.cache)

    @cached_property
    def opportunities(self) -> Opportunities:
        """Arbitrage opportunities."""
        return Opportunities(self.session, self.cache)

    @cached_property
    def order_flow(self) -> OrderFlows:
        """Order-flow metrics."""
        return OrderFlows(self.session, self.cache)

    @cached_property
    def collectors(self) -> Collectors:
        """States of collectors."""
        return Collectors(self.session, self.cache)

    @cached_property
    def maintenance(self) -> Maintenance:
        """Sizes and cleanup."""
        return Maintenance(self.session, self.cache)


class Database:
    """An engine, its sessions and the reference cache; belongs to the event loop that opened it."""

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        """Take the settings from the environment unless they are given; `url` wins over theirs.

        `embedded:` and `embedded:/path` start a PostgreSQL of their own. Nothing is connected before `open`.
        """
        self.settings = settings or Settings.load()
        if url is not None:
            self.settings = self.settings.model_copy(update={"database_url": SecretStr(url)})
        self.cache = ReferenceCache(self.settings)
        self._url = self.settings.url
        self._server: embedded.EmbeddedServer | None = None
        self._opening = asyncio.Lock()
        self._engine: AsyncEngine | None = None
        self._connection: AsyncConnection | None = None  # of `over`: the caller's, like its engine

    @classmethod
    def over(cls, connection: AsyncConnection, *, settings: Settings | None = None) -> Database:
        """Return a Database whose sessions all work inside a transaction of this connection; for tests.

        Their commits are savepoints of it: what they wrote is gone when it rolls back. One session at a time.
        """
        database = cls(connection.engine.url.render_as_string(hide_password=False), settings=settings)
        database._connection = connection
        database._engine = connection.engine
        return database

    def __repr__(self) -> str:
        """Show the URL, without its password."""
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
        """The engine, for what the services do not do."""
        if self._engine is None:
            raise ConfigurationError(
                "the database is not open: use `async with Database() as db`, or `await db.open()`"
            )
        return self._engine

    @property
    def is_borrowed(self) -> bool:
        """Whether it is one `over` a connection: then nothing is seen by other connections before that commits."""
        return self._connection is not None

    @property
    def frames(self) -> Frames[Any]:
        """History as Arrow tables; `.polars` and `.pandas` of it give those. Needs the extra `frames`."""
        try:
            from arbstore.frames import arrow_frames
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("arbstore"):
                raise
            raise ConfigurationError("frames need: pip install 'arbstore[frames]'") from error
        return arrow_frames(self)

    async def open(self, *, warm: bool = False) -> None:
        """Connect, waiting up to `connect_timeout` for a server that is starting; `warm` fills the reference cache.

        Raises DatabaseConnectionError if no server answers, ConfigurationError if nothing says where it is.
        """
        async with self._opening:  # two tasks may call it at once
            if not self.is_open:
                await self._open(warm=warm)

    async def _open(self, *, warm: bool) -> None:
        engine = create_async_engine(await self._locate(), **engine_options(self.settings))
        refuse_failed_commits(engine)
        try:
            try:
                await reach(engine, self.settings.connect_timeout)
            except DatabaseConnectionError as error:
                error.args = (f"{engine.url}: {error}",)  # what failed, without its password
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
        """Close all connections; an embedded server stops when its last user has left."""
        if self._connection is not None:
            return
        engine, self._engine = self._engine, None
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
                    # The connection is gone, and the transaction with it: the error above is the one to tell.
                    await session.invalidate()
                raise

    def session(self) -> AsyncSession:
        """Return a new session, to be closed, and committed, by the caller."""
        return AsyncSession(
            self._connection or self.engine, expire_on_commit=False, join_transaction_mode="create_savepoint"
        )

    async def _locate(self) -> URL:
        if self._url.drivername != EMBEDDED:
            return self._url
        # Starting a server blocks for seconds.
        starting = asyncio.ensure_future(asyncio.to_thread(embedded.acquire, self._url.database))
        try:
            self._server = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread goes on: what it brings is given back.
            starting.add_done_callback(_give_back)
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


def _give_back(starting: asyncio.Future[embedded.EmbeddedServer]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().release()
