"""Store: all services over one session."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from arbstore.cache import ReferenceCache
from arbstore.errors import ValidationError
from arbstore.kinds import KINDS, Kind
from arbstore.records import (
    BookTicker,
    FundingRate,
    Snapshot,
    StoredBookTicker,
    StoredFundingRate,
    StoredTick,
    StoredTrade,
    Tick,
    Trade,
)
from arbstore.services.candles import Candles
from arbstore.services.exchanges import Exchanges
from arbstore.services.maintenance import Maintenance
from arbstore.services.markets import Balances, Collectors, Opportunities, OrderFlows, PairSeries
from arbstore.services.series import Series
from arbstore.services.symbols import Symbols

In = TypeVar("In", bound=Snapshot)
Out = TypeVar("Out", bound=Snapshot)

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
        usual: type[Series[Any, Any]] = PairSeries if row.of_symbols and row.part is None else Series
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
