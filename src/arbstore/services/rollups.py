"""The statements that read the made candles of a symbol, and those that store the minutes of rows before they go.

A stored candle is used as it is. Rows that came later appear in it after the next roll-up, or the server's next
refresh. Rows are read only for times without a stored candle. So the answer does not depend on whether, or how far, a
server has computed candles by itself.

If two candles exist for a minute, the one built from more rows is stored, or on a tie the newer one. So late rows count
as long as the other rows of the minute are stored. After that they make a candle of fewer rows, which is not stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
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
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from arbstore.models import CandleRollup
from arbstore.models.rollups import COLUMNS, DAY, HOUR, MINUTE, ROLL_UPS, RollUp, merged, stored_columns
from arbstore.records import Timeframe

_ROLLED = CandleRollup.__table__
_MOMENT = DateTime(timezone=True)
_STRETCHES = 16


class _View(NamedTuple):
    """A table of candles of `length` that the server keeps computed."""

    table: FromClause
    length: timedelta


@dataclass(frozen=True, slots=True)
class MadeCandles:
    """The made candles of one symbol. `views` are the tables that the server keeps computed, by the view's name."""

    rolled: RollUp
    symbol_id: int
    views: Mapping[str, FromClause]

    def extent(self, since: datetime | None, until: datetime | None) -> Select[Any]:
        """Select three times in [since, until): of the first row, and the first and last of rows and stored candles."""
        minutes = self.views.get(self.rolled.minutes.name)
        mine = [_ROLLED.c.source == self.rolled.source]
        known: list[tuple[FromClause, list[ColumnElement[bool]]]] = [(self.rolled.rows, []), (_ROLLED, mine)]
        known += [] if minutes is None else [(minutes, [])]
        ends = [
            # With many chunks, min() and max() take five times as long to plan.
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
        """Select the candles that begin in [since, until), oldest first. Both bounds are beginnings of candles.

        There are no rows before `rows_from`, and none at all if it is None.
        """
        view = self._view_for(timeframe)
        rows_since = until
        if rows_from is not None:
            # After the first row, even a long candle can have minutes that are in no view.
            unit = view.length if view else MINUTE
            rows_since = min(max(since, Timeframe("", unit, 0).floor(rows_from)), until)
        parts: list[Select[Any]] = []
        if since < rows_since:
            parts += self._stored_only(view, since, rows_since)
        if rows_since < until:
            parts += self._with_rows(rows_since, until)
        short = union_all(*parts).subquery("short")
        if timeframe.length == MINUTE:
            return _candles(short).order_by(short.c.timestamp)
        placed = select(_bucket(timeframe, short.c.timestamp).label("begin"), *short.c).subquery("placed")
        begin = placed.c.begin
        longer = select(begin.label("timestamp"), *merged(placed)).group_by(begin).subquery("longer")
        return _candles(longer).order_by(longer.c.timestamp)

    def _view_for(self, timeframe: Timeframe) -> _View | None:
        """Return the view with the longest candles of which a whole number makes one of the timeframe."""
        for view, length in ((self.rolled.days, DAY), (self.rolled.hours, HOUR)):
            fits = timeframe.length is None or not timeframe.length % length
            if fits and view.name in self.views:
                return _View(self.views[view.name], length)
        return None

    def _stored_only(self, view: _View | None, since: datetime, until: datetime) -> list[Select[Any]]:
        """Select stored candles: those of the view, and minutes for times that the view lacks."""
        if view is None:
            return [select(*stored_columns(table)).where(*which) for table, which in self._minutes(since, until)]
        table, length = view
        known = [*self._of(table, since, until), ~self._is_rolled(table, length, since, until)]
        stored = select(*stored_columns(table)).where(*known).cte("stored_longer")
        gaps = _gaps(stored, length, since, until)
        parts = [select(*stored.c)]
        for minutes, which in self._minutes(since, until):
            # OFFSET 0 makes the planner read each gap by itself, instead of joining the whole table.
            inside = _within(minutes, gaps.c.begin, gaps.c.end)
            missing = select(*stored_columns(minutes)).where(*which, *inside).offset(0).lateral()
            new = (
                ~select(stored.c.timestamp).where(stored.c.timestamp == floor_to(length, missing.c.timestamp)).exists()
            )
            parts.append(select(*missing.c).select_from(gaps.join(missing, true())).where(new))
        return parts

    def _with_rows(self, since: datetime, until: datetime) -> list[Select[Any]]:
        """Select stored minutes, and minutes made from rows for times without one."""
        known = [select(*stored_columns(table)).where(*which) for table, which in self._minutes(since, until)]
        stored = union_all(*known).cte("stored")
        gaps = _gaps(stored, MINUTE, since, until)
        rows = self.rolled.rows
        minute = floor_to(MINUTE, rows.c.timestamp)
        made = (
            select(minute.label("timestamp"), *self.rolled.columns)
            .where(*self._of(rows, since, until), *_within(rows, gaps.c.begin, gaps.c.end))
            .group_by(minute)
            .lateral("made")
        )
        new = ~select(stored.c.timestamp).where(stored.c.timestamp == made.c.timestamp).exists()
        return [select(*stored.c), select(*stored_columns(made)).select_from(gaps.join(made, true())).where(new)]

    def _minutes(self, since: datetime, until: datetime) -> list[tuple[FromClause, list[ColumnElement[bool]]]]:
        """Return the tables with stored minutes, each with conditions. A rolled-up minute hides one of the view."""
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
        """Return whether a minute of the view's candle is rolled up: then the view's candle is incomplete."""
        other = _ROLLED.alias()
        begin = other.c.timestamp if length == MINUTE else floor_to(length, other.c.timestamp)
        mine = [*self._of(other, since, until), other.c.source == self.rolled.source]
        return select(other.c.symbol_id).where(*mine, begin == view.c.timestamp).exists()


def floor_to(length: timedelta, moment: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return when the candle of this length begins, counted as `Timeframe` counts."""
    origin = literal_column(f"TIMESTAMPTZ '{Timeframe.MONDAY.isoformat()}'", _MOMENT)
    return func.date_bin(interval(length), moment, origin, type_=_MOMENT)


def interval(length: timedelta) -> ColumnElement[timedelta]:
    """Return the length as SQL, in seconds."""
    # Not in days: a day has 23 or 25 hours when clocks change.
    return literal_column(f"INTERVAL '{length // timedelta(seconds=1)} seconds'", Interval)


def _bucket(timeframe: Timeframe, moment: ColumnElement[Any]) -> ColumnElement[Any]:
    if timeframe.length is not None:
        return floor_to(timeframe.length, moment)
    # Months are counted in UTC, in any time zone of the session.
    first = func.date_trunc("month", func.timezone("UTC", moment))
    beyond = (cast(func.extract("month", first), Integer) - 1) % timeframe.months
    return func.timezone("UTC", first - func.make_interval(0, beyond), type_=_MOMENT)


def _within(table: FromClause, since: Any, until: Any) -> list[ColumnElement[bool]]:
    bounds = [] if since is None else [table.c.timestamp >= since]
    return bounds if until is None else [*bounds, table.c.timestamp < until]


def _gaps(stored: CTE, length: timedelta, since: datetime, until: datetime) -> CTE:
    """Select [begin, end) of the times without a stored candle, joined into at most `_STRETCHES` ranges.

    One range for each gap would be too many where rows are rare, because each range looks into every chunk. The ranges
    end where candles end, and do not overlap. They may contain stored candles.
    """
    begins: CompoundSelect[Any] = union_all(select(stored.c.timestamp), select(literal(until, _MOMENT)))
    ends = begins.subquery("ends")
    before = func.lag(ends.c.timestamp).over(order_by=ends.c.timestamp)
    begin = func.coalesce(before + interval(length), literal(since, _MOMENT))
    edges = select(begin.label("begin"), ends.c.timestamp.label("end")).subquery("edges")
    bounds = (literal(moment.timestamp(), Double) for moment in (since, until))
    place = func.width_bucket(cast(func.extract("epoch", edges.c.begin), Double), *bounds, _STRETCHES)
    single = select(*edges.c, place.label("place")).where(edges.c.begin < edges.c.end).subquery("gaps")
    joined = select(func.min(single.c.begin).label("begin"), func.max(single.c.end).label("end"))
    return joined.group_by(single.c.place).cte()


def _candles(made: FromClause) -> Select[Any]:
    """Select the columns of a candle."""
    vwap = case((made.c.volume > 0, made.c.turnover / made.c.volume)).label("vwap")
    shown: Sequence[str] = [name for name in COLUMNS if name not in ("turnover", "num_quotes")]
    return select(*(made.c[name] for name in shown), vwap)


MINUTES = Timeframe.parse("1m")

_ROLLED = CandleRollup.__table__

# By the name of the table that has the rows.
ROLLED_UP: Mapping[str, RollUp] = MappingProxyType({rolled.rows.name: rolled for rolled in ROLL_UPS.values()})


def roll_up_minutes_of(rolled: RollUp, chosen: CTE) -> Insert:
    """Store the minutes of the chosen rows (symbol_id, timestamp). Each is made from all rows of the minute."""
    begin = floor_to(MINUTE, chosen.c.timestamp).label("timestamp")
    minutes = select(chosen.c.symbol_id, begin).distinct().subquery("minutes")
    rows, since = rolled.rows, minutes.c.timestamp
    made = (
        select(*rolled.columns)
        .where(rows.c.symbol_id == minutes.c.symbol_id)
        .where(rows.c.timestamp >= since, rows.c.timestamp < since + interval(MINUTE))
        .lateral("made")
    )
    candles = select(minutes, *made.c).select_from(minutes.join(made, true()))
    return _store(rolled, candles)


def roll_up_between(rolled: RollUp, since: datetime, until: datetime, views: Mapping[str, FromClause]) -> Insert:
    """Store the minutes of all symbols in [since, until). Minutes begin at both bounds.

    Minutes that the server keeps computed, in the tables of `views`, are stored too, because its next refresh would
    delete those whose rows are gone. If a minute is in a view and can be made from rows, the candle built from more
    rows is stored. On a tie it is the one made from rows, because late rows may be missing in the view.
    """
    rows = rolled.rows
    minute = floor_to(MINUTE, rows.c.timestamp)
    made = (
        select(rows.c.symbol_id, minute.label("timestamp"), *rolled.columns)
        .where(rows.c.timestamp >= since, rows.c.timestamp < until)
        .group_by(rows.c.symbol_id, minute)
    )
    computed = views.get(rolled.minutes.name)
    if computed is None:
        return _store(rolled, made)
    known = select(computed).where(computed.c.timestamp >= since, computed.c.timestamp < until)
    both = union_all(
        *(
            select(one.c.symbol_id, *stored_columns(one), literal_column(str(rank), Integer).label("rank"))
            for rank, one in enumerate((made.subquery(), known.subquery()))
        )
    )
    candles = both.subquery("both")
    place = func.row_number().over(
        partition_by=[candles.c.symbol_id, candles.c.timestamp], order_by=[_rows(candles.c).desc(), candles.c.rank]
    )
    ranked = select(candles, place.label("place")).subquery("ranked")
    return _store(rolled, select(ranked).where(ranked.c.place == 1))


def _store(rolled: RollUp, made: Select[Any]) -> Insert:
    candles = made.subquery("candles")
    new = select(candles.c.symbol_id, literal(rolled.source.value), *stored_columns(candles))
    # Sorted by time, so that two transactions that store the same minutes wait in line and do not deadlock.
    ordered = new.order_by(candles.c.timestamp, candles.c.symbol_id)
    statement = insert(_ROLLED).from_select(["symbol_id", "source", *COLUMNS], ordered)
    better = {name: statement.excluded[name] for name in COLUMNS if name != "timestamp"}
    differs = tuple_(*better.values()).is_distinct_from(tuple_(*(_ROLLED.c[name] for name in better)))
    return statement.on_conflict_do_update(
        index_elements=_ROLLED.primary_key,
        set_=better,
        where=(_rows(statement.excluded) >= _rows(_ROLLED.c)) & differs,
    )


def _rows(candle: ReadOnlyColumnCollection[str, Any]) -> ColumnElement[int]:
    """Return the number of rows that the candle is made from."""
    return func.coalesce(candle.num_trades, candle.num_quotes)
