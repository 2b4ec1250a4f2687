"""The servers that are measured on: as durable as a real one, a database of its own for each benchmark."""

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
_SETTINGS = ("fsync", "synchronous_commit", "shared_buffers", "max_wal_size")


@dataclass(frozen=True)
class Stand:
    """A migrated database of its own, with symbols; `raw` is a connection without arbstore."""

    db: Database
    raw: asyncpg.Connection
    symbols: tuple[int, ...]

    @property
    def url(self) -> str:
        """The database's URL, as asyncpg and libpq take it."""
        return _plain(self.db.engine.url)

    async def empty(self) -> None:
        """Bring the table back to what it was before the first row, but keep its chunks: making them takes time."""
        for table in await self.chunks() or [TABLE]:
            await self.raw.execute(f"TRUNCATE {table}")
        await self.checkpoint()

    async def is_chunked(self) -> bool:
        """Whether the table is a hypertable."""
        async with self.db.engine.connect() as connection:
            return TABLE in await connection.run_sync(timescale.hypertables)

    async def checkpoint(self) -> None:
        """Write out what earlier runs left behind, where the role may ask for it."""
        if await self.raw.fetchval("SELECT pg_has_role(current_user, 'pg_checkpoint', 'member')"):
            await self.raw.execute("CHECKPOINT")

    async def compress(self) -> None:
        """Compress all chunks of the table."""
        for chunk in await self.chunks():
            await self.raw.execute(f"CALL convert_to_columnstore('{chunk}')")

    async def decompress(self) -> None:
        """Bring all chunks of the table back to rows."""
        for chunk in await self.chunks():
            await self.raw.execute(f"CALL convert_to_rowstore('{chunk}', if_columnstore => true)")

    async def chunks(self) -> list[str]:
        """Return the chunks of the table, none where it is an ordinary one."""
        found = await self.raw.fetch(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::text::regclass", TABLE
        )
        return [row[0] for row in found]


def _plain(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@dataclass(frozen=True)
class Server:
    """A server whose databases are clones of one that is migrated."""

    url: URL

    @classmethod
    @asynccontextmanager
    async def named(cls, choice: str) -> AsyncIterator[Server]:
        """Yield the server that `embedded`, `docker` or a URL stands for; what this starts, it stops."""
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
    async def stand(self, symbols: int, settings: Settings | None = None) -> AsyncIterator[Stand]:
        """Yield a new database with so many symbols, spread over the exchanges; it is dropped in the end."""
        url = await testing._clone(self.url)
        try:
            given = settings or Settings.load(statement_timeout=0)
            async with Database(url.render_as_string(hide_password=False), settings=given) as db:
                raw = await asyncpg.connect(_plain(url))
                try:
                    registered = await _register(db, symbols)
                    # As a server would have done by and by, in the middle of a run.
                    await raw.execute("VACUUM ANALYZE exchanges, symbols")
                    yield Stand(db, raw, registered)
                finally:
                    await raw.close()
        finally:
            await testing._drop(self.url, url)

    async def describe(self) -> dict[str, str]:
        """Return what the server is, and the settings that its durability and speed hang on."""
        async with self.stand(0) as stand, stand.db.engine.connect() as connection:
            edition = await connection.run_sync(timescale.edition)
            release = await connection.run_sync(timescale.version)
            shown = {name: str(await connection.scalar(text(f"SHOW {name}"))) for name in _SETTINGS}
            version = str(await connection.scalar(text("SHOW server_version")))
        return {"postgresql": version, "edition": str(edition), "timescaledb": release or "none", **shown}


def _embedded(cleanup: AsyncExitStack) -> str:
    # Not the tests' server, which does without fsync.
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
    """Return the asset that the symbol of this number trades, for USDT on EXCHANGES[index % len(EXCHANGES)]."""
    return f"COIN{index:04d}"


def _listing(asset: str) -> Listing:
    return Listing(symbol_base=asset, symbol_quote="USDT", exchange_symbol=f"{asset}USDT", symbol_type=SymbolType.SPOT)
