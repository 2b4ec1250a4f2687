"""Statements that store one-minute candles of rows that will be removed, in the same transaction.

If two candles exist for a minute, the one built from more rows is kept, or on a tie the newer one. So late rows and
rewritten rows count as long as the other rows of the minute are stored too. A late row of a minute whose rows were
removed makes a candle of fewer rows, which is not stored.
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
from arbstore.models.rollups import COLUMNS, MINUTE, ROLL_UPS, RollUp, stored_columns
from arbstore.records import Timeframe
from arbstore.services.rollup_reads import floor_to, interval

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
