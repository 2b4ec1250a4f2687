"""A backtest: replays the quotes of two exchanges in order, and trades when one bid is above the other's ask."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator
from datetime import datetime, timedelta
from operator import attrgetter

import market

from arbstore import Database, StoredBookTicker, migrations

FEES_BPS = 1.0  # of both legs together
STEP = timedelta(minutes=2)  # the time read at once: it limits the memory, however long the backtest is


async def replay(db: Database, since: datetime, until: datetime) -> list[StoredBookTicker]:
    """Return the quotes of both exchanges in [since, until), oldest first."""
    async with db.begin() as store:
        feeds = [
            await store.book_tickers.history(name, *market.PAIR, since=since, until=until) for name in market.EXCHANGES
        ]
    return list(heapq.merge(*feeds, key=attrgetter("timestamp")))


def crossings(quotes: list[StoredBookTicker], last: dict[str, StoredBookTicker]) -> Iterator[float]:
    """Yield the gain in basis points, after fees, whenever one exchange's bid is above another's ask."""
    for quote in quotes:
        last[quote.exchange] = quote
        for other in last.values():
            for buy, sell in ((quote, other), (other, quote)):
                gain = (sell.bid_price / buy.ask_price - 1) * 10_000 - FEES_BPS
                if gain > 0:
                    yield gain


async def main() -> None:
    """Backtest over the simulated market in the configured database."""
    async with Database() as db:
        await migrations.deploy(db)
        await market.fill(db)
        last: dict[str, StoredBookTicker] = {}
        gains: list[float] = []
        since, read = market.SINCE, 0
        while since < market.UNTIL:
            quotes = await replay(db, since, since + STEP)
            gains += crossings(quotes, last)
            since, read = since + STEP, read + len(quotes)
        print(f"{read} quotes, {len(gains)} trades, {sum(gains):.1f} basis points after fees")


if __name__ == "__main__":
    asyncio.run(main())
