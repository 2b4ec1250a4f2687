"""What the tests share: the recordings, shorter names for the plugin's fixtures, and a small market."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection

from arbstore import testing
from arbstore.database import Database, Store
from arbstore.records import BookTicker, Exchange, Listing, Symbol, SymbolType

pytest_plugins = ["pytester"]

RECORDINGS = Path(__file__).parents[2] / "shared" / "data"
NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Return the folder of real recordings, which lies beside the checkout."""
    if not RECORDINGS.is_dir():
        message = "the recordings are missing: ../shared/data beside the checkout"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return RECORDINGS


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Yield an empty folder for a server's data: not tmp_path, which every start of pytest closes to other users."""
    folder = Path(tempfile.mkdtemp(prefix="arbstore-scratch-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def db(arbstore_db: Database) -> Database:
    return arbstore_db


@pytest.fixture
def store(arbstore_store: Store) -> Store:
    return arbstore_store


@pytest.fixture
def committed_db(arbstore_committed_db: Database) -> Database:
    return arbstore_committed_db


@pytest_asyncio.fixture
async def exchange(store: Store) -> Exchange:
    return await store.exchanges.add("BINANCE_SPOT")


@pytest_asyncio.fixture
async def symbol(store: Store, exchange: Exchange) -> Symbol:
    return await store.symbols.add(exchange.id, listing("BTC"))


def listing(base: str, quote: str = "USDT") -> Listing:
    return Listing(symbol_base=base, symbol_quote=quote, exchange_symbol=f"{base}{quote}", symbol_type=SymbolType.SPOT)


def quote(symbol: Symbol, bid: float = 100.0, at: datetime = NOON) -> BookTicker:
    return BookTicker(symbol_id=symbol.id, timestamp=at, bid_price=bid, bid_qty=1.0, ask_price=bid + 1, ask_qty=2.0)


@pytest_asyncio.fixture
async def empty_db(arbstore_server: URL, _arbstore_admin: AsyncConnection) -> AsyncIterator[Database]:
    """Yield an open Database without a schema, on the server under test."""
    # TimescaleDB's launcher visits template1, and a database that is visited cannot be copied.
    async with testing._copied(arbstore_server, _arbstore_admin, "template0") as url, Database(url) as database:
        yield database
