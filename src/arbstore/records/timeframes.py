"""Lengths of candles, and when candles begin: as exchanges count them, in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from enum import StrEnum

from arbstore.records import rules

_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
_WEEK = timedelta(weeks=1)
_UNITS = {"s": timedelta(seconds=1), "m": _MINUTE, "h": timedelta(hours=1), "d": _DAY, "w": _WEEK}


class CandleSource(StrEnum):
    """Where a candle comes from: `feed` if an exchange delivered it, `trades` or `quotes` if it is made from rows."""

    FEED = "feed"
    TRADES = "trades"
    QUOTES = "quotes"


@dataclass(frozen=True, slots=True)
class Timeframe:
    """A length that divides a day, or a week, or a number of months that divides a year.

    Days begin at 00:00 UTC, weeks on Monday, months on the 1st. `length` is None if the length is in `months`.
    """

    MONDAY = datetime(2001, 1, 1, tzinfo=UTC)  # a week, a day and a year begin here

    text: str
    length: timedelta | None
    months: int

    @classmethod
    def parse(cls, given: str) -> Timeframe:
        """Read a text such as 5m, 1h or 1M; raise ValueError if such candles do not fill a day or a year evenly."""
        text: str = rules.timeframe.parse(given)
        count, unit = int(text[:-1]), text[-1]
        if unit == "M":
            if 12 % count:
                raise ValueError(f"{text} does not divide a year: use 1M, 2M, 3M, 4M, 6M or 12M")
            return cls(text, None, count)
        length = count * _UNITS[unit]
        if length % _MINUTE:
            raise ValueError(
                f"{text} is not a number of minutes, which candles are made from: use 1m, 5m or 1h, for example"
            )
        if length != _WEEK and _DAY % length:
            raise ValueError(f"{text} does not divide a day: use 5m, 1h, 4h, 1d, 1w or 1M, for example")
        return cls(text, length, 0)

    def floor(self, moment: datetime) -> datetime:
        """Return when the candle begins that covers a moment in UTC. Raises OverflowError before the year 1."""
        if self.length is not None:
            return moment - (moment - self.MONDAY) % self.length
        first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return self._months_on(first, -((moment.month - 1) % self.months))

    def ceil(self, moment: datetime) -> datetime:
        """Return when the first candle begins at or after the moment. Raises OverflowError after the year 9999."""
        begin = self.floor(moment)
        return begin if begin == moment else self.step(begin, 1)

    def step(self, begin: datetime, count: int) -> datetime:
        """Return when the candle begins that is `count` candles later, or earlier. May raise OverflowError."""
        if self.length is not None:
            return begin + self.length * count
        return self._months_on(begin, self.months * count)

    @staticmethod
    def _months_on(first: datetime, months: int) -> datetime:
        year, month = divmod(first.year * 12 + first.month - 1 + months, 12)
        if not MINYEAR <= year <= MAXYEAR:
            raise OverflowError("date value out of range")
        return first.replace(year=year, month=month + 1)
