"""A small simulated market for the other examples: two exchanges, ten minutes, one quote a second."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from arbstore import BookTicker, Database, Listing, Store, Symbol, SymbolType

EXCHANGES = ("EXAMPLE_SPOT", "SAMPLE_SPOT")
PAIR = ("BTC", "USDT")
SINCE = datetime(2024, 8, 8, 12, tzinfo=UTC)
SECONDS = 600
UNTIL = SINCE + timedelta(seconds=SECONDS)


async def fill(db: Database) -> None:
    """Register the exchanges and their symbol, and write the quotes. A second run changes nothing."""
    chance = random.Random(7)  # noqa: S311 # a simulation, not a secret
    price = 60_000.0
    mids = [price := price * (1 + chance.gauss(0, 1e-4)) for _ in range(SECONDS)]
    async with db.begin() as store:
        for lag, exchange in enumerate(EXCHANGES):
            symbol = await _symbol(store, exchange)
            # The second exchange follows the first with a lag of three seconds. The lag causes the spreads.
            rows = [_quote(symbol, second, mids[max(0, second - 3 * lag)]) for second in range(SECONDS)]
            await store.book_tickers.insert(rows)


async def _symbol(store: Store, exchange: str) -> Symbol:
    known = await store.exchanges.by_enum(exchange) or await store.exchanges.add(exchange)
    base, quote = PAIR
    listing = Listing(
        symbol_base=base, symbol_quote=quote, exchange_symbol=f"{base}{quote}", symbol_type=SymbolType.SPOT
    )
    return await store.symbols.by_pair(known.id, base, quote) or await store.symbols.add(known.id, listing)


def _quote(symbol: Symbol, second: int, mid: float) -> BookTicker:
    return BookTicker(
        symbol_id=symbol.id,
        timestamp=SINCE + timedelta(seconds=second),
        bid_price=mid - 0.5,
        bid_qty=1.0,
        ask_price=mid + 0.5,
        ask_qty=1.0,
    )
