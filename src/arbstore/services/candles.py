"""Candles, as feeds deliver them, and as they are made from our own trades and quotes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Unpack

from msgspec.structs import replace as changed
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    FromClause,
    Integer,
    Interval,
    Select,
    cast,
    column,
    func,
    literal,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from arbstore import models
from arbstore.errors import ValidationError
from arbstore.postgres.history import HistoryQuery, Window
from arbstore.records import Candle, Origin, StoredCandle, Timeframe, columns
from arbstore.records.rules import BEGINNING, END
from arbstore.records.timeframes import first_end
from arbstore.services import as_records
from arbstore.services.series import Series

_CANDLE = models.Candle.__table__
_MADE = ("open", "high", "low", "close", "volume", "vwap", "num_trades", "created_at")
_MOMENT = DateTime(timezone=True)
_MINUTE = timedelta(minutes=1)
# If few candles are found, the next query covers more time, but at most this many times as much.
_WIDER = 8


class Candles(Series[Candle, StoredCandle]):
    """Candles of symbols, by origin and timeframe."""

    async def latest(
        self,
        exchange: str | Enum | None = None,
        base: str | None = None,
        quote: str | None = None,
        *,
        timeframe: str | None = None,
        origin: str | Enum = Origin.FEED,
        max_age: timedelta | None = None,
    ) -> list[StoredCandle]:
        """Return the newest stored candle of each active symbol and timeframe that the filters leave.

        The order is that of exchange and pair. Series without a candle younger than `max_age` are left out. The
        origins `trades` and `quotes` have minutes only, stored some time after their end. Raises UnknownExchangeError.
        """
        more = {"timeframe": timeframe, "origin": origin, "max_age": max_age}
        return await super().latest(exchange, base, quote, **more)

    async def history(
        self,
        exchange: str | Enum,
        base: str,
        quote: str,
        timeframe: str,
        *,
        origin: str | Enum = Origin.FEED,
        **window: Unpack[Window],
    ) -> list[StoredCandle]:
        """Return the candles of the pair that begin in the window, oldest first.

        The pair stands for its active symbol without expiry. With `limit`, only the newest that many are returned.
        Candles of the origins `trades` and `quotes` are made from stored trades, and from the mids of stored book
        tickers. Those of whole minutes outlive the rows they come from; shorter ones do not.

        The timeframe of a made candle divides a day, or is 1w, or a number of months that divides a year. Weeks begin
        on Monday, months on the 1st, in UTC. A time without rows has no candle. Candles of quotes have no volume, vwap
        or number of trades. `created_at` is when the last of the rows was received. Raises UnknownExchangeError,
        UnknownSymbolError, and ValidationError for a bad timeframe or origin.
        """
        return await super().history(exchange, base, quote, timeframe, origin=origin, **window)

    async def query(self, *series: Any, **named: Any) -> HistoryQuery:
        """Return the query that `history` runs."""
        return _computed(await super().query(*series, **named))

    async def query_by_id(self, symbol_id: int, **named: Any) -> HistoryQuery:
        """Return the query that `history_by_id` runs: it takes `timeframe` and `origin` by name.

        Without a timeframe it is for the candles of all timeframes; made candles need one.
        """
        return _computed(await super().query_by_id(symbol_id, **named))

    async def fetch(self, query: HistoryQuery) -> list[StoredCandle]:
        """Run the query, and return its candles, oldest first."""
        if not query.computed:
            return await super().fetch(query)
        timeframe = Timeframe.parse(query.series["timeframe"])
        since, until = _first_begin(timeframe, query.since), _first_begin(timeframe, query.until)
        if query.limit is None:
            return await self._made(query, timeframe, since, until)
        found: list[StoredCandle] = []
        width = query.limit
        while len(found) < query.limit:
            ends = func.arbstore_ends(*_within(query, since, until)).table_valued("first", "last")
            first, last = tuple((await self._execute(select(ends))).one())
            if first is None:
                break
            until = timeframe.step(timeframe.floor(last), 1)
            begin = max(timeframe.floor(first), _back(timeframe, until, width, timeframe.floor(first)))
            part = await self._made(query, timeframe, begin, until)
            found, until = part + found, begin
            width = _wider(width, len(part), query.limit - len(found))
        return found[-query.limit :]

    def _checked(self, rows: Iterable[Candle | Mapping[str, Any]]) -> dict[str, list[Any]]:
        values = columns(self.kind.record, rows)
        for number, origin in enumerate(values["origin"]):
            if origin.is_made:
                raise ValidationError(f"must not be {origin}: such candles are made here", field="origin", row=number)
        now = datetime.now(UTC)
        closed, received = values["is_closed"], values["created_at"]
        for number, (text, begin) in enumerate(zip(values["timeframe"], values["timestamp"], strict=True)):
            end = first_end(text, begin)
            if end is None:
                raise ValidationError(f"{begin} is not when a bar of {text} begins", field="timestamp", row=number)
            if closed[number] is None:
                closed[number] = (received[number] or now) >= end
        return values

    async def _made(
        self, query: HistoryQuery, timeframe: Timeframe, since: datetime | None, until: datetime | None
    ) -> list[StoredCandle]:
        """Return the made candles that begin in [since, until): both are beginnings of candles."""
        rows = (await self._execute(_candles(timeframe, *_within(query, since, until)))).all()
        found = as_records(self.kind.stored, rows, **query.constants, is_closed=True)
        now = datetime.now(UTC)
        for place in reversed(range(len(found))):
            if timeframe.step(found[place].timestamp, 1) <= now:
                break
            found[place] = changed(found[place], is_closed=False)
        return found


def _within(query: HistoryQuery, since: datetime | None, until: datetime | None) -> tuple[Any, ...]:
    """Return the arguments of the server's functions that read the rows and minutes of one symbol."""
    bounds = (literal(since or BEGINNING, _MOMENT), literal(until or END, _MOMENT))
    return query.series["origin"], query.series["symbol_id"], *bounds


def _candles(timeframe: Timeframe, origin: Origin, *bounds: Any) -> Select[Any]:
    """Return the statement that makes candles: of minutes, or of rows if they are not a number of minutes."""
    names = [column("timestamp", _MOMENT), *(column(name, _CANDLE.c[name].type) for name in _MADE)]
    length = timeframe.length
    if length is not None and length % _MINUTE:
        rows = getattr(func, f"arbstore_candles_of_{origin}")(*bounds, _interval(length)).table_valued(*names)
        return select(*rows.c).order_by(rows.c.timestamp)
    minutes = func.arbstore_minutes(origin, *bounds).table_valued(*names)
    if length == _MINUTE:
        return select(*minutes.c).order_by(minutes.c.timestamp)
    placed = select(_bucket(timeframe, minutes.c.timestamp).label("begin"), *minutes.c).subquery("placed")
    begin = placed.c.begin
    return select(begin.label("timestamp"), *_merged(placed)).group_by(begin).order_by(begin)


def _interval(length: timedelta) -> ColumnElement[timedelta]:
    # Not in days: a day has 23 or 25 hours when clocks change.
    return literal_column(f"INTERVAL '{length // timedelta(seconds=1)} seconds'", Interval)


def _bucket(timeframe: Timeframe, moment: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return when the candle begins that covers the moment, counted as `Timeframe` counts."""
    if timeframe.length is not None:
        origin = literal_column(f"TIMESTAMPTZ '{Timeframe.MONDAY.isoformat()}'", _MOMENT)
        return func.date_bin(_interval(timeframe.length), moment, origin, type_=_MOMENT)
    # Months are counted in UTC, in any time zone of the session.
    first = func.date_trunc("month", func.timezone("UTC", moment))
    beyond = (cast(func.extract("month", first), Integer) - 1) % timeframe.months
    return func.timezone("UTC", first - func.make_interval(0, beyond), type_=_MOMENT)


def _merged(shorter: FromClause) -> list[ColumnElement[Any]]:
    """Return the columns of a longer candle that is made of minutes."""
    at, volume = shorter.c.timestamp, func.sum(shorter.c.volume)
    turnover = func.sum(shorter.c.vwap * shorter.c.volume)
    return [
        func.array_agg(aggregate_order_by(shorter.c.open, at))[1].label("open"),
        func.max(shorter.c.high).label("high"),
        func.min(shorter.c.low).label("low"),
        func.array_agg(aggregate_order_by(shorter.c.close, at))[func.count()].label("close"),
        volume.label("volume"),
        (turnover / func.nullif(volume, literal_column("0"))).label("vwap"),
        cast(func.sum(shorter.c.num_trades), BigInteger).label("num_trades"),
        func.max(shorter.c.created_at).label("created_at"),
    ]


def _computed(query: HistoryQuery) -> HistoryQuery:
    """Return the query; check that the timeframe fits candles that are made."""
    if not query.series["origin"].is_made:
        return query
    if "timeframe" not in query.series:
        raise ValidationError("is missing: candles of trades and quotes need one, such as 1m", field="timeframe")
    try:
        Timeframe.parse(query.series["timeframe"])
    except ValueError as error:
        raise ValidationError(str(error), field="timeframe") from error
    return replace(query, computed=True)


def _back(timeframe: Timeframe, end: datetime, count: int, earliest: datetime) -> datetime:
    try:
        return timeframe.step(end, -count)
    except OverflowError:
        return earliest


def _wider(width: int, found: int, missing: int) -> int:
    """Return how many timeframes to cover next to find the missing candles, if they stay as rare as they were."""
    return min(max(missing, missing * width // max(found, 1)), width * _WIDER)


def _first_begin(timeframe: Timeframe, moment: datetime | None) -> datetime | None:
    try:
        return None if moment is None else timeframe.ceil(moment)
    except OverflowError:  # at the beginning or the end of the years that Python knows
        return moment
