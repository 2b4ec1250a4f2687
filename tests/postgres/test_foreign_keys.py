from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest
from msgspec.structs import replace
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession

from arbstore import models
from arbstore.database import Database
from arbstore.errors import UnknownSymbolError, ValidationError
from arbstore.postgres import foreign_keys
from arbstore.postgres import upsert as bulk
from arbstore.records import BookTicker, Symbol, columns
from tests.conftest import NOON, listing, quote

TABLE = models.BookTickerSnapshot.__table__
ROLE = text("SELECT current_setting('session_replication_role')")


@pytest.fixture
async def granted(committed_db: Database) -> AsyncIterator[Database]:
    """A Database that checks foreign keys once a batch; its role is the server's superuser."""
    foreign_keys._warn_once.cache_clear()
    given = committed_db.settings.model_copy(update={"batch_checked_foreign_keys": True})
    async with Database(settings=given) as db:
        yield db


@pytest.fixture
async def symbol(granted: Database) -> Symbol:
    async with granted.begin() as store:
        exchange = await store.exchanges.add("BINANCE_SPOT")
        return await store.symbols.add(exchange.id, listing("BTC"))


def quotes(symbol: Symbol, count: int = 600) -> list[BookTicker]:
    return [quote(symbol, 1.0, NOON + timedelta(milliseconds=number)) for number in range(count)]


async def written(db: Database) -> int:
    async with db.begin() as store:
        return int(await store.session.scalar(text("SELECT count(*) FROM book_ticker_snapshots")) or 0)


@contextmanager
def switches(db: Database) -> Iterator[list[str]]:
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "set_config('session_replication_role'" in statement:
            found.append(statement)

    event.listen(db.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(db.engine.sync_engine, "before_cursor_execute", note)


async def test_the_triggers_are_off_for_the_batch_alone(granted: Database, symbol: Symbol) -> None:
    with switches(granted) as found:
        async with granted.begin() as store:
            await store.book_tickers.insert(quotes(symbol))
            assert len(found) == 2
            assert await store.session.scalar(ROLE) == "origin"
    assert await written(granted) == 600


async def test_nobody_who_did_not_ask_has_them_off(committed_db: Database, symbol: Symbol) -> None:
    with switches(committed_db) as found:
        async with committed_db.begin() as store:
            await store.book_tickers.insert(quotes(symbol))
    assert not found
    assert await written(committed_db) == 600


async def test_a_role_that_the_transaction_has_already_stays(granted: Database, symbol: Symbol) -> None:
    async with granted.begin() as store:
        await store.session.execute(text("SET LOCAL session_replication_role = local"))
        await store.book_tickers.insert(quotes(symbol))
        assert await store.session.scalar(ROLE) == "local"


async def test_an_unknown_id_is_refused_and_nothing_is_written(granted: Database, symbol: Symbol) -> None:
    rows = quotes(symbol)
    with pytest.raises(UnknownSymbolError, match=str(symbol.id + 1)):
        async with granted.begin() as store:
            await store.book_tickers.insert([*rows, replace(rows[7], symbol_id=symbol.id + 1)])
    assert await written(granted) == 0


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TEMPORARY TABLE symbols ON COMMIT DROP AS SELECT 99 AS id"],
        ["CREATE SCHEMA desk", "CREATE TABLE desk.symbols AS SELECT 99 AS id", "SET LOCAL search_path = desk, public"],
        [
            "CREATE TABLE child () INHERITS (symbols)",
            "INSERT INTO child (id, exchange_id, symbol_base, symbol_quote, exchange_symbol, symbol_type)"
            " VALUES (99, 1, 'X', 'Y', 'XY', 'SPOT')",
        ],
    ],
    ids=["temporary", "another schema's", "inherited"],
)
async def test_a_symbol_of_another_table_of_the_name_is_unknown(
    granted: Database, symbol: Symbol, statements: list[str]
) -> None:
    rows = columns(BookTicker, [replace(row, symbol_id=99) for row in quotes(symbol)])
    async with granted.session() as session:
        for statement in statements:
            await session.execute(text(statement))
        with pytest.raises(UnknownSymbolError):
            await bulk.upsert(session, TABLE, rows)
        await session.rollback()


async def test_a_symbol_of_the_same_transaction_is_known(granted: Database, symbol: Symbol) -> None:
    async with granted.begin() as store:
        other = await store.symbols.add(symbol.exchange_id, listing("ETH"))
        with switches(granted) as found:
            await store.book_tickers.insert([*quotes(symbol), *quotes(other)])
        assert len(found) == 2
    assert await written(granted) == 1_200


async def delete_symbol(db: Database, symbol: Symbol) -> None:
    async with db.begin() as store:
        with_the_triggers = text("DELETE FROM symbols WHERE id = :id")
        await store.session.execute(with_the_triggers, {"id": symbol.id})


async def test_a_symbol_cannot_go_while_a_batch_refers_to_it(granted: Database, symbol: Symbol) -> None:
    async with granted.begin() as store:
        await store.book_tickers.insert(quotes(symbol))
        deleting = asyncio.ensure_future(delete_symbol(granted, symbol))
        done, _ = await asyncio.wait([deleting], timeout=0.3)
        assert not done, "it waits for the end of the transaction"
    with pytest.raises(Exception, match="fk_book_ticker_snapshots_symbol_id_symbols"):
        await deleting
    assert await written(granted) == 600


async def test_a_batch_waits_for_a_symbol_that_is_going(granted: Database, symbol: Symbol) -> None:
    async with granted.session() as session:
        await session.execute(text("DELETE FROM symbols WHERE id = :id"), {"id": symbol.id})

        async def write() -> None:
            async with granted.begin() as store:
                await store.book_tickers.insert(quotes(symbol))

        writing = asyncio.ensure_future(write())
        done, _ = await asyncio.wait([writing], timeout=0.3)
        assert not done, "it waits for the end of the transaction"
        await session.commit()
    with pytest.raises(UnknownSymbolError):
        await writing
    assert await written(granted) == 0


async def test_keys_stay_unique(granted: Database, symbol: Symbol) -> None:
    middle = replace(quotes(symbol)[100], bid_price=9.0)
    async with granted.begin() as store:
        await store.book_tickers.insert([middle])
        await store.book_tickers.insert(quotes(symbol))
        assert await store.session.scalar(ROLE) == "origin"
    async with granted.begin() as store:
        stored = await store.book_tickers.history("BINANCE_SPOT", "BTC", "USDT")
    assert [row.bid_price for row in stored] == [1.0] * 600


async def test_checks_hold_and_the_parameter_is_back_after_the_error(granted: Database, symbol: Symbol) -> None:
    unsound = columns(BookTicker, quotes(symbol))
    unsound["bid_price"][50] = -1.0
    async with granted.session() as session:
        with switches(granted) as found, pytest.raises(ValidationError, match="bid_price"):
            await bulk.upsert(session, TABLE, unsound)
        assert len(found) == 1, "the savepoint takes it back"
        assert await session.scalar(ROLE) == "origin"
        assert await session.scalar(text("SELECT count(*) FROM book_ticker_snapshots")) == 0


async def test_the_parameter_is_back_after_a_cancellation(granted: Database, symbol: Symbol) -> None:
    rows = columns(BookTicker, quotes(symbol, 20_000))
    interrupted = 0
    for milliseconds in range(0, 60, 3):
        async with granted.session() as session:
            with switches(granted) as found:
                writing = asyncio.ensure_future(bulk.upsert(session, TABLE, rows))
                while not found:  # noqa: ASYNC110 # what it waits for is in a hook of SQLAlchemy
                    await asyncio.sleep(0.001)
                await asyncio.sleep(milliseconds / 1000)
                writing.cancel()
                with suppress(asyncio.CancelledError):
                    await writing
            # A statement of SQLAlchemy's that is cancelled costs the connection; a COPY does not.
            with suppress(PendingRollbackError):
                assert await session.scalar(ROLE) == "origin"
                interrupted += writing.cancelled() and len(found) == 1
            await session.rollback()
    assert interrupted, "none of the cancellations hit a batch with its triggers off"


@pytest.mark.parametrize("firing", ["", "ENABLE ALWAYS", "ENABLE REPLICA", "DISABLE"])
async def test_a_trigger_on_the_table_keeps_them_on(
    granted: Database, symbol: Symbol, firing: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with granted.session() as session:
        await session.execute(text("CREATE TABLE seen (n integer)"))
        await session.execute(
            text(
                "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN INSERT INTO seen VALUES (1); RETURN new; END'"
            )
        )
        await session.execute(
            text("CREATE TRIGGER watch BEFORE INSERT ON book_ticker_snapshots FOR EACH ROW EXECUTE FUNCTION see()")
        )
        if firing:
            try:
                await session.execute(text(f"ALTER TABLE book_ticker_snapshots {firing} TRIGGER watch"))
            except DBAPIError as error:
                pytest.skip(f"this version of TimescaleDB knows no such triggers: {error.orig}")
        with switches(granted) as found, caplog.at_level(logging.WARNING, logger="arbstore.postgres.foreign_keys"):
            await bulk.upsert(session, TABLE, columns(BookTicker, quotes(symbol)))
        assert not found
        assert "trigger of its own, watch" in caplog.text
        if not firing:
            assert await session.scalar(text("SELECT count(*) FROM seen")) == 600
        await session.rollback()


async def test_a_role_that_was_not_granted_it_writes_with_the_triggers_on_and_is_told_what_to_grant(
    granted: Database, symbol: Symbol, caplog: pytest.LogCaptureFixture
) -> None:
    async def write(session: AsyncSession) -> int:
        await session.execute(text("SET LOCAL ROLE collector"))
        with switches(granted) as found, caplog.at_level(logging.WARNING, logger="arbstore.postgres.foreign_keys"):
            await bulk.upsert(session, TABLE, columns(BookTicker, quotes(symbol)))
        await session.execute(text("RESET ROLE"))
        await session.execute(text("TRUNCATE book_ticker_snapshots"))
        return len(found)

    async with granted.session() as session:
        await session.execute(text("CREATE ROLE collector"))
        await session.execute(text("GRANT SELECT, INSERT, UPDATE ON book_ticker_snapshots TO collector"))
        await session.execute(text("GRANT SELECT ON symbols TO collector"))
        assert await write(session) == 0
        grants = [
            "GRANT SET ON PARAMETER session_replication_role TO collector",
            "GRANT UPDATE ON symbols TO collector",
        ]
        for grant in grants:
            assert grant in caplog.text
            await session.execute(text(grant))
        assert await write(session) == 2
        await session.rollback()
