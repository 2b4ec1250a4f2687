"""Candles: as feeds deliver them, and rolled up from our own trades and quotes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, TypeVar

from sqlalchemy import func, select

from alembic_timescaledb.server import materialized, refresh_windows
from arbstore import locks, models
from arbstore.errors import ValidationError
from arbstore.models.rollups import HOUR, ROLL_UPS, RollUp
from arbstore.records import Candle, CandleSource, StoredCandle, Timeframe, rules
from arbstore.services.bars import Bars
from arbstore.services.query import Query, Window, checked_window
from arbstore.services.rolling import MINUTES, roll_up_between
from arbstore.services.series import SymbolSeries
from arbstore.services.service import ago, as_records

T = TypeVar("T")

_SOURCE = rules.choice(CandleSource)
# Where bars are rare more time is looked through at once; but no more than this many times as much as before.
_WIDER = 8


class Candles(SymbolSeries[Candle, StoredCandle]):
    """Candles of symbols, by timeframe."""

    table = models.Candle.__table__
    record = Candle
    stored = StoredCandle
    part = "timeframe"

    async def latest(
        self,
        exchange: str | Enum | None = None,
        base: str | None = None,
        quote: str | None = None,
        *,
        timeframe: str | None = None,
        max_age: timedelta | None = None,
    ) -> list[StoredCandle]:
        """Return the newest row of each active symbol and timeframe that the filters leave, by exchange and pair.

        Those without a row, or without one younger than `max_age`, are left out. Raises UnknownExchangeError.
        """
        part = None if timeframe is None else _checked(timeframe)
        return await self._latest_of_pairs(exchange, base, quote, max_age, part)

    async def history(
        self,
        exchange: str | Enum,
        base: str,
        quote: str,
        timeframe: str,
        *,
        source: str | Enum = CandleSource.FEED,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[StoredCandle]:
        """Return the candles of the pair's active, undated symbol that begin in [since, until), oldest first.

        With `limit`, the newest that many of them. `source` says which: of `feed`, as an exchange delivered them; of
        `trades`, or of the mids of `quotes`, rolled up from what is stored, also where it has outlived its retention.
        Of those a timeframe is 1 minute or more, and a whole number of them fills a day, or it is 1w (from Monday on),
        1M, 2M, 3M, 4M, 6M or 12M (from the 1st on), in UTC; a time without rows has no candle; the newest one may be
        of a bar that has not ended; candles of quotes have no volume, vwap and number of trades; and `created_at` is
        when the last row of each was received.

        Raises UnknownExchangeError and UnknownSymbolError, ValidationError for a timeframe or a source that is none.
        """
        return await self._read(await self._symbol_id(exchange, base, quote), timeframe, source, (since, until, limit))

    async def history_by_id(
        self,
        symbol_id: int,
        *,
        timeframe: str | None = None,
        source: str | Enum = CandleSource.FEED,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[StoredCandle]:
        """Return what `history` does, of any symbol: dated contracts and delisted ones have only this way.

        Of `feed` the timeframe may be left out: then it is the rows of all, in their order at each instant.
        """
        if timeframe is None and _source(source) is CandleSource.FEED:
            return await self._history_of(symbol_id, (since, until, limit))
        if timeframe is None:
            raise ValidationError("is missing: roll-ups are of one, such as 1m", field="timeframe")
        return await self._read(symbol_id, timeframe, source, (since, until, limit))

    async def query(self, read: str, *given: Any, **options: Any) -> Query | None:
        """Return what feeds' candles are asked for with; None for roll-ups, which are made of several queries."""
        if _source(options.get("source", CandleSource.FEED)) is not CandleSource.FEED:
            return None
        return await super().query(read, *given, **options)

    async def roll_up(self, source: str | Enum, since: datetime, until: datetime) -> int:
        """Store the candles of one minute that begin in [since, until), of all symbols; return how many changed.

        For rows that will go without a cleanup: those that are older than a server's own job keeps, or looks for
        candles of. `source` is `trades` or `quotes`. A stored candle stands if there are fewer rows of its minute than
        it was made of, so let all be there; the minute that runs is left out. Others that do so wait for the end of the
        session's transaction. Raises ValidationError for another source, and for what is no window.
        """
        rolled = _rolled(source)
        begin, end, _ = checked_window((since, until, None))
        assert begin is not None and end is not None  # noqa: S101, PT018 # both were given
        begin, end = MINUTES.ceil(begin), MINUTES.ceil(min(end, MINUTES.floor(datetime.now(UTC))))
        # One after the other: of rows that neither has committed both would make a candle of their own.
        await self._execute(select(func.pg_advisory_xact_lock(locks.ROLL_UP)))
        views = await self._on_connection(lambda connection: materialized(connection, rolled.views))
        result = await self._execute(roll_up_between(rolled, begin, end, views))
        return int(result.rowcount)  # type: ignore[attr-defined] # an insert's result has one

    async def unrefreshed_before(self, source: str | Enum) -> datetime | None:
        """Return the moment before which the server looks for no candles of the rows, so that they need a `roll_up`.

        It is an hour inside of what the refresh of the minutes reaches, for a job that is late. None where the server
        keeps no candles computed, or all. Raises ValidationError for another source than `trades` and `quotes`.
        """
        rolled = _rolled(source)
        windows = await self._on_connection(lambda connection: refresh_windows(connection, rolled.rows.name))
        window = windows.get(rolled.minutes.name)
        return None if window is None else ago(window - HOUR)

    async def _read(self, symbol_id: int, timeframe: str, source: str | Enum, window: Window) -> list[StoredCandle]:
        wanted = _source(source)
        if wanted is CandleSource.FEED:
            return await self._history_of(symbol_id, window, timeframe=_checked(timeframe))
        length = _evenly(timeframe)
        names = await self._names(symbol_id)
        rolled = ROLL_UPS[wanted]
        views = await self._on_connection(lambda connection: materialized(connection, rolled.views))
        return await self._rolled_up(Bars(rolled, symbol_id, views), length, window, names)

    async def _rolled_up(
        self, bars: Bars, timeframe: Timeframe, window: Window, names: Mapping[str, str]
    ) -> list[StoredCandle]:
        since, until, limit = _edges(timeframe, checked_window(window))
        constants = {**names, "symbol_id": bars.symbol_id, "timeframe": timeframe.text}
        found: list[StoredCandle] = []
        width = 0 if limit is None else limit
        while limit is None or len(found) < limit:
            rows, first, last = tuple((await self._execute(bars.extent(since, until))).one())
            if first is None:
                break
            begin, end = timeframe.floor(first), timeframe.step(timeframe.floor(last), 1)
            if limit is not None:
                begin = max(begin, _back(timeframe, end, width, begin))
            part = as_records(self.stored, await self._execute(bars.read(timeframe, begin, end, rows)), **constants)
            found = part + found
            if begin <= timeframe.floor(first):
                break
            until = begin
            assert limit is not None  # noqa: S101 # without one it begins with the first
            width = _wider(width, len(part), limit - len(found))
        return found if limit is None else found[-limit:]


def _back(timeframe: Timeframe, end: datetime, bars: int, earliest: datetime) -> datetime:
    try:
        return timeframe.step(end, -bars)
    except OverflowError:
        return earliest


def _wider(width: int, found: int, missing: int) -> int:
    """Return in how many bars' time that many more are found, if they stay as rare as they were."""
    return min(max(missing, missing * width // max(found, 1)), width * _WIDER)


def _edges(timeframe: Timeframe, window: Window) -> Window:
    """Return the window from one beginning of a bar to another; that of a bar is in it if it was before."""
    since, until, limit = window
    return _first_begin(timeframe, since), _first_begin(timeframe, until), limit


def _first_begin(timeframe: Timeframe, moment: datetime | None) -> datetime | None:
    try:
        return None if moment is None else timeframe.ceil(moment)
    except OverflowError:  # within a bar of the beginning, or the end, of all time
        return moment


def _source(given: str | Enum) -> CandleSource:
    return CandleSource(_parsed("source", _SOURCE.parse, given))


def _rolled(source: str | Enum) -> RollUp:
    rolled = ROLL_UPS.get(_source(source))
    if rolled is None:
        raise ValidationError("is no source of roll-ups: those are trades and quotes", field="source")
    return rolled


def _evenly(timeframe: str) -> Timeframe:
    return _parsed("timeframe", Timeframe.parse, timeframe)


def _checked(timeframe: str) -> str:
    return str(_parsed("timeframe", rules.timeframe.parse, timeframe))


def _parsed(field: str, parse: Callable[[Any], T], given: object) -> T:
    try:
        return parse(given)
    except ValueError as error:
        raise ValidationError(str(error), field=field) from error
