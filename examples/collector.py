"""A collector: follows an exchange's listing, writes its feed in batches, and reports its own state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from arbstore import (
    BookTicker,
    CollectorState,
    CollectorStatus,
    Database,
    InsertResult,
    Listing,
    SymbolType,
    migrations,
)

EXCHANGE = "EXAMPLE_SPOT"
BATCH = 500


async def feed(messages: int = 2_000) -> AsyncIterator[dict[str, Any]]:
    """Stand in for the exchange's websocket. Messages come in pairs that share a timestamp, as on real exchanges."""
    start = datetime.now(UTC) - timedelta(seconds=messages / 100)
    for number in range(messages):
        at = start + timedelta(milliseconds=10 * (number // 2))
        yield {"s": "BTCUSDT", "T": at, "b": 60_000 + number % 7, "B": 1.5, "a": 60_001 + number % 7, "A": 0.7}
        await asyncio.sleep(0)


async def listings() -> list[Listing]:
    """Stand in for the exchange's REST call."""
    return [
        Listing(symbol_base=base, symbol_quote="USDT", exchange_symbol=f"{base}USDT", symbol_type=SymbolType.SPOT)
        for base in ("BTC", "ETH")
    ]


async def collect(db: Database) -> InsertResult:
    """Write the whole feed, and return the counts of all batches together."""
    async with db.begin() as store:
        exchange = await store.exchanges.by_enum(EXCHANGE) or await store.exchanges.add(EXCHANGE)
        synced = await store.symbols.sync(exchange.id, await listings())
        print(
            f"symbols: {len(synced.added)} added, {len(synced.deactivated)} deactivated, {synced.unchanged} unchanged"
        )
        ids = {symbol.exchange_symbol: symbol.id for symbol in await store.symbols.by_exchange(exchange.id)}
    total, batch = InsertResult(0, 0, 0), []
    async for message in feed():
        batch.append(ticker(ids[message["s"]], message))
        if len(batch) == BATCH:
            total += await write(db, exchange.id, batch)
            batch = []
    return total + await write(db, exchange.id, batch)


def ticker(symbol_id: int, message: dict[str, Any]) -> BookTicker:
    """Return the message as a record."""
    return BookTicker(
        symbol_id=symbol_id,
        timestamp=message["T"],
        bid_price=message["b"],
        bid_qty=message["B"],
        ask_price=message["a"],
        ask_qty=message["A"],
        created_at=datetime.now(UTC),
    )


async def write(db: Database, exchange_id: int, batch: list[BookTicker]) -> InsertResult:
    """Write one batch and the collector's state, in one transaction."""
    async with db.begin() as store:
        result = await store.book_tickers.insert(batch)
        state = CollectorStatus(
            exchange_id=exchange_id,
            collector="book-tickers",
            timestamp=datetime.now(UTC),
            status=CollectorState.RUNNING,
            last_message_at=batch[-1].timestamp if batch else None,
        )
        await store.collectors.insert([state])
    return result


async def main() -> None:
    """Collect into the configured database."""
    async with Database() as db:
        await migrations.deploy(db)
        print(await collect(db))
        async with db.begin() as store:
            for quote in await store.book_tickers.latest(EXCHANGE):
                print(
                    f"{quote.exchange} {quote.symbol_base}/{quote.symbol_quote}: {quote.bid_price} / {quote.ask_price}"
                )
            for state in await store.collectors.latest(EXCHANGE):
                print(f"{state.collector} is {state.status}")


if __name__ == "__main__":
    asyncio.run(main())
