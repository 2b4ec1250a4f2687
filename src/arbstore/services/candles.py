"""Candles, as feeds deliver them, and as they are made from our own trades and quotes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeVar, Unpack

from sqlalchemy import func, select

from alembic_timescaledb.server import materialized, refresh_windows
from arbstore.errors import ValidationError
from arbstore.models.rollups import HOUR, ROLL_UPS, RollUp
from arbstore.postgres import Lock
from arbstore.postgres.history import HistoryQuery, Window, checked_range
from arbstore.records import Candle, CandleSource, StoredCandle, Timeframe, rules
from arbstore.records.rules import ago
from arbstore.services import as_records
from arbstore.services.rollups import MINUTES, MadeCandles, roll_up_between
from arbstore.services.series import Series

T = TypeVar("T")

_SOURCE = rules.choice(CandleSource)
# If few candles are found, the next query covers more time, but at most this many times as much.
_WIDER = 8


class Candles(Series[Candle, StoredCandle]):
    """Candles of symbols, by timeframe."""

    async def latest(
        self,
        exchange: str | Enum | None = None,
        base: str | None = None,
        quote: str | None = None,
        *,
        timeframe: str | None = None,
        max_age: timedelta | None = None,
    ) -> list[StoredCandle]:
        """Return the newest candle of each active symbol and timeframe that the filters leave, by exchange and pair.

        Only candles that feeds delivered are returned. Series without one younger than `max_age` are left out. Raises
        UnknownExchangeError.
        """
        return await super().latest(exchange, base, quote, timeframe=timeframe, max_age=max_age)

    async def history(
        self,
        exchange: str | Enum,
        base: str,
        quote: str,
        timeframe: str,
        *,
        source: str | Enum = CandleSource.FEED,
        **window: Unpack[Window],
    ) -> list[StoredCandle]:
        """Return the candles of the pair that begin in the window, oldest first.

        The pair stands for its active symbol without expiry. With `limit`, only the newest that many are returned.
        With the source `feed` the candles are as an exchange delivered them. With `trades` they are made from stored
        trades, with `quotes` from the mids of stored book tickers; these outlive the rows they come from.

        The timeframe of a made candle divides a day, or is 1w, or a number of months that divides a year. Weeks begin
        on Monday, months on the 1st, in UTC. A time without rows has no candle. The newest candle may be unfinished.
        Candles of quotes have no volume, vwap or number of trades. `created_at` is when the last of the rows was
        received. Raises UnknownExchangeError, UnknownSymbolError, and ValidationError for a bad timeframe or source.
        """
        return await super().history(exchange, base, quote, timeframe, source=source, **window)

    async def query(self, *series: Any, source: str | Enum = CandleSource.FEED, **more: Any) -> HistoryQuery:
        """Return the query that `history` runs."""
        return _from_source(await super().query(*series, **more), source)

    async def query_by_id(self, symbol_id: int, *, source: str | Enum = CandleSource.FEED, **more: Any) -> HistoryQuery:
        """Return the query that `history_by_id` runs: it takes `timeframe` and `source` by name.

        Without a timeframe it is for the candles of all timeframes; only the source `feed` allows that.
        """
        return _from_source(await super().query_by_id(symbol_id, **more), source)

    async def fetch(self, query: HistoryQuery) -> list[StoredCandle]:
        """Run the query, and return its candles, oldest first."""
        if query.source is None:
            return await super().fetch(query)
        made_from = ROLL_UPS[CandleSource(query.source)]
        views = await self._on_connection(lambda connection: materialized(connection, made_from.views))
        return await self._make(MadeCandles(made_from, query.series["symbol_id"], views), query)

    async def roll_up(self, source: str | Enum, since: datetime, until: datetime) -> int:
        """Make and store the one-minute candles of all symbols that begin in [since, until); return how many changed.

        Use it for rows that are too old for the server's own job, which would drop them without a candle. `source` is
        `trades` or `quotes`. A stored candle is replaced only by one that is made from at least as many rows. So call
        this while all rows of a minute are stored. The current minute is left out. Other calls wait until the session's
        transaction ends. Raises ValidationError for another source or a bad range.
        """
        rolled = _rolled(source)
        begin, end = checked_range(since, until)
        assert begin is not None and end is not None  # noqa: S101, PT018 # both were given
        begin, end = MINUTES.ceil(begin), MINUTES.ceil(min(end, MINUTES.floor(datetime.now(UTC))))
        # One at a time: two that run at once would each make a candle from the rows that it sees.
        await self._execute(select(func.pg_advisory_xact_lock(Lock.ROLL_UP)))
        views = await self._on_connection(lambda connection: materialized(connection, rolled.views))
        result = await self._execute(roll_up_between(rolled, begin, end, views))
        return int(result.rowcount)  # type: ignore[attr-defined] # an insert's result has one

    async def unrefreshed_before(self, source: str | Enum) -> datetime | None:
        """Return the moment before which the server makes no candles of new rows, so that they need a `roll_up`.

        It leaves an hour of safety for a job that runs late. None means that the server makes no candles by itself, or
        makes all of them. Raises ValidationError for another source than `trades` and `quotes`.
        """
        rolled = _rolled(source)
        windows = await self._on_connection(lambda connection: refresh_windows(connection, rolled.rows.name))
        window = windows.get(rolled.minutes.name)
        return None if window is None else ago(window - HOUR)

    async def _make(self, made: MadeCandles, query: HistoryQuery) -> list[StoredCandle]:
        timeframe = Timeframe.parse(query.series["timeframe"])
        since, until = _first_begin(timeframe, query.since), _first_begin(timeframe, query.until)
        found: list[StoredCandle] = []
        width = query.limit or 0
        while query.limit is None or len(found) < query.limit:
            rows, first, last = tuple((await self._execute(made.extent(since, until))).one())
            if first is None:
                break
            begin, end = timeframe.floor(first), timeframe.step(timeframe.floor(last), 1)
            if query.limit is not None:
                begin = max(begin, _back(timeframe, end, width, begin))
            candles = await self._execute(made.read(timeframe, begin, end, rows))
            part = as_records(self.kind.stored, candles, **query.constants)
            found = part + found
            if begin <= timeframe.floor(first):
                break
            until = begin
            assert query.limit is not None  # noqa: S101 # without one, the first query begins with the first row
            width = _wider(width, len(part), query.limit - len(found))
        return found if query.limit is None else found[-query.limit :]


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


def _source(given: str | Enum) -> CandleSource:
    return CandleSource(_parsed("source", _SOURCE.parse, given))


def _rolled(source: str | Enum) -> RollUp:
    rolled = ROLL_UPS.get(_source(source))
    if rolled is None:
        raise ValidationError(f"must be trades or quotes, is {source!r}", field="source")
    return rolled


def _from_source(query: HistoryQuery, source: str | Enum) -> HistoryQuery:
    """Return the query for candles of this source; check that the timeframe fits candles that are made."""
    wanted = _source(source)
    if wanted is CandleSource.FEED:
        return query
    if "timeframe" not in query.series:
        raise ValidationError("is missing: candles of trades and quotes need one, such as 1m", field="timeframe")
    timeframe = _parsed("timeframe", Timeframe.parse, query.series["timeframe"])
    return replace(query, series={**query.series, "timeframe": timeframe.text}, source=str(wanted))


def _parsed(field: str, parse: Callable[[Any], T], given: object) -> T:
    try:
        return parse(given)
    except ValueError as error:
        raise ValidationError(str(error), field=field) from error
