from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, select

from arbstore import bulk, models
from arbstore.bulk import InsertResult
from arbstore.database import Database, Store
from arbstore.errors import ValidationError
from arbstore.records import BookTicker, Symbol, columns
from tests.conftest import NOON, listing, quote

TABLE = models.BookTickerSnapshot.__table__


def at(seconds: float) -> Any:
    return NOON + timedelta(seconds=seconds)


async def test_the_last_of_equal_keys_wins_and_the_others_are_counted(store: Store, symbol: Symbol) -> None:
    batch = [quote(symbol, 1.0), quote(symbol, 2.0, at(1)), quote(symbol, 3.0)]
    assert await store.book_tickers.insert(batch) == InsertResult(given=3, written=2, superseded=1)
    stored = await store.book_tickers.history("BINANCE_SPOT", "BTC", "USDT")
    assert [row.bid_price for row in stored] == [3.0, 2.0]


async def test_a_later_write_wins_over_what_is_stored_in_every_column(store: Store, symbol: Symbol) -> None:
    await store.book_tickers.insert([quote(symbol, 1.0)])
    later = BookTicker(
        symbol_id=symbol.id, timestamp=NOON, bid_price=5.0, bid_qty=6.0, ask_price=7.0, ask_qty=8.0, created_at=at(9)
    )
    await store.book_tickers.insert([later])
    (row,) = await store.book_tickers.history("BINANCE_SPOT", "BTC", "USDT")
    assert (row.bid_price, row.bid_qty, row.ask_price, row.ask_qty, row.created_at) == (5.0, 6.0, 7.0, 8.0, at(9))


async def test_an_empty_batch_writes_nothing(store: Store) -> None:
    assert await store.book_tickers.insert([]) == InsertResult(0, 0, 0)


async def test_rows_go_in_sorted_by_key(store: Store, symbol: Symbol, db: Database) -> None:
    sent: list[Any] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:
        if statement.startswith("INSERT INTO book_ticker_snapshots"):
            sent.append(parameters)

    event.listen(db.engine.sync_engine, "before_cursor_execute", note)
    try:
        await store.book_tickers.insert([quote(symbol, 1.0, at(second)) for second in (5, 1, 4, 2, 3)])
    finally:
        event.remove(db.engine.sync_engine, "before_cursor_execute", note)
    (parameters,) = sent
    times = next(value for value in parameters if isinstance(value, list) and value[0] == at(1))
    assert times == [at(second) for second in (1, 2, 3, 4, 5)]


async def test_writers_of_overlapping_keys_in_different_orders_do_not_deadlock(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        exchange = await store.exchanges.add("BINANCE_SPOT")
        symbol = await store.symbols.add(exchange.id, listing("BTC"))
    rows = [quote(symbol, 1.0, at(number / 1000)) for number in range(2_000)]

    async def write(batch: list[BookTicker]) -> InsertResult:
        async with committed_db.begin() as store:
            return await store.book_tickers.insert(batch)

    for _ in range(5):
        results = await asyncio.gather(write(rows), write(rows[::-1]), write(rows[::2] + rows[1::2]))
        assert [result.written for result in results] == [2_000] * 3


async def test_more_rows_than_one_statement_takes_go_in_whole(
    committed_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_ROWS_A_STATEMENT", 100)
    async with committed_db.begin() as store:
        exchange = await store.exchanges.add("BINANCE_SPOT")
        symbol = await store.symbols.add(exchange.id, listing("BTC"))
        result = await store.book_tickers.insert([quote(symbol, 1.0, at(second)) for second in range(250)])
        counted = await store.session.scalar(select(func.count()).select_from(TABLE))
    assert result == InsertResult(250, 250, 0)
    assert counted == 250


async def test_a_rollback_leaves_nothing_of_a_session_whose_first_act_is_a_bulk_write(
    committed_db: Database,
) -> None:
    async with committed_db.begin() as store:
        exchange = await store.exchanges.add("BINANCE_SPOT")
        symbol = await store.symbols.add(exchange.id, listing("BTC"))
    async with committed_db.session() as session:
        checked = columns(BookTicker, [quote(symbol)])
        await bulk.upsert(session, TABLE, checked)
        await session.rollback()
    async with committed_db.begin() as store:
        assert await store.book_tickers.latest() == []


async def test_a_batch_with_a_bad_row_is_refused_before_anything_is_sent(store: Store, symbol: Symbol) -> None:
    batch = [quote(symbol), quote(symbol, -1.0, at(1)), quote(symbol, 2.0, at(2))]
    with pytest.raises(ValidationError, match="row 1, bid_price") as refused:
        await store.book_tickers.insert(batch)
    assert (refused.value.row, refused.value.field) == (1, "bid_price")
    # The transaction goes on, and holds nothing of the batch.
    assert await store.book_tickers.latest() == []


def test_counts_of_batches_add_up() -> None:
    assert InsertResult(3, 2, 1) + InsertResult(4, 4, 0) == InsertResult(7, 6, 1)
