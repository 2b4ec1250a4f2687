"""Rows that are too old for the server to make candles of: theirs are made before they can be dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType

from arbstore.database import Store
from arbstore.records import CandleSource

_MINUTE = timedelta(minutes=1)

# By the kind of the rows.
_SOURCES: Mapping[str, CandleSource] = MappingProxyType(
    {"trades": CandleSource.TRADES, "book_tickers": CandleSource.QUOTES}
)


class RollUps:
    """The times of the trades and quotes of one file: by day, lest a lonely old row mean all that is after it."""

    def __init__(self, store: Store) -> None:
        """Remember nothing yet; `store` is that of the file's transaction."""
        self._store = store
        self._days: dict[str, dict[date, tuple[datetime, datetime]]] = {kind: {} for kind in _SOURCES}

    def add(self, kind: str, times: Iterable[datetime]) -> None:
        """Take in the times of rows that were written; of a kind that no candles are made of nothing happens."""
        if (days := self._days.get(kind)) is None:
            return
        for at in times:
            first, last = days.get(day := at.date(), (at, at))
            days[day] = min(first, at), max(last, at)

    async def finish(self) -> None:
        """Roll up the minutes, of all symbols, from the first to the last row of each day that no refresh reaches."""
        for kind, source in _SOURCES.items():
            days = sorted(self._days[kind].values())
            if not days or (before := await self._store.candles.unrefreshed_before(source)) is None:
                continue
            for first, last in days:
                if first < before:
                    await self._store.candles.roll_up(source, _minute(first), _minute(min(last, before)) + _MINUTE)


def _minute(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(second=0, microsecond=0)
