"""Zips of QuantConnect's Lean to ticks and candles: one CSV without a header, of one symbol.

The format is told in https://github.com/QuantConnect/Lean, Data/*/readme.md; prices of currencies and crypto are not
scaled there, unlike those of equities.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

from arbstore.ingest.files import UnknownFormatError
from arbstore.ingest.options import IngestOptions
from arbstore.ingest.rows import Ignored, Row, SymbolName
from arbstore.ingest.times import aware, of_day

_OF_A_DAY = re.compile(
    r"(?P<day>\d{8})_(?P<symbol>[a-z0-9]+)_(?P<length>tick|second|minute)_(?P<what>quote|trade)\.csv"
)
_OF_YEARS = re.compile(r"(?P<symbol>[a-z0-9]+)\.csv")
_TIMEFRAMES = {"second": "1s", "minute": "1m", "hour": "1h", "daily": "1d"}
_TICK, _TRADE_BAR, _QUOTE_BAR = 3, 6, 11


class LeanParser:
    """Reads ticks, bars of trades, and bars of quotes, of which the mid is kept.

    A symbol has one candle a timeframe and time: of its bars of trades and of quotes, those ingested last stay.
    """

    def __init__(self, path: Path, member: str, options: IngestOptions) -> None:
        """Take symbol, day and length from the names of the zip and its member.

        Raises UnknownFormatError if they do not tell, ConfigurationError if no exchange is given.
        """
        self._utc_offset = options.utc_offset
        self._day: date | None = None
        self.timeframe: str | None
        name = member.rpartition("/")[2].lower()
        if found := _OF_A_DAY.fullmatch(name):
            self._day = _day(found["day"])
            self.timeframe = _TIMEFRAMES.get(found["length"])
            if (found["length"], found["what"]) == ("tick", "trade"):
                raise UnknownFormatError(f"{path}: ticks of trades have no ids, and cannot be stored as trades")
        elif found := _OF_YEARS.fullmatch(name):
            self.timeframe = _named_in(path) or options.timeframe
            if self.timeframe is None:
                raise UnknownFormatError(f"{path} does not name the length of its bars: give it with --timeframe")
        else:
            raise UnknownFormatError(f"{path} holds {member}, which is no name such as 20140504_eurusd_tick_quote.csv")
        spelling = found["symbol"].upper()
        self._owners = (("symbol_id", SymbolName(options.required_exchange(), spelling)),)

    def __call__(self, line: bytes, /) -> Row | Ignored:
        """Return the tick or candle; raise ValueError with the reason if the line is malformed."""
        if not line:
            return "blank line"
        time, *cells = line.decode("ascii").split(",")
        if self.timeframe is None:
            return self._tick(time, cells)
        return self._candle(time, cells, self.timeframe)

    def _tick(self, time: str, cells: list[str]) -> Row:
        if len(cells) + 1 != _TICK:
            raise ValueError(f"has {len(cells) + 1} cells, a tick has time, bid and ask")
        values = {"timestamp": self._time(time), "bid": float(cells[0]), "ask": float(cells[1])}
        return Row("ticks", self._owners, values)

    def _candle(self, time: str, cells: list[str], timeframe: str) -> Row:
        if len(cells) + 1 == _TRADE_BAR:
            prices, volume = [float(cell) for cell in cells[:4]], float(cells[4])
        elif len(cells) + 1 == _QUOTE_BAR:
            prices, volume = [_mid(*sides) for sides in zip(cells[:4], cells[5:9], strict=True)], None
        else:
            raise ValueError(f"has {len(cells) + 1} cells, a bar has {_TRADE_BAR} of trades or {_QUOTE_BAR} of quotes")
        values = dict(zip(("open", "high", "low", "close"), prices, strict=True))
        named = {"timestamp": self._time(time), "timeframe": timeframe, "volume": volume}
        return Row("candles", self._owners, values | named)

    def _time(self, text: str) -> datetime:
        if self._day is not None:
            return of_day(self._day, text, self._utc_offset)
        return aware(datetime.strptime(text, "%Y%m%d %H:%M"), self._utc_offset)  # noqa: DTZ007 # `aware` adds the zone


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UnknownFormatError(f"{text}, in the file's name, is no date") from None


def _named_in(path: Path) -> str | None:
    """Return the timeframe that the name of the zip, or of its folder, says."""
    words = {*re.split(r"[_.]", path.name.lower()), path.parent.name.lower()}
    return next((timeframe for word, timeframe in _TIMEFRAMES.items() if word in words), None)


def _mid(bid: str, ask: str) -> float:
    """Return (bid + ask) / 2 without the error of adding floats."""
    try:
        sides = Decimal(bid), Decimal(ask)
    except InvalidOperation:
        raise ValueError(f"bid {bid!r} and ask {ask!r} must be numbers") from None
    if not all(side.is_finite() and side > 0 for side in sides):
        raise ValueError(f"bid {bid} and ask {ask} must be > 0")
    return float(sum(sides) / 2)
