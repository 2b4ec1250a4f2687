"""Zips of QuantConnect's Lean: one CSV without a header, with ticks or candles of one symbol.

The format is described in https://github.com/QuantConnect/Lean, Data/*/readme.md. Prices of currencies and crypto are
not scaled, unlike those of equities.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from arbstore.ingest.options import IngestOptions
from arbstore.ingest.reading import Format, Lines, Row, UnknownFormatError, aware
from arbstore.ingest.symbols import SymbolName
from arbstore.records import Origin

_OF_A_DAY = re.compile(
    r"(?P<day>\d{8})_(?P<symbol>[a-z0-9]+)_(?P<length>tick|second|minute)_(?P<what>quote|trade)\.csv"
)
_OF_YEARS = re.compile(r"(?P<symbol>[a-z0-9]+)\.csv")
_TIMEFRAMES = {"second": "1s", "minute": "1m", "hour": "1h", "daily": "1d"}
_TRADE_BAR, _QUOTE_BAR = 5, 10  # cells after the time
_EXAMPLE = "20140504_eurusd_tick_quote.csv"
_DAY_MS = 86_400_000


class LeanZip(Format):
    """Ticks, candles of trades (origin `feed`), or candles of the mid price of quotes (origin `mid`)."""

    name = "Lean market data"
    endings = (".zip",)
    opens = Lines

    def __init__(self, items: Lines, options: IngestOptions) -> None:
        """Take symbol, day and timeframe from the names of the zip and its member."""
        super().__init__(items, options)
        self._midnight: datetime | None = None
        member = items.member.rpartition("/")[2].lower()
        if found := _OF_A_DAY.fullmatch(member):
            self._midnight = _midnight(found["day"])
            self._timeframe = _TIMEFRAMES.get(found["length"])
            if (found["length"], found["what"]) == ("tick", "trade"):
                raise UnknownFormatError(f"{items.path} has trades without ids, which cannot be stored as trades")
        elif found := _OF_YEARS.fullmatch(member):
            self._timeframe = _named_in(items.path) or options.timeframe
            if self._timeframe is None:
                reason = "does not name the timeframe of its candles: give the timeframe"
                raise UnknownFormatError(f"{items.path} {reason}", parameter="timeframe")
        else:
            raise UnknownFormatError(f"{items.path} holds {member}: expected a name like {_EXAMPLE}")
        self.name = "Lean ticks" if self._timeframe is None else f"Lean candles of {self._timeframe}"
        self._owners = (("symbol_id", SymbolName(self.exchange, found["symbol"].upper())),)

    def read(self, line: bytes) -> Row:
        """Return the tick or candle."""
        time, *cells = line.decode("ascii").split(",")
        values: dict[str, Any] = {"timestamp": self._time(time)}
        if self._timeframe is None:
            return Row("ticks", self._owners, values | _tick(cells))
        return Row("candles", self._owners, values | {"timeframe": self._timeframe} | _candle(cells))

    def _time(self, text: str) -> datetime:
        if self._midnight is None:
            moment = datetime.strptime(text, "%Y%m%d %H:%M")  # noqa: DTZ007 # `aware` adds the zone
        elif text.isascii() and text.isdigit() and int(text) < _DAY_MS:
            moment = self._midnight + timedelta(milliseconds=int(text))
        else:
            raise ValueError(f"{text!r} is not a count of milliseconds since midnight")
        return aware("time", moment, self.options.utc_offset)


def _midnight(day: str) -> datetime:
    try:
        return datetime.strptime(day, "%Y%m%d")  # noqa: DTZ007 # `aware` adds the zone
    except ValueError:
        raise UnknownFormatError(f"{day}, in the file's name, is not a date") from None


def _tick(cells: list[str]) -> dict[str, float]:
    if len(cells) != 2:
        raise ValueError(f"has {len(cells) + 1} cells, but a tick has time, bid and ask")
    return {"bid": float(cells[0]), "ask": float(cells[1])}


def _candle(cells: list[str]) -> dict[str, Any]:
    if len(cells) == _TRADE_BAR:
        origin, prices, volume = Origin.FEED, [float(cell) for cell in cells[:4]], float(cells[4])
    elif len(cells) == _QUOTE_BAR:
        origin, prices, volume = Origin.MID, [_mid(*sides) for sides in zip(cells[:4], cells[5:9], strict=True)], None
    else:
        raise ValueError(f"has {len(cells) + 1} cells, but a bar of trades has 6 and one of quotes 11")
    return dict(zip(("origin", "open", "high", "low", "close", "volume"), [origin, *prices, volume], strict=True))


def _named_in(path: Path) -> str | None:
    """Return the timeframe in the name of the zip or its folder."""
    words = {*re.split(r"[_.]", path.name.lower()), path.parent.name.lower()}
    return next((timeframe for word, timeframe in _TIMEFRAMES.items() if word in words), None)


def _mid(bid: str, ask: str) -> float:
    """Return (bid + ask) / 2. Decimals avoid the rounding error of adding floats."""
    try:
        sides = Decimal(bid), Decimal(ask)
    except InvalidOperation:
        raise ValueError(f"bid {bid!r} and ask {ask!r} must be numbers") from None
    if not all(side.is_finite() and side > 0 for side in sides):
        raise ValueError(f"bid {bid} and ask {ask} must be > 0")
    return float(sum(sides) / 2)
