from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import warnings
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from arbstore.database import Database, Store
from arbstore.errors import (
    ConfigurationError,
    DatabaseConnectionError,
    PoolExhaustedError,
    QueryError,
    QueryTimeoutError,
    UnknownSymbolError,
)
from arbstore.records import BookTicker
from arbstore.settings import Settings
from tests.conftest import NOON, listing, quote


def quote_of(symbol_id: int) -> BookTicker:
    return BookTicker(symbol_id=symbol_id, timestamp=NOON, bid_price=1.0, bid_qty=1.0, ask_price=2.0, ask_qty=1.0)


async def test_a_transaction_commits_at_the_end_of_the_block(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        await store.exchanges.add("BINANCE_SPOT")
    async with committed_db.begin() as store:
        assert [exchange.enum_value for exchange in await store.exchanges.all()] == ["BINANCE_SPOT"]


async def test_a_transaction_rolls_back_on_any_error(committed_db: Database) -> None:
    async def fail() -> None:
        async with committed_db.begin() as store:
            await store.exchanges.add("BINANCE_SPOT")
            raise KeyError("of the application")

    with pytest.raises(KeyError, match="of the application"):
        await fail()
    async with committed_db.begin() as store:
        assert await store.exchanges.all() == ()


async def test_a_cancelled_transaction_rolls_back_and_gives_its_connection_back(committed_db: Database) -> None:
    db = Database(settings=committed_db.settings.model_copy(update={"pool_size": 1, "max_overflow": 0}))
    async with db:
        written = asyncio.Event()

        async def write() -> None:
            async with db.begin() as store:
                await store.exchanges.add("BINANCE_SPOT")
                written.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(write())
        await written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with db.begin() as store:
            assert await store.exchanges.all() == ()


async def test_a_store_works_over_any_session(committed_db: Database) -> None:
    async with committed_db.session() as session, session.begin():
        store = Store(session)
        await store.exchanges.add("BINANCE_SPOT")
        assert store.session is session
    async with committed_db.begin() as store:
        assert len(await store.exchanges.all()) == 1


async def test_a_closed_database_says_how_to_open_it() -> None:
    db = Database("postgresql://user@localhost/db")
    assert not db.is_open
    with pytest.raises(ConfigurationError, match="async with Database"):
        _ = db.engine


async def test_open_and_close_can_be_repeated(committed_db: Database) -> None:
    db = Database(settings=committed_db.settings)
    for _ in range(2):
        await db.open()
        await db.open()
        assert db.is_open
        async with db.begin() as store:
            await store.exchanges.all()
        await db.close()
        await db.close()
        assert not db.is_open


async def test_two_tasks_that_open_it_at_once_share_one_engine(committed_db: Database) -> None:
    db = Database(settings=committed_db.settings)

    async def opened() -> object:
        await db.open()
        return db.engine

    try:
        assert len(set(await asyncio.gather(opened(), opened(), opened()))) == 1
    finally:
        await db.close()


async def test_no_server_is_an_error_that_says_so_after_the_timeout() -> None:
    db = Database(settings=Settings.load(database_url="postgresql://me@127.0.0.1:1/db", connect_timeout=0.2))
    with pytest.raises(DatabaseConnectionError, match="cannot be reached"):
        await db.open()
    assert not db.is_open


async def test_a_database_that_is_not_there_is_not_waited_for(committed_db: Database) -> None:
    url = committed_db.engine.url.set(database="nowhere").render_as_string(hide_password=False)
    settings = committed_db.settings.model_copy(update={"connect_timeout": 1_000})
    with pytest.raises(DatabaseConnectionError, match="nowhere") as raised:
        await asyncio.wait_for(Database(url, settings=settings).open(), 30)
    assert raised.value.sqlstate == "3D000"


async def test_an_exhausted_pool_is_an_error_that_says_what_to_do(committed_db: Database) -> None:
    update = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
    async with Database(settings=committed_db.settings.model_copy(update=update)) as db, db.begin() as holder:
        await holder.exchanges.all()
        async with db.session() as session:
            with pytest.raises(PoolExhaustedError, match="ARBSTORE_POOL_SIZE"):
                await Store(session, db.cache).symbols.by_exchange(1)


async def test_a_statement_that_runs_too_long_is_cancelled_by_the_server(committed_db: Database) -> None:
    settings = committed_db.settings.model_copy(update={"statement_timeout": 0.05})
    async with Database(settings=settings) as db, db.begin() as store:
        with pytest.raises(QueryTimeoutError):
            await store.exchanges._execute(text("SELECT pg_sleep(5)"))
        await store.session.rollback()


async def test_a_transaction_whose_failure_was_swallowed_is_no_success(committed_db: Database) -> None:
    async def swallow() -> None:
        async with committed_db.begin() as store:
            exchange = await store.exchanges.add("BINANCE_SPOT")
            symbol = await store.symbols.add(exchange.id, listing("BTC"))
            await store.book_tickers.insert([quote(symbol)])
            with contextlib.suppress(UnknownSymbolError):
                await store.book_tickers.insert([quote_of(999_999)])

    with pytest.raises(QueryError, match="nothing of it can be committed"):
        await swallow()
    async with committed_db.begin() as store:
        assert await store.exchanges.all() == ()


async def test_a_failure_inside_a_savepoint_leaves_the_rest_of_the_transaction(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        await store.exchanges.add("BINANCE_SPOT")
        with contextlib.suppress(UnknownSymbolError):
            async with store.session.begin_nested():
                await store.book_tickers.insert([quote_of(999_999)])
    async with committed_db.begin() as store:
        assert len(await store.exchanges.all()) == 1


async def test_the_server_sees_the_applications_name(committed_db: Database) -> None:
    settings = committed_db.settings.model_copy(update={"application_name": "collector-7"})
    async with Database(settings=settings) as db, db.begin() as store:
        assert await store.session.scalar(text("SELECT current_setting('application_name')")) == "collector-7"


async def test_without_prepared_statements_everything_still_works(committed_db: Database) -> None:
    settings = committed_db.settings.model_copy(update={"prepared_statements": False})
    async with Database(settings=settings) as db:
        async with db.begin() as store:
            exchange = await store.exchanges.add("BINANCE_SPOT")
            symbol = await store.symbols.add(exchange.id, listing("BTC"))
            await store.book_tickers.insert([quote(symbol)])
        async with db.begin() as store:
            assert len(await store.book_tickers.latest()) == 1
            prepared = await store.session.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
        assert prepared in (0, 1)  # the one that asks


async def test_an_embedded_url_starts_a_server_and_keeps_its_data(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")  # of another server
    url = f"embedded:{scratch / 'pg'}"
    for expected in (0, 1):
        async with Database(url) as db, db.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE IF NOT EXISTS kept (number int)"))
            assert await connection.scalar(text("SELECT count(*) FROM kept")) == expected
            await connection.execute(text("INSERT INTO kept VALUES (1)"))


async def test_a_password_shows_in_no_repr_log_or_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    db = Database(settings=Settings.load(database_url="postgresql://me:hunter2@127.0.0.1:1/db", connect_timeout=0.1))
    with pytest.raises(DatabaseConnectionError) as raised:
        await db.open()
    shown = [repr(db), repr(db.settings), str(db.settings), caplog.text]
    chain: BaseException | None = raised.value
    while chain is not None:
        shown.append(f"{chain!r} {chain}")
        chain = chain.__cause__ or chain.__context__
    assert "127.0.0.1" in shown[0]
    assert not [text for text in shown if "hunter2" in text]


async def test_a_statement_timeout_while_connecting_is_told_as_one(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(_dialect: PGDialect_asyncpg, connection: Connection) -> None:
        connection.exec_driver_sql("SELECT pg_sleep(10)")  # in place of the server's version, the first question

    monkeypatch.setattr(PGDialect_asyncpg, "_get_server_version_info", slow)
    settings = db.settings.model_copy(update={"statement_timeout": 0.05})
    with pytest.raises(QueryTimeoutError, match="statement timeout"):
        await Database(settings=settings).open()
    with warnings.catch_warnings():
        # SQLAlchemy 2.0 does not close the connection; collected later, it would be the warning of another test.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
