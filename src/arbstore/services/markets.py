"""The services of a Store with their arguments written out, so that editors and type checkers know them.

They add nothing to `Series`: a kind that is not here has a service all the same.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import TypeVar, Unpack

from arbstore.postgres.history import Window
from arbstore.records import (
    Balance,
    CollectorStatus,
    Opportunity,
    OrderFlow,
    Snapshot,
    StoredBalance,
    StoredCollectorStatus,
    StoredOpportunity,
    StoredOrderFlow,
)
from arbstore.services.series import Series

In = TypeVar("In", bound=Snapshot)
Out = TypeVar("Out", bound=Snapshot)


class PairSeries(Series[In, Out]):
    """Time series of which each symbol has one: book tickers, trades, funding rates, ticks."""

    async def latest(
        self,
        exchange: str | Enum | None = None,
        base: str | None = None,
        quote: str | None = None,
        *,
        max_age: timedelta | None = None,
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
    """Order-flow metrics of symbols, by the length of the window in seconds."""

    async def latest(
        self,
        exchange: str | Enum | None = None,
        base: str | None = None,
        quote: str | None = None,
        *,
        window_seconds: int | None = None,
        max_age: timedelta | None = None,
    ) -> list[StoredOrderFlow]:
        """Return the newest row of each active symbol and window that the filters leave, by exchange and pair.

        Those without a row, or without one younger than `max_age`, are left out. Raises UnknownExchangeError.
        """
        return await super().latest(exchange, base, quote, window_seconds=window_seconds, max_age=max_age)

    async def history(
        self,
        exchange: str | Enum,
        base: str,
        quote: str,
        window_seconds: int,
        **window: Unpack[Window],
    ) -> list[StoredOrderFlow]:
        """Return the rows of the pair and window with `since <= timestamp < until`, oldest first.

        With `limit`, only the newest that many rows are returned. Raises UnknownExchangeError and UnknownSymbolError.
        """
        return await super().history(exchange, base, quote, window_seconds, **window)


class Opportunities(Series[Opportunity, StoredOpportunity]):
    """Arbitrage opportunities, by the symbol bought and the exchange sold on."""

    async def latest(
        self,
        exchange: str | Enum | None = None,
        base: str | None = None,
        quote: str | None = None,
        *,
        sell_exchange: str | Enum | None = None,
        max_age: timedelta | None = None,
    ) -> list[StoredOpportunity]:
        """Return the newest opportunity of each active symbol bought and each exchange sold on.

        `exchange` is where the symbol is bought. Opportunities older than `max_age` are left out. Raises
        UnknownExchangeError.
        """
        return await super().latest(exchange, base, quote, sell_exchange=sell_exchange, max_age=max_age)

    async def history(
        self,
        exchange: str | Enum,
        base: str,
        quote: str,
        sell_exchange: str | Enum,
        **window: Unpack[Window],
    ) -> list[StoredOpportunity]:
        """Return the opportunities to buy on `exchange` and sell on `sell_exchange`, oldest first.

        They have `since <= timestamp < until`. With `limit`, only the newest that many are returned. Raises
        UnknownExchangeError and UnknownSymbolError.
        """
        return await super().history(exchange, base, quote, sell_exchange, **window)


class Balances(Series[Balance, StoredBalance]):
    """Balances of accounts, by exchange and asset. Names of assets are upper case."""

    async def latest(
        self, exchange: str | Enum | None = None, asset: str | None = None, *, max_age: timedelta | None = None
    ) -> list[StoredBalance]:
        """Return the newest balance of each asset on each active exchange, by exchange and asset.

        Those without a row, or without one younger than `max_age`, are left out. Raises UnknownExchangeError.
        """
        return await super().latest(exchange, asset, max_age=max_age)

    async def history(self, exchange: str | Enum, asset: str, **window: Unpack[Window]) -> list[StoredBalance]:
        """Return the balances of one asset with `since <= timestamp < until`, oldest first.

        With `limit`, only the newest that many are returned. Raises UnknownExchangeError.
        """
        return await super().history(exchange, asset, **window)


class Collectors(Series[CollectorStatus, StoredCollectorStatus]):
    """States of collectors, by exchange and collector."""

    async def latest(
        self, exchange: str | Enum | None = None, collector: str | None = None, *, max_age: timedelta | None = None
    ) -> list[StoredCollectorStatus]:
        """Return the newest state of each collector on each active exchange, by exchange and collector.

        Those without a row, or without one younger than `max_age`, are left out. Raises UnknownExchangeError.
        """
        return await super().latest(exchange, collector, max_age=max_age)

    async def history(
        self,
        exchange: str | Enum,
        collector: str,
        **window: Unpack[Window],
    ) -> list[StoredCollectorStatus]:
        """Return the states of one collector with `since <= timestamp < until`, oldest first.

        With `limit`, only the newest that many are returned. Raises UnknownExchangeError.
        """
        return await super().history(exchange, collector, **window)
