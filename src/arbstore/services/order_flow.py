"""Order-flow metrics."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from arbstore import models
from arbstore.records import OrderFlow, StoredOrderFlow
from arbstore.services.series import SymbolSeries


class OrderFlows(SymbolSeries[OrderFlow, StoredOrderFlow]):
    """Order-flow metrics of symbols, by length of the window in seconds."""

    table = models.OrderFlowMetrics.__table__
    record = OrderFlow
    stored = StoredOrderFlow
    part = "window_seconds"

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
        return await self._latest_of_pairs(exchange, base, quote, max_age, window_seconds)

    async def history(
        self,
        exchange: str | Enum,
        base: str,
        quote: str,
        window_seconds: int,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[StoredOrderFlow]:
        """Return the rows of [since, until) of the pair's active, undated symbol, oldest first.

        With `limit`, the newest that many of them. Raises UnknownExchangeError and UnknownSymbolError.
        """
        window = (since, until, limit)
        return await self._history_of_pair((exchange, base, quote), window, window_seconds=window_seconds)
