"""Candles as feeds deliver them."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from arbstore import models
from arbstore.records import Candle, StoredCandle
from arbstore.services.series import SymbolSeries


class Candles(SymbolSeries[Candle, StoredCandle]):
    """Candles of symbols, by timeframe."""

    table = models.Candle.__table__
    record = Candle
    stored = StoredCandle
    part = "timeframe"

    async def latest(
        self,
        exchange: str | Enum | None = None,
        base: str | None = None,
        quote: str | None = None,
        *,
        timeframe: str | None = None,
        max_age: timedelta | None = None,
    ) -> list[StoredCandle]:
        """Return the newest row of each active symbol and timeframe that the filters leave, by exchange and pair.

        Those without a row, or without one younger than `max_age`, are left out. Raises UnknownExchangeError.
        """
        return await self._latest_of_pairs(exchange, base, quote, max_age, timeframe)

    async def history(
        self,
        exchange: str | Enum,
        base: str,
        quote: str,
        timeframe: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[StoredCandle]:
        """Return the rows of [since, until) of the pair's active, undated symbol, oldest first.

        With `limit`, the newest that many of them. Raises UnknownExchangeError and UnknownSymbolError.
        """
        chosen = self.table.c.timeframe == timeframe
        return await self._history_of_pair((exchange, base, quote), (since, until, limit), chosen)
