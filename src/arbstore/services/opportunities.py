"""Arbitrage opportunities: seen chances to buy on one exchange and sell on another."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from arbstore import models
from arbstore.records import Opportunity, StoredOpportunity
from arbstore.services.exchanges import Exchanges
from arbstore.services.series import SymbolSeries


class Opportunities(SymbolSeries[Opportunity, StoredOpportunity]):
    """Opportunities by bought symbol and selling exchange."""

    table = models.ArbitrageOpportunity.__table__
    record = Opportunity
    stored = StoredOpportunity
    part = "sell_exchange_id"

    async def latest(
        self,
        exchange: str | Enum | None = None,
        base: str | None = None,
        quote: str | None = None,
        *,
        max_age: timedelta | None = None,
    ) -> list[StoredOpportunity]:
        """Return the newest opportunity of each active symbol bought and each exchange it sells on.

        `exchange` is the one bought on. Older ones than `max_age` are left out. Raises UnknownExchangeError.
        """
        return await self._latest_of_pairs(exchange, base, quote, max_age)

    async def history(
        self,
        exchange: str | Enum,
        base: str,
        quote: str,
        sell_exchange: str | Enum,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[StoredOpportunity]:
        """Return the opportunities of [since, until) from buying on `exchange` to `sell_exchange`, oldest first.

        With `limit`, the newest that many of them. Raises UnknownExchangeError and UnknownSymbolError.
        """
        sold_on = await Exchanges(self._session, self._cache).by_enum_one(sell_exchange)
        window = (since, until, limit)
        return await self._history_of_pair((exchange, base, quote), window, sell_exchange_id=sold_on.id)
