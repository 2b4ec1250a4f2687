"""The statement that reads a symbol's candles: what is stored of them, and what is not made of the rows.

A stored bar stands, for it was made of all of its rows; those that came later are in it from the next roll-up, or the
server's next refresh, on. Where there is none the rows are asked, and only there. So the answer is the same whether a
server keeps candles computed or not, and however far it has come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    ColumnElement,
    CompoundSelect,
    DateTime,
    Double,
    FromClause,
    Integer,
    Interval,
    Select,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
    true,
    union_all,
)

from arbstore.models import CandleRollup
from arbstore.models.rollups import BAR, DAY, HOUR, MINUTE, RollUp, bar_of, merged_bar
from arbstore.records import Timeframe

_ROLLED = CandleRollup.__table__
_MOMENT = DateTime(timezone=True)
_STRETCHES = 16


class _View(NamedTuple):
    """A table of bars of `length`, that a server keeps computed."""

    table: FromClause
    length: timedelta


@dataclass(frozen=True, slots=True)
class Bars:
    """The bars of one symbol. `views` are the tables that a server keeps computed, by the names of their views."""

    rolled: RollUp
    symbol_id: int
    views: Mapping[str, FromClause]

    def extent(self, since: datetime | None, until: datetime | None) -> Select[Any]:
        """Select the first time of the rows in [since, until), and the first and the last of rows and stored bars."""
        minutes = self.views.get(self.rolled.minutes.name)
        mine = [_ROLLED.c.source == self.rolled.source]
        known: list[tuple[FromClause, list[ColumnElement[bool]]]] = [(self.rolled.rows, []), (_ROLLED, mine)]
        known += [] if minutes is None else [(minutes, [])]
        ends = [
            # Not min() and max(), which many chunks make five times as dear to plan.
            [
                select(table.c.timestamp)
                .where(table.c.symbol_id == self.symbol_id, *more, *_within(table, since, until))
                .order_by(table.c.timestamp.desc() if newest else table.c.timestamp)
                .limit(1)
                .scalar_subquery()
                for table, more in known
            ]
            for newest in (False, True)
        ]
        first, last = ends
        return select(first[0].label("rows"), func.least(*first).label("first"), func.greatest(*last).label("last"))

    def read(self, timeframe: Timeframe, since: datetime, until: datetime, rows_from: datetime | None) -> Select[Any]:
        """Select the candles that begin in [since, until), which are beginnings of bars, oldest first.

        There are no rows before `rows_from`; none at all if it is None.
        """
        view = self._view_for(timeframe)
        turn = until
        if rows_from is not None:
            # From the first row on even a long bar can have minutes that no view knows of.
            unit = view.length if view else MINUTE
            turn = min(max(since, Timeframe("", unit, 0).floor(rows_from)), until)
        parts: list[Select[Any]] = []
        if since < turn:
            parts += self._stored_only(view, since, turn)
        if turn < until:
            parts += self._with_rows(turn, until)
        bars = union_all(*parts).subquery("bars")
        if timeframe.length == MINUTE:
            return _candles(bars).order_by(bars.c.timestamp)
        placed = select(_bucket(timeframe, bars.c.timestamp).label("begin"), *bars.c).subquery("placed")
        begin = placed.c.begin
        longer = select(begin.label("timestamp"), *merged_bar(placed)).group_by(begin).subquery("longer")
        return _candles(longer).order_by(longer.c.timestamp)

    def _view_for(self, timeframe: Timeframe) -> _View | None:
        """Return the longest bars that are kept computed and make up the timeframe's."""
        for view, length in ((self.rolled.days, DAY), (self.rolled.hours, HOUR)):
            fits = timeframe.length is None or not timeframe.length % length
            if fits and view.name in self.views:
                return _View(self.views[view.name], length)
        return None

    def _stored_only(self, view: _View | None, since: datetime, until: datetime) -> list[Select[Any]]:
        """Return the stored bars: of an hour or a day from the view, and where it has none the minutes."""
        if view is None:
            return [select(*bar_of(table)).where(*which) for table, which in self._minutes(since, until)]
        table, length = view
        known = [*self._of(table, since, until), ~self._is_rolled(table, length, since, until)]
        stored = select(*bar_of(table)).where(*known).cte("stored_longer")
        around = _around_gaps(stored, length, since, until)
        parts = [select(*stored.c)]
        for minutes, which in self._minutes(since, until):
            # With a limit the planner looks into each stretch, instead of joining all that there is.
            found = select(*bar_of(minutes)).where(*which, *_within(minutes, around.c.begin, around.c.end)).offset(0)
            missing = found.lateral()
            new = (
                ~select(stored.c.timestamp).where(stored.c.timestamp == floor_to(length, missing.c.timestamp)).exists()
            )
            parts.append(select(*missing.c).select_from(around.join(missing, true())).where(new))
        return parts

    def _with_rows(self, since: datetime, until: datetime) -> list[Select[Any]]:
        """Return the stored minutes, and where there are none what the rows say."""
        known = [select(*bar_of(table)).where(*which) for table, which in self._minutes(since, until)]
        stored = union_all(*known).cte("stored")
        around = _around_gaps(stored, MINUTE, since, until)
        rows = self.rolled.rows
        minute = floor_to(MINUTE, rows.c.timestamp)
        made = (
            select(minute.label("timestamp"), *self.rolled.bar)
            .where(*self._of(rows, since, until), *_within(rows, around.c.begin, around.c.end))
            .group_by(minute)
            .lateral("made")
        )
        new = ~select(stored.c.timestamp).where(stored.c.timestamp == made.c.timestamp).exists()
        return [select(*stored.c), select(*bar_of(made)).select_from(around.join(made, true())).where(new)]

    def _minutes(self, since: datetime, until: datetime) -> list[tuple[FromClause, list[ColumnElement[bool]]]]:
        """Return where minutes are stored, and which of them are meant: of two of one minute the rolled-up one."""
        found: list[tuple[FromClause, list[ColumnElement[bool]]]] = [
            (_ROLLED, [*self._of(_ROLLED, since, until), _ROLLED.c.source == self.rolled.source])
        ]
        view = self.views.get(self.rolled.minutes.name)
        if view is not None:
            found.append((view, [*self._of(view, since, until), ~self._is_rolled(view, MINUTE, since, until)]))
        return found

    def _of(self, table: FromClause, since: datetime, until: datetime) -> list[ColumnElement[bool]]:
        return [table.c.symbol_id == self.symbol_id, *_within(table, since, until)]

    def _is_rolled(self, view: FromClause, length: timedelta, since: datetime, until: datetime) -> ColumnElement[bool]:
        """Return whether minutes of the view's bar are rolled up: it does not know of them."""
        other = _ROLLED.alias()
        begin = other.c.timestamp if length == MINUTE else floor_to(length, other.c.timestamp)
        mine = [*self._of(other, since, until), other.c.source == self.rolled.source]
        return select(other.c.symbol_id).where(*mine, begin == view.c.timestamp).exists()


def floor_to(length: timedelta, moment: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return when the bar of that length begins, counted as `Timeframe` does."""
    origin = literal_column(f"TIMESTAMPTZ '{Timeframe.MONDAY.isoformat()}'", _MOMENT)
    return func.date_bin(interval(length), moment, origin, type_=_MOMENT)


def interval(length: timedelta) -> ColumnElement[timedelta]:
    """Return the length as SQL, in seconds."""
    # Not of days, which are 23 and 25 hours long where clocks change.
    return literal_column(f"INTERVAL '{length // timedelta(seconds=1)} seconds'", Interval)


def _bucket(timeframe: Timeframe, moment: ColumnElement[Any]) -> ColumnElement[Any]:
    if timeframe.length is not None:
        return floor_to(timeframe.length, moment)
    # Months are counted in UTC, whatever the session's zone.
    first = func.date_trunc("month", func.timezone("UTC", moment))
    beyond = (cast(func.extract("month", first), Integer) - 1) % timeframe.months
    return func.timezone("UTC", first - func.make_interval(0, beyond), type_=_MOMENT)


def _within(table: FromClause, since: Any, until: Any) -> list[ColumnElement[bool]]:
    bounds = [] if since is None else [table.c.timestamp >= since]
    return bounds if until is None else [*bounds, table.c.timestamp < until]


def _around_gaps(stored: CTE, length: timedelta, since: datetime, until: datetime) -> CTE:
    """Return [begin, end) of few stretches of [since, until), with all in them that has no stored bar.

    One for each gap were too many where rows are rare: each asks every chunk whether it is the one. They end where
    bars do, and do not overlap.
    """
    begins: CompoundSelect[Any] = union_all(select(stored.c.timestamp), select(literal(until, _MOMENT)))
    ends = begins.subquery("ends")
    before = func.lag(ends.c.timestamp).over(order_by=ends.c.timestamp)
    begin = func.coalesce(before + interval(length), literal(since, _MOMENT))
    edges = select(begin.label("begin"), ends.c.timestamp.label("end")).subquery("edges")
    bounds = (literal(moment.timestamp(), Double) for moment in (since, until))
    place = func.width_bucket(cast(func.extract("epoch", edges.c.begin), Double), *bounds, _STRETCHES)
    gaps = select(*edges.c, place.label("place")).where(edges.c.begin < edges.c.end).subquery("gaps")
    merged = select(func.min(gaps.c.begin).label("begin"), func.max(gaps.c.end).label("end"))
    return merged.group_by(gaps.c.place).cte()


def _candles(bars: FromClause) -> Select[Any]:
    """Return what a candle says of bars."""
    vwap = case((bars.c.volume > 0, bars.c.turnover / bars.c.volume)).label("vwap")
    said: Sequence[str] = [name for name in BAR if name not in ("turnover", "num_quotes")]
    return select(*(bars.c[name] for name in said), vwap)
