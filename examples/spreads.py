"""An analysis of spreads between two exchanges: now, from the latest quotes, and over their history."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import permutations
from statistics import mean, quantiles

import market

from arbstore import Database, Opportunity, StoredBookTicker, migrations


def spread_bps(buy: StoredBookTicker, sell: StoredBookTicker) -> float:
    """Return the gain, in basis points, of buying at one ask and selling at the other bid, before fees."""
    return (sell.bid_price / buy.ask_price - 1) * 10_000


async def now(db: Database) -> None:
    """Print the spreads between the latest quotes, and store the best as an opportunity."""
    async with db.begin() as store:
        quotes = await store.book_tickers.latest(base="BTC", quote="USDT")
        for quote in quotes:
            print(f"{quote.exchange}: mid {quote.mid:.2f}, own spread {quote.spread_bps:.3f} bps")
        buy, sell = max(permutations(quotes, 2), key=lambda pair: spread_bps(*pair))
        print(f"best: buy on {buy.exchange}, sell on {sell.exchange}: {spread_bps(buy, sell):+.2f} bps")
        found = Opportunity(
            symbol_id=buy.symbol_id,
            buy_exchange_id=(await store.exchanges.by_enum_one(buy.exchange)).id,
            sell_exchange_id=(await store.exchanges.by_enum_one(sell.exchange)).id,
            timestamp=datetime.now(UTC),
            buy_price=buy.ask_price,
            sell_price=sell.bid_price,
            quantity=min(buy.ask_qty, sell.bid_qty),
            spread_bps=spread_bps(buy, sell),
        )
        await store.opportunities.insert([found])


async def then(db: Database) -> None:
    """Print the distribution of the spread between the two exchanges over their history."""
    async with db.begin() as store:
        one, two = [
            await store.book_tickers.history(name, *market.PAIR, since=market.SINCE, until=market.UNTIL)
            for name in market.EXCHANGES
        ]
    spreads = [spread_bps(*pair) for quotes in zip(one, two, strict=True) for pair in permutations(quotes)]
    print(f"over {len(one)} s: mean {mean(spreads):+.2f} bps, 95th percentile {quantiles(spreads, n=20)[-1]:+.2f} bps")


async def main() -> None:
    """Analyse the simulated market in the configured database."""
    async with Database() as db:
        await migrations.deploy(db)
        await market.fill(db)
        await now(db)
        await then(db)


if __name__ == "__main__":
    asyncio.run(main())
