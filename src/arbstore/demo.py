"""A simulated market of three exchanges, and the arbitrage in the quotes of any market: what the demo shows."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby, permutations
from operator import attrgetter
from random import Random
from typing import NamedTuple, Self, TypeAlias

from arbstore.database import Database, Store
from arbstore.records import (
    BookTicker,
    Exchange,
    Listing,
    Opportunity,
    Record,
    Side,
    StoredBookTicker,
    StoredOpportunity,
    SymbolType,
    Trade,
)
from arbstore.services.maintenance import TableStats

TAKER_FEE_BPS = 5.0  # for each of the two trades: an opportunity is a spread above both fees
_STEP = timedelta(milliseconds=4)
_STEPS_A_BATCH = 50
_VOLATILITY = 2e-4  # of the fair price in each step: enough to put late exchanges in the wrong
_TRADES_A_QUOTE = 0.1
_LONGEST_HISTORY = 50_000
_SHOWN_OPPORTUNITIES = 5

_pair_of = attrgetter("symbol_base", "symbol_quote")

_FAIR_PRICES = {"BTC": 60_000.0, "ETH": 2_500.0, "SOL": 150.0, "XRP": 0.55, "DOGE": 0.12}


class _Venue(NamedTuple):
    """A simulated exchange: it follows the fair price `lag` steps late, and adds `premium` and half its spread."""

    exchange: str
    lag: int
    premium: float
    half_spread: float


_VENUES = (
    _Venue("BINANCE_SPOT", 0, 0.0, 0.5e-4),
    _Venue("GATEIO_SPOT", 15, 1.5e-4, 1.0e-4),
    _Venue("MEXC_SPOT", 40, -2.0e-4, 1.5e-4),
)


class Written(Record, frozen=True, kw_only=True):
    """The rows that were written, by service, and the seconds it took."""

    rows: dict[str, int]
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """The rate of writing; the market's pauses do not count."""
        return sum(self.rows.values()) / self.seconds


class Spread(Record, frozen=True, kw_only=True):
    """A way to buy at one exchange's ask and sell at another's bid."""

    buy: StoredBookTicker
    sell: StoredBookTicker

    @property
    def bps(self) -> float:
        """The yield before fees: (bid - ask) / ask * 10,000. It is nearly always below zero."""
        return (self.sell.bid_price - self.buy.ask_price) / self.buy.ask_price * 10_000

    @property
    def quantity(self) -> float:
        """The quantity that both sides offer."""
        return min(self.buy.ask_qty, self.sell.bid_qty)

    @property
    def net_profit(self) -> float:
        """The yield of the quantity in the quote currency, after the taker fees of both trades."""
        fee = TAKER_FEE_BPS / 10_000
        return self.quantity * (self.sell.bid_price * (1 - fee) - self.buy.ask_price * (1 + fee))


class Findings(Record, frozen=True, kw_only=True):
    """The latest quotes, the widest spread of each pair, the opportunities, and the sizes of the tables.

    `exchanges` has the names of exchanges by id.
    """

    quotes: tuple[StoredBookTicker, ...]
    spreads: tuple[Spread, ...]
    opportunities_found: int
    opportunities: tuple[StoredOpportunity, ...]
    tables: tuple[TableStats, ...]
    exchanges: dict[int, str]


class SimulatedMarket:
    """Quotes and trades from a seeded random walk: the same seed makes the same market."""

    def __init__(self, symbols: Mapping[tuple[_Venue, str], int], *, seed: int, start: datetime) -> None:
        """Quote the symbols, by venue and base, from `start` on."""
        longest = max(venue.lag for venue in _VENUES) + 1
        self._symbols = symbols
        self._random = Random(seed)  # noqa: S311 # a simulation needs no secrecy
        self._fair = {base: deque([price] * longest, longest) for base, price in _FAIR_PRICES.items()}
        self._now = start
        self._trades = 0

    @classmethod
    async def open(cls, store: Store, *, seed: int, start: datetime) -> Self:
        """Register the exchanges and symbols that are missing, and return their market."""
        symbols = {}
        for venue in _VENUES:
            known = await store.exchanges.by_enum(venue.exchange)
            exchange = known or await store.exchanges.add(venue.exchange)
            for base in _FAIR_PRICES:
                found = await store.symbols.by_pair(exchange.id, base, "USDT")
                symbols[venue, base] = (found or await store.symbols.add(exchange.id, _listing(base))).id
        return cls(symbols, seed=seed, start=start)

    def advance(self, steps: int) -> tuple[list[BookTicker], list[Trade]]:
        """Return the quotes and trades of the next steps; each step has a quote of every symbol."""
        quotes: list[BookTicker] = []
        for _ in range(steps):
            self._now += _STEP
            for prices in self._fair.values():
                prices.append(prices[-1] * math.exp(self._random.gauss(0, _VOLATILITY)))
            quotes += [self._quote(venue, base, symbol) for (venue, base), symbol in self._symbols.items()]
        return quotes, [self._trade(quote) for quote in quotes if self._random.random() < _TRADES_A_QUOTE]

    def _quote(self, venue: _Venue, base: str, symbol_id: int) -> BookTicker:
        mid = self._fair[base][-1 - venue.lag] * (1 + venue.premium)
        return BookTicker(
            symbol_id=symbol_id,
            timestamp=self._now,
            bid_price=_rounded(mid * (1 - venue.half_spread)),
            bid_qty=self._quantity(mid),
            ask_price=_rounded(mid * (1 + venue.half_spread)),
            ask_qty=self._quantity(mid),
        )

    def _trade(self, quote: BookTicker) -> Trade:
        self._trades += 1
        side = self._random.choice((Side.BUY, Side.SELL))
        return Trade(
            symbol_id=quote.symbol_id,
            timestamp=quote.timestamp,
            trade_id=f"simulated-{self._trades}",
            price=quote.ask_price if side is Side.BUY else quote.bid_price,
            quantity=self._quantity(quote.mid),
            side=side,
        )

    def _quantity(self, price: float) -> float:
        return _rounded(self._random.uniform(100, 10_000) / price)


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")


def _listing(base: str) -> Listing:
    return Listing(symbol_base=base, symbol_quote="USDT", exchange_symbol=f"{base}USDT", symbol_type=SymbolType.SPOT)


async def feed(db: Database, *, seconds: float, seed: int, progress: Callable[[int, int], None]) -> Written:
    """Write the simulated market for that many seconds as it happens, a batch every fifth of a second.

    The seed decides everything but the times. `progress` is called with the number of batches done and of all.
    """
    async with db.begin() as store:
        now = datetime.now(UTC)
        start = now.replace(microsecond=now.microsecond // 1000 * 1000)  # exchanges' clocks have milliseconds
        market = await SimulatedMarket.open(store, seed=seed, start=start)
    began, pause = time.perf_counter(), (_STEP * _STEPS_A_BATCH).total_seconds()
    batches = max(1, round(seconds / pause))
    rows: Counter[str] = Counter()
    spent = 0.0
    for number in range(1, batches + 1):
        quotes, trades = market.advance(_STEPS_A_BATCH)
        await asyncio.sleep(began + number * pause - time.perf_counter())
        at = time.perf_counter()
        async with db.begin() as store:
            rows["book_tickers"] += (await store.book_tickers.insert(quotes)).written
            rows["trades"] += (await store.trades.insert(trades)).written
        spent += time.perf_counter() - at
        progress(number, batches)
    return Written(rows=dict(rows), seconds=spent)


async def look(db: Database, *, since: datetime | None = None) -> Findings:
    """Find the opportunities in the quotes of [since, now), store them, and return all findings."""
    async with db.begin() as store:
        quotes = await store.book_tickers.latest()
        exchanges = {exchange.enum_value: exchange for exchange in await store.exchanges.all()}
        pairs = _across_exchanges(quotes)
        found: list[Opportunity] = []
        for pair in pairs:
            found += opportunities(await _history(store, pair, since), exchanges)
        await store.opportunities.insert(found)
        widest = sorted(await store.opportunities.latest(), key=attrgetter("spread_bps"), reverse=True)
        return Findings(
            quotes=tuple(quotes),
            spreads=tuple(spread for pair in pairs if (spread := widest_spread(pair)) is not None),
            opportunities_found=len(found),
            opportunities=tuple(widest[:_SHOWN_OPPORTUNITIES]),
            tables=tuple(await store.maintenance.stats()),
            exchanges={exchange.id: name for name, exchange in exchanges.items()},
        )


def _across_exchanges(quotes: Iterable[StoredBookTicker]) -> list[list[StoredBookTicker]]:
    """Return the quotes of each pair that more than one exchange has."""
    pairs = groupby(sorted(quotes, key=_pair_of), key=_pair_of)
    together = [list(found) for _, found in pairs]
    return [found for found in together if len({quote.exchange for quote in found}) > 1]


async def _history(
    store: Store, quotes: Iterable[StoredBookTicker], since: datetime | None
) -> Iterable[StoredBookTicker]:
    """Return the history of all these symbols together, in the order of time."""
    read = store.book_tickers.history_by_id
    histories = [await read(quote.symbol_id, since=since, limit=_LONGEST_HISTORY) for quote in quotes]
    return heapq.merge(*histories, key=attrgetter("timestamp"))


def widest_spread(quotes: Iterable[StoredBookTicker]) -> Spread | None:
    """Return the best way to buy on one exchange and sell on another; None if all quotes are of one exchange."""
    ways = (Spread(buy=buy, sell=sell) for buy, sell in permutations(quotes, 2) if buy.exchange != sell.exchange)
    return max(ways, key=attrgetter("bps"), default=None)


def opportunities(quotes: Iterable[StoredBookTicker], exchanges: Mapping[str, Exchange]) -> list[Opportunity]:
    """Return the spells in which a pair's widest spread was above the fees, each with its best prices.

    `quotes` are of one pair, in the order of time. A spell ends when the spread no longer pays, or when another
    combination of exchanges has the widest one.
    """
    spells = groupby(_moments(quotes), key=_way)
    return [_opportunity(list(spell), exchanges) for way, spell in spells if way is not None]


_Moment: TypeAlias = tuple[datetime, Spread | None]  # a time, and the widest spread then


def _moments(quotes: Iterable[StoredBookTicker]) -> Iterator[_Moment]:
    books: dict[int, StoredBookTicker] = {}
    # Quotes of the same time are one state of the market.
    for timestamp, together in groupby(quotes, key=attrgetter("timestamp")):
        books.update((quote.symbol_id, quote) for quote in together)
        yield timestamp, widest_spread(books.values())


def _way(moment: _Moment) -> tuple[str, str] | None:
    """Return where to buy and where to sell, None if it does not pay."""
    _, spread = moment
    return (spread.buy.exchange, spread.sell.exchange) if spread and spread.bps > 2 * TAKER_FEE_BPS else None


def _opportunity(spell: Sequence[_Moment], exchanges: Mapping[str, Exchange]) -> Opportunity:
    best = max((spread for _, spread in spell if spread is not None), key=attrgetter("bps"))
    (start, _), (end, _) = spell[0], spell[-1]
    return Opportunity(
        symbol_id=best.buy.symbol_id,
        timestamp=start,
        buy_exchange_id=exchanges[best.buy.exchange].id,
        sell_exchange_id=exchanges[best.sell.exchange].id,
        buy_price=best.buy.ask_price,
        sell_price=best.sell.bid_price,
        quantity=best.quantity,
        spread_bps=round(best.bps, 3),
        net_profit=round(best.net_profit, 6),
        duration_ms=(end - start) // timedelta(milliseconds=1),
    )
