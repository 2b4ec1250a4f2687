"""Store: all services over one session. Services whose arguments are written out, for editors and type checkers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Unpack

from sqlalchemy.ext.asyncio import AsyncSession

from arbstore.cache import ReferenceCache
from arbstore.errors import ValidationError
from arbstore.kinds import KINDS, Kind
from arbstore.postgres.history import Window
from arbstore.records import (
    Balance,
    BookTicker,
    CollectorStatus,
    FundingRate,
    Opportunity,
    OrderFlow,
    Snapshot,
    StoredBalance,
    StoredBookTicker,
    StoredCollectorStatus,
    StoredFundingRate,
    StoredOpportunity,
    StoredOrderFlow,
    StoredTick,
    StoredTrade,
    Tick,
    Trade,
)
from arbstore.services.candles import Candles
from arbstore.services.exchanges import Exchanges
from arbstore.services.maintenance import Maintenance
from arbstore.services.series import Series
from arbstore.services.symbols import Symbols

In = TypeVar("In", bound=Snapshot)
Out = TypeVar("Out", bound=Snapshot)


# The arguments of `latest`: all are optional, and None leaves the filter out.
Name: TypeAlias = str | Enum | None
Text: TypeAlias = str | None
Age: TypeAlias = timedelta | None


class PairSeries(Series[In, Out]):
    """Time series of which each symbol has one: book tickers, trades, funding rates, ticks."""

    async def latest(
        self, exchange: Name = None, base: Text = None, quote: Text = None, *, max_age: Age = None
    ) -> list[Out]:
        """Return the newest row of each active symbol that the filters leave, by exchange, base and quote.

        Symbols without a row, or without one younger than `max_age`, are left out. Raises UnknownExchangeError.
        """
        return await super().latest(exchange, base, quote, max_age=max_age)

    async def history(self, exchange: str | Enum, base: str, quote: str, **window: Unpack[Window]) -> list[Out]:
        """Return the rows of the pair with `since <= timestamp < until`, oldest first.

        The pair stands for its active symbol without expiry. With `limit`, only the newest that many rows are returned.
        Raises UnknownExchangeError and UnknownSymbolError.
        """
        return await super().history(exchange, base, quote, **window)


class OrderFlows(Series[OrderFlow, StoredOrderFlow]):
    """Order-flow metrics of symbols, by the length of the window in seconds. See PairSeries for what calls share."""

    async def latest(
        self,
        exchange: Name = None,
        base: Text = None,
        quote: Text = None,
        *,
        window_seconds: int | None = None,
        max_age: Age = None,
    ) -> list[StoredOrderFlow]:
        """Return the newest row of each active symbol and window that the filters leave."""
        return await super().latest(exchange, base, quote, window_seconds=window_seconds, max_age=max_age)

    async def history(
        self, exchange: str | Enum, base: str, quote: str, window_seconds: int, **window: Unpack[Window]
    ) -> list[StoredOrderFlow]:
        """Return the rows of the pair and window, oldest first."""
        return await super().history(exchange, base, quote, window_seconds, **window)


class Opportunities(Series[Opportunity, StoredOpportunity]):
    """Arbitrage opportunities, by the symbol bought and the exchange sold on. See PairSeries for what calls share."""

    async def latest(
        self,
        exchange: Name = None,
        base: Text = None,
        quote: Text = None,
        *,
        sell_exchange: Name = None,
        max_age: Age = None,
    ) -> list[StoredOpportunity]:
        """Return the newest opportunity of each active symbol bought, on `exchange`, and each exchange sold on."""
        return await super().latest(exchange, base, quote, sell_exchange=sell_exchange, max_age=max_age)

    async def history(
        self, exchange: str | Enum, base: str, quote: str, sell_exchange: str | Enum, **window: Unpack[Window]
    ) -> list[StoredOpportunity]:
        """Return the opportunities to buy on `exchange` and sell on `sell_exchange`, oldest first."""
        return await super().history(exchange, base, quote, sell_exchange, **window)


class Balances(Series[Balance, StoredBalance]):
    """Balances of accounts, by exchange and asset. Names of assets are upper case."""

    async def latest(self, exchange: Name = None, asset: Text = None, *, max_age: Age = None) -> list[StoredBalance]:
        """Return the newest balance of each asset on each active exchange, if it is younger than `max_age`."""
        return await super().latest(exchange, asset, max_age=max_age)

    async def history(self, exchange: str | Enum, asset: str, **window: Unpack[Window]) -> list[StoredBalance]:
        """Return the balances of one asset in the window, oldest first. Raises UnknownExchangeError."""
        return await super().history(exchange, asset, **window)


class Collectors(Series[CollectorStatus, StoredCollectorStatus]):
    """States of collectors, by exchange and collector."""

    async def latest(
        self, exchange: Name = None, collector: Text = None, *, max_age: Age = None
    ) -> list[StoredCollectorStatus]:
        """Return the newest state of each collector on each active exchange, if it is younger than `max_age`."""
        return await super().latest(exchange, collector, max_age=max_age)

    async def history(
        self, exchange: str | Enum, collector: str, **window: Unpack[Window]
    ) -> list[StoredCollectorStatus]:
        """Return the states of one collector in the window, oldest first. Raises UnknownExchangeError."""
        return await super().history(exchange, collector, **window)


# The kinds whose service has arguments of its own.
_SERVICES: Mapping[str, type[Series[Any, Any]]] = MappingProxyType(
    {
        "balances": Balances,
        "candles": Candles,
        "collectors": Collectors,
        "opportunities": Opportunities,
        "order_flow": OrderFlows,
    }
)


class Store:
    """The services over one session, yours or a Database's. They never commit: the owner of the session does.

    Every kind of time series is an attribute, named as in `arbstore.kinds`.
    """

    book_tickers: PairSeries[BookTicker, StoredBookTicker]
    trades: PairSeries[Trade, StoredTrade]
    funding_rates: PairSeries[FundingRate, StoredFundingRate]
    ticks: PairSeries[Tick, StoredTick]
    candles: Candles
    balances: Balances
    opportunities: Opportunities
    order_flow: OrderFlows
    collectors: Collectors

    def __init__(self, session: AsyncSession, cache: ReferenceCache | None = None) -> None:
        """Work in `session`, sharing the answers of `cache` (usually `Database.cache`)."""
        self.session = session
        self.cache = cache or ReferenceCache()

    @cached_property
    def exchanges(self) -> Exchanges:
        """Markets of exchanges."""
        return Exchanges(self.session, self.cache)

    @cached_property
    def symbols(self) -> Symbols:
        """The symbols that are traded on the exchanges."""
        return Symbols(self.session, self.cache)

    @cached_property
    def maintenance(self) -> Maintenance:
        """Sizes, retention and cleanup of the tables."""
        return Maintenance(self.session, self.cache)

    def series(self, kind: str | Kind[In, Out]) -> Series[In, Out]:
        """Return the service of a kind: a row of `arbstore.kinds`, its name, or a row of your own.

        Raises ValidationError for an unknown name.
        """
        row = named(kind)
        usual: type[Series[Any, Any]] = PairSeries if row.of_symbols and not row.parts else Series
        return _SERVICES.get(row.name, usual)(self.session, self.cache, row)

    if not TYPE_CHECKING:  # the attributes above are all that type checkers should know

        def __getattr__(self, name: str) -> Series[Any, Any]:
            """Return the service of the kind with this name."""
            if name not in KINDS:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            service = self.series(name)
            setattr(self, name, service)  # the next time it is found there
            return service


def named(kind: str | Kind[In, Out]) -> Kind[In, Out]:
    """Return the row of this name, or the row itself; raise ValidationError for an unknown name."""
    if isinstance(kind, Kind):
        return kind
    found: Kind[Any, Any] | None = KINDS.get(kind)
    if found is None:
        raise ValidationError(f"must be one of {', '.join(KINDS)}, is {kind!r}", field="kind")
    return found
