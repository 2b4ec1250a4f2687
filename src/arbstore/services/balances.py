"""Balances of accounts."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from arbstore import models
from arbstore.records import Balance, StoredBalance
from arbstore.services.series import ExchangeSeries


class Balances(ExchangeSeries[Balance, StoredBalance]):
    """Balances by exchange and asset; names of assets are upper case."""

    table = models.BalanceSnapshot.__table__
    record = Balance
    stored = StoredBalance
    part = "asset_name"

    async def latest(
        self,
        exchange: str | Enum | None = None,
        asset: str | None = None,
        *,
        max_age: timedelta | None = None,
    ) -> list[StoredBalance]:
        """Return the newest balance of each asset on each active exchange, by exchange and asset.

        Those without a row, or without one younger than `max_age`, are left out. Raises UnknownExchangeError.
        """
        return await self._latest_of_exchange(exchange, asset and asset.strip().upper(), max_age)

    async def history(
        self,
        exchange: str | Enum,
        asset: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[StoredBalance]:
        """Return the rows of [since, until) of one asset, oldest first; with `limit`, the newest that many of them.

        Raises UnknownExchangeError.
        """
        return await self._history_of_part(exchange, asset.strip().upper(), (since, until, limit))
