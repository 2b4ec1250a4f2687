"""Candles as feeds deliver them."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from arbstore import models
from arbstore.errors import ValidationError
from arbstore.records import Candle, StoredCandle, rules
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
        part = None if timeframe is None else _checked(timeframe)
        return await self._latest_of_pairs(exchange, base, quote, max_age, part)

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
        part = _checked(timeframe)
        return await self._history_of_pair((exchange, base, quote), (since, until, limit), timeframe=part)


def _checked(timeframe: str) -> str:
    try:
        checked: str = rules.timeframe.parse(timeframe)
    except ValueError as error:
        raise ValidationError(str(error), field="timeframe") from error
    return checked
