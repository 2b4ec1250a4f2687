"""What collectors say of themselves."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum

from arbstore import models
from arbstore.records import CollectorStatus, StoredCollectorStatus
from arbstore.services.series import ExchangeSeries


class Collectors(ExchangeSeries[CollectorStatus, StoredCollectorStatus]):
    """States by exchange and collector."""

    table = models.CollectorStatus.__table__
    record = CollectorStatus
    stored = StoredCollectorStatus
    part = "collector"

    async def latest(
        self,
        exchange: str | Enum | None = None,
        collector: str | None = None,
        *,
        max_age: timedelta | None = None,
    ) -> list[StoredCollectorStatus]:
        """Return the newest state of each collector on each active exchange, by exchange and collector.

        Those without a row, or without one younger than `max_age`, are left out. Raises UnknownExchangeError.
        """
        return await self._latest_of_exchange(exchange, collector, max_age)

    async def history(
        self,
        exchange: str | Enum,
        collector: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[StoredCollectorStatus]:
        """Return the rows of [since, until) of one collector, oldest first; with `limit`, the newest that many of them.

        Raises UnknownExchangeError.
        """
        return await self._history_of_part(exchange, collector, (since, until, limit))
