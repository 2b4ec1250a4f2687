"""Lengths of candles, and when candles begin: as exchanges count them, in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache

from arbstore.records import rules

_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
_WEEK = timedelta(weeks=1)
_UNITS = {"s": timedelta(seconds=1), "m": _MINUTE, "h": timedelta(hours=1), "d": _DAY, "w": _WEEK}


class Origin(StrEnum):
    """Where a candle comes from.

    A feed delivers candles of trades (`feed`), of mark prices (`mark`), of an index (`index`), and of mids (`mid`).
    Candles of `trades` and `quotes` are made here, from stored trades and from the mids of stored book tickers.
    """

    FEED = "feed"
    MARK = "mark"
    INDEX = "index"
    MID = "mid"
    TRADES = "trades"
    QUOTES = "quotes"

    @property
    def is_made(self) -> bool:
        """Whether such candles are made here."""
        return self in (Origin.TRADES, Origin.QUOTES)


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
        """Read a text such as 1s, 5m, 1h or 1M; raise ValueError if such candles do not fill a day or a year evenly."""
        text: str = rules.timeframe.parse(given)
        count, unit = int(text[:-1]), text[-1]
        if unit == "M":
            if 12 % count:
                raise ValueError(f"{text} does not divide a year: use 1M, 2M, 3M, 4M, 6M or 12M")
            return cls(text, None, count)
        length = count * _UNITS[unit]
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


def first_end(text: str, moment: datetime) -> datetime | None:
    """Return when the bar of this timeframe ends that begins at the moment, in UTC; None if no bar begins then.

    A length that does not divide a day, such as 3d, has no fixed beginnings: its bars begin at any whole unit.
    """
    timeframe, count = _steps(text)
    return timeframe.step(moment, count) if timeframe.floor(moment) == moment else None


@lru_cache(maxsize=64)
def _steps(text: str) -> tuple[Timeframe, int]:
    try:
        return Timeframe.parse(text), 1
    except ValueError:
        count, unit = int(text[:-1]), text[-1]
        return Timeframe(text, _UNITS.get(unit), 1), count
