"""What becomes of rows that are removed: candles of one minute, in the same transaction.

A candle that is stored stands. It was made of all rows of its minute, and what comes late to a minute whose rows are
gone cannot make a better one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import CTE, FromClause, Select, func, literal, select, true, union_all
from sqlalchemy.dialects.postgresql import Insert, insert

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
    its next look. Of two of one minute the one of more rows is it: rows can have come late, or be gone already.
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
    both = union_all(*(select(bars.c.symbol_id, *bar_of(bars)) for bars in (made.subquery(), known.subquery())))
    bars = both.subquery("both")
    count = func.coalesce(bars.c.num_trades, bars.c.num_quotes)
    place = func.row_number().over(partition_by=[bars.c.symbol_id, bars.c.timestamp], order_by=count.desc())
    ranked = select(bars, place.label("place")).subquery("ranked")
    return _store(rolled, select(ranked).where(ranked.c.place == 1))


def _store(rolled: RollUp, made: Select[Any]) -> Insert:
    bars = made.subquery("bars")
    new = select(bars.c.symbol_id, literal(rolled.source.value), *bar_of(bars))
    return insert(_ROLLED).from_select(["symbol_id", "source", *BAR], new).on_conflict_do_nothing()
