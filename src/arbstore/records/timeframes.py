"""Lengths of candles, and the bars that time falls into: as exchanges count them, in UTC."""

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
    """What a candle is made of: `feed` as an exchange delivered it, `trades` and `quotes` rolled up from ours."""

    FEED = "feed"
    TRADES = "trades"
    QUOTES = "quotes"


@dataclass(frozen=True, slots=True)
class Timeframe:
    """A length of which a whole number of bars fills a day, or which is a week, or a part of a year in months.

    Days begin at 00:00 UTC, weeks on Monday, months on the 1st. `length` is None where it is `months`.
    """

    MONDAY = datetime(2001, 1, 1, tzinfo=UTC)  # a beginning of all: of a week, a day, a year

    text: str
    length: timedelta | None
    months: int

    @classmethod
    def parse(cls, given: str) -> Timeframe:
        """Read what `candles` take for a timeframe; raise ValueError where bars of it come out uneven."""
        text: str = rules.timeframe.parse(given)
        count, unit = int(text[:-1]), text[-1]
        if unit == "M":
            if 12 % count:
                raise ValueError(f"{text}: a year has no whole number of those; 1M, 2M, 3M, 4M, 6M and 12M fit")
            return cls(text, None, count)
        length = count * _UNITS[unit]
        if length % _MINUTE:
            raise ValueError(f"{text}: roll-ups are made of bars of one minute; take a multiple, such as 1m")
        if length != _WEEK and _DAY % length:
            raise ValueError(f"{text}: a day has no whole number of those; 5m, 1h, 4h, 1d, 1w and 1M fit")
        return cls(text, length, 0)

    def floor(self, moment: datetime) -> datetime:
        """Return when the bar of the moment, which is in UTC, begins. Raises OverflowError before the year 1."""
        if self.length is not None:
            return moment - (moment - self.MONDAY) % self.length
        first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return self._months_on(first, -((moment.month - 1) % self.months))

    def ceil(self, moment: datetime) -> datetime:
        """Return the first beginning of a bar that is not before the moment. Raises OverflowError at the last."""
        begin = self.floor(moment)
        return begin if begin == moment else self.step(begin, 1)

    def step(self, begin: datetime, bars: int) -> datetime:
        """Return the beginning of the bar so many bars on, or back. Raises OverflowError beyond all time."""
        if self.length is not None:
            return begin + self.length * bars
        return self._months_on(begin, self.months * bars)

    @staticmethod
    def _months_on(first: datetime, months: int) -> datetime:
        year, month = divmod(first.year * 12 + first.month - 1 + months, 12)
        if not MINYEAR <= year <= MAXYEAR:
            raise OverflowError("date value out of range")
        return first.replace(year=year, month=month + 1)
