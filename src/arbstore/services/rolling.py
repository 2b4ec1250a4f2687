"""What becomes of rows that are removed: candles of one minute, in the same transaction.

Of two candles of one minute the one of more rows stands, and of as many the newer: rows that came late, or were written
anew, are in it as long as the others are there too. What comes late to a minute whose rows are gone makes one of fewer,
which is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Integer,
    Select,
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
from arbstore.models.rollups import BAR, MINUTE, ROLL_UPS, RollUp, bar_of
from arbstore.records import Timeframe
from arbstore.services.bars import floor_to, interval

MINUTES = Timeframe.parse("1m")

_ROLLED = CandleRollup.__table__

# By the name of the table whose rows they are.
ROLLED_UP: Mapping[str, RollUp] = MappingProxyType({rolled.rows.name: rolled for rolled in ROLL_UPS.values()})


def roll_up_minutes_of(rolled: RollUp, chosen: CTE) -> Insert:
    """Store the minutes that chosen rows (symbol_id, timestamp) are of, whole: the other rows of each are read too."""
    begin = floor_to(MINUTE, chosen.c.timestamp).label("timestamp")
    minutes = select(chosen.c.symbol_id, begin).distinct().subquery("minutes")
    rows, since = rolled.rows, minutes.c.timestamp
    made = (
        select(*rolled.bar)
        .where(rows.c.symbol_id == minutes.c.symbol_id)
        .where(rows.c.timestamp >= since, rows.c.timestamp < since + interval(MINUTE))
        .lateral("made")
    )
    bars = select(minutes, *made.c).select_from(minutes.join(made, true()))
    return _store(rolled, bars)


def roll_up_between(rolled: RollUp, since: datetime, until: datetime, views: Mapping[str, FromClause]) -> Insert:
    """Store the minutes of all symbols' rows in [since, until), bounds that minutes begin at.

    Also those that a server keeps computed, in the tables of `views`: where it finds no rows it would forget them at
    its next look. Of two of one minute the one of more rows is it, of as many that of the rows: they can have come
    late or changed, or be gone already.
    """
    rows = rolled.rows
    minute = floor_to(MINUTE, rows.c.timestamp)
    made = (
        select(rows.c.symbol_id, minute.label("timestamp"), *rolled.bar)
        .where(rows.c.timestamp >= since, rows.c.timestamp < until)
        .group_by(rows.c.symbol_id, minute)
    )
    computed = views.get(rolled.minutes.name)
    if computed is None:
        return _store(rolled, made)
    known = select(computed).where(computed.c.timestamp >= since, computed.c.timestamp < until)
    both = union_all(
        *(
            select(bars.c.symbol_id, *bar_of(bars), literal_column(str(rank), Integer).label("rank"))
            for rank, bars in enumerate((made.subquery(), known.subquery()))
        )
    )
    bars = both.subquery("both")
    place = func.row_number().over(
        partition_by=[bars.c.symbol_id, bars.c.timestamp], order_by=[_rows(bars.c).desc(), bars.c.rank]
    )
    ranked = select(bars, place.label("place")).subquery("ranked")
    return _store(rolled, select(ranked).where(ranked.c.place == 1))


def _store(rolled: RollUp, made: Select[Any]) -> Insert:
    bars = made.subquery("bars")
    new = select(bars.c.symbol_id, literal(rolled.source.value), *bar_of(bars))
    # By time: two that store the same minutes wait for one another, and not each for the other.
    ordered = new.order_by(bars.c.timestamp, bars.c.symbol_id)
    statement = insert(_ROLLED).from_select(["symbol_id", "source", *BAR], ordered)
    better = {name: statement.excluded[name] for name in BAR if name != "timestamp"}
    differs = tuple_(*better.values()).is_distinct_from(tuple_(*(_ROLLED.c[name] for name in better)))
    return statement.on_conflict_do_update(
        index_elements=_ROLLED.primary_key,
        set_=better,
        where=(_rows(statement.excluded) >= _rows(_ROLLED.c)) & differs,
    )


def _rows(bar: ReadOnlyColumnCollection[str, Any]) -> ColumnElement[int]:
    """Return of how many rows the bar is made."""
    return func.coalesce(bar.num_trades, bar.num_quotes)
