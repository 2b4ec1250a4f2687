"""The server under test, as durable as a real one, and a database of its own for each benchmark."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from sqlalchemy import URL, make_url, text

from alembic_timescaledb import server as timescale
from arbstore import embedded, testing
from arbstore.database import Database
from arbstore.records import Listing, SymbolType
from arbstore.settings import EMBEDDED, Settings

EXCHANGES = ("BINANCE_SPOT", "GATEIO_SPOT", "MEXC_SPOT", "KRAKEN_SPOT")
TABLE = "book_ticker_snapshots"
_SETTINGS = ("fsync", "synchronous_commit")


@dataclass(frozen=True)
class Sandbox:
    """A migrated database with symbols; `raw` is a connection of asyncpg, without arbstore."""

    db: Database
    raw: asyncpg.Connection
    symbols: tuple[int, ...]

    @property
    def url(self) -> str:
        """The database's URL for asyncpg and libpq."""
        return _plain(self.db.engine.url)

    async def empty(self) -> None:
        """Delete all rows but keep the chunks, whose creation would take time."""
        for table in await self.chunks() or [TABLE]:
            await self.raw.execute(f"TRUNCATE {table}")
        await self.checkpoint()

    async def is_chunked(self) -> bool:
        """Whether the table is a hypertable."""
        async with self.db.engine.connect() as connection:
            return TABLE in await connection.run_sync(timescale.hypertables)

    async def checkpoint(self) -> None:
        """Make the server write what earlier runs left in memory, if the role may ask for it."""
        if await self.raw.fetchval("SELECT pg_has_role(current_user, 'pg_checkpoint', 'member')"):
            await self.raw.execute("CHECKPOINT")

    async def compress(self) -> None:
        """Compress all chunks of the table."""
        for chunk in await self.chunks():
            await self.raw.execute(f"CALL convert_to_columnstore('{chunk}')")

    async def decompress(self) -> None:
        """Decompress all chunks of the table."""
        for chunk in await self.chunks():
            await self.raw.execute(f"CALL convert_to_rowstore('{chunk}', if_columnstore => true)")

    async def chunks(self) -> list[str]:
        """Return the chunks of the table; an ordinary table has none."""
        found = await self.raw.fetch(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::text::regclass", TABLE
        )
        return [row[0] for row in found]


def _plain(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@dataclass(frozen=True)
class Server:
    """A server whose databases are clones of a migrated one."""

    url: URL

    @classmethod
    @asynccontextmanager
    async def named(cls, choice: str) -> AsyncIterator[Server]:
        """Yield the server for `embedded`, `docker` or a URL. If this starts a server, it also stops it."""
        async with AsyncExitStack() as cleanup:
            if choice == EMBEDDED:
                url = make_url(await asyncio.to_thread(_embedded, cleanup))
            elif choice == "docker":
                url = make_url(await asyncio.to_thread(_container, cleanup))
            else:
                url = make_url(choice)
            server = cls(url.set(drivername="postgresql+asyncpg"))
            await testing._make_template(server.url)
            yield server

    @asynccontextmanager
    async def sandbox(self, symbols: int, settings: Settings | None = None) -> AsyncIterator[Sandbox]:
        """Yield a new database with so many symbols, spread over the exchanges, and drop it at the end."""
        url = await testing._clone(self.url)
        try:
            given = settings or Settings.load(statement_timeout=0)
            async with Database(url.render_as_string(hide_password=False), settings=given) as db:
                raw = await asyncpg.connect(_plain(url))
                try:
                    registered = await _register(db, symbols)
                    # A server would do this by itself, but in the middle of a run.
                    await raw.execute("VACUUM ANALYZE exchanges, symbols")
                    yield Sandbox(db, raw, registered)
                finally:
                    await raw.close()
        finally:
            await testing._drop(self.url, url)

    async def describe(self) -> dict[str, str]:
        """Return the server's version and edition, and the settings that decide its durability."""
        async with self.sandbox(0) as sandbox, sandbox.db.engine.connect() as connection:
            edition = await connection.run_sync(timescale.edition)
            release = await connection.run_sync(timescale.version)
            shown = {name: str(await connection.scalar(text(f"SHOW {name}"))) for name in _SETTINGS}
            version = str(await connection.scalar(text("SHOW server_version")))
        return {"postgresql": version, "edition": str(edition), "timescaledb": release or "", **shown}


def _embedded(cleanup: AsyncExitStack) -> str:
    # The server of the tests would not do: it runs without fsync.
    folder = Path(tempfile.mkdtemp(prefix="arbstore-bench-"))
    cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
    server = embedded.acquire(folder / "postgres")
    cleanup.callback(server.release)
    return server.url


def _container(cleanup: AsyncExitStack) -> str:
    from testcontainers.community.postgres import PostgresContainer

    container = PostgresContainer(Settings.load().test_image, driver="asyncpg")
    container.start()
    cleanup.callback(container.stop)
    return str(container.get_connection_url())


async def _register(db: Database, symbols: int) -> tuple[int, ...]:
    ids: list[int] = []
    async with db.begin() as store:
        for number, name in enumerate(EXCHANGES):
            exchange = await store.exchanges.add(name)
            bases = [base(index) for index in range(number, symbols, len(EXCHANGES))]
            ids += [symbol.id for symbol in await store.symbols.add_many(exchange.id, map(_listing, bases))]
    return tuple(ids)


def base(index: int) -> str:
    """Return the base asset of the symbol with this number; it is on EXCHANGES[index % len(EXCHANGES)]."""
    return f"COIN{index:04d}"


def _listing(asset: str) -> Listing:
    return Listing(symbol_base=asset, symbol_quote="USDT", exchange_symbol=f"{asset}USDT", symbol_type=SymbolType.SPOT)
