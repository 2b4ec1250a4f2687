"""A long history as a polars frame: against the rows of asyncpg, and against ADBC by hand."""

from __future__ import annotations

from typing import Any

import asyncpg
import polars
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped] # it has no types

from arbstore.database import Database
from benchmarks.figures import Figure
from benchmarks.measure import Contender, Work, race
from benchmarks.server import EXCHANGES, TABLE, Server, Stand, base
from benchmarks.sizes import Sizes

# A quarter of a second apart: the usual million rows are three days, which are 140 chunks.
_FILL = (
    f"INSERT INTO {TABLE} (symbol_id, timestamp, bid_price, bid_qty, ask_price, ask_qty)"  # noqa: S608 # a constant
    " SELECT $1::int, now() - n * interval '250 milliseconds', p, random() * 9, p + 0.01, random() * 9"
    " FROM generate_series($2::int - 1, 0, -1) AS n CROSS JOIN LATERAL (SELECT 60000 + sin(n / 1000.0) * 500 AS p) q"
)
_HISTORY = (
    f"SELECT timestamp, bid_price, bid_qty, ask_price, ask_qty, created_at FROM {TABLE}"  # noqa: S608 # a constant
    " WHERE symbol_id = {symbol} ORDER BY timestamp"
)


def _frames(db: Database) -> Work:
    async def work() -> None:
        await db.frames.polars.history("book_tickers", EXCHANGES[0], base(0), "USDT")

    return work


def _dicts(connection: asyncpg.Connection, symbol: int) -> Work:
    async def work() -> list[dict[str, Any]]:
        return [dict(row) for row in await connection.fetch(_HISTORY.format(symbol="$1"), symbol)]

    return work


def _bare(cursor: Any, symbol: int) -> Work:
    async def work() -> None:
        cursor.execute(_HISTORY.format(symbol=symbol))
        polars.from_arrow(cursor.fetch_arrow_table())

    return work


async def history(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure the whole history of one symbol."""
    async with server.stand(len(EXCHANGES)) as stand:
        await _fill(stand, sizes.history)
        symbol, rows = stand.symbols[0], sizes.history
        ours = Contender("arbstore", _frames(stand.db), rows)
        # Each by itself: a million dicts leave a heap behind in which whoever comes next is slower.
        dicts = Contender("asyncpg fetch, a dict a row", _dicts(stand.raw, symbol), rows)
        against_dicts = await race([ours, dicts], sizes.heavy_rounds)
        with dbapi.connect(stand.url, autocommit=True) as connection, connection.cursor() as cursor:
            bare = Contender("bare ADBC", _bare(cursor, symbol), rows)
            against_bare = await race([ours, bare], sizes.rounds)
    name = f"history of {rows:,} rows into polars"
    return [
        Figure(name=name, ours=against_dicts[ours.name], theirs=against_dicts[dicts.name], bound=4),
        Figure(name=name, ours=against_bare[ours.name], theirs=against_bare[bare.name], bound=0.8),
    ]


async def _fill(stand: Stand, rows: int) -> None:
    await stand.raw.execute(_FILL, stand.symbols[0], rows)
    await stand.raw.execute(f"VACUUM ANALYZE {TABLE}")
    await stand.checkpoint()
