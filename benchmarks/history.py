"""A long history as a polars frame: against the rows of asyncpg, and against ADBC by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import asyncpg
import polars
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped] # it has no types

from arbstore.database import Database
from benchmarks.figures import Figure
from benchmarks.measure import Contender, Work, race
from benchmarks.server import EXCHANGES, TABLE, Server, Stand, base
from benchmarks.sizes import Sizes

# The usual million rows are three days, which are 140 chunks.
_STEP = timedelta(milliseconds=250)
_FEW = 1_000
_FILL = (
    f"INSERT INTO {TABLE} (symbol_id, timestamp, bid_price, bid_qty, ask_price, ask_qty)"  # noqa: S608 # a constant
    " SELECT $1::int, now() - n * $3::interval, p, random() * 9, p + 0.01, random() * 9"
    " FROM generate_series($2::int - 1, 0, -1) AS n CROSS JOIN LATERAL (SELECT 60000 + sin(n / 1000.0) * 500 AS p) q"
)
_HISTORY = (
    f"SELECT timestamp, bid_price, bid_qty, ask_price, ask_qty, created_at FROM {TABLE}"  # noqa: S608 # a constant
    " WHERE symbol_id = {symbol} AND timestamp >= '{since}' ORDER BY timestamp"
)


def _frames(db: Database, since: datetime) -> Work:
    async def work() -> None:
        await db.frames.polars.history("book_tickers", EXCHANGES[0], base(0), "USDT", since=since)

    return work


def _dicts(connection: asyncpg.Connection, symbol: int, since: datetime) -> Work:
    async def work() -> list[dict[str, Any]]:
        return [dict(row) for row in await connection.fetch(_HISTORY.format(symbol=symbol, since=since))]

    return work


def _bare(cursor: Any, symbol: int, since: datetime) -> Work:
    async def work() -> None:
        cursor.execute(_HISTORY.format(symbol=symbol, since=since))
        polars.from_arrow(cursor.fetch_arrow_table())

    return work


async def history(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure the whole history of one symbol, and the last four minutes of it."""
    async with server.stand(len(EXCHANGES)) as stand:
        await _fill(stand, sizes.history)
        symbol, rows = stand.symbols[0], sizes.history
        newest: datetime = await stand.raw.fetchval(f"SELECT max(timestamp) FROM {TABLE}")  # noqa: S608 # a constant
        whole, last = newest - _STEP * rows, newest - _STEP * (_FEW - 1)
        ours = Contender("arbstore", _frames(stand.db, whole), rows)
        # Each by itself: a million dicts leave a heap behind in which whoever comes next is slower.
        dicts = Contender("asyncpg fetch, a dict a row", _dicts(stand.raw, symbol, whole), rows)
        against_dicts = await race([ours, dicts], sizes.heavy_rounds)
        with dbapi.connect(stand.url, autocommit=True) as connection, connection.cursor() as cursor:
            bare = Contender("bare ADBC", _bare(cursor, symbol, whole), rows)
            against_bare = await race([ours, bare], 3 * sizes.rounds)  # over TCP a round can take twice as long
            few, bare_few = (
                Contender("arbstore", _frames(stand.db, last)),
                Contender(bare.name, _bare(cursor, symbol, last)),
            )
            against_few = await race([few, bare_few], 5 * sizes.rounds)
    name = f"history of {rows:,} rows into polars"
    return [
        Figure(name=name, ours=against_dicts[ours.name], theirs=against_dicts[dicts.name], bound=4),
        Figure(name=name, ours=against_bare[ours.name], theirs=against_bare[bare.name], bound=0.8),
        Figure(name=f"the last {_FEW:,} of them", ours=against_few[few.name], theirs=against_few[bare.name]),
    ]


async def _fill(stand: Stand, rows: int) -> None:
    await stand.raw.execute(_FILL, stand.symbols[0], rows, _STEP)
    await stand.raw.execute(f"VACUUM ANALYZE {TABLE}")
    await stand.checkpoint()
