"""Reads: `latest` and short histories over few and over many rows, and a long history as a polars frame."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import polars
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped] # it has no types

from arbstore.database import Database, Store
from benchmarks.measure import Aspect, Contender, Figure, Work, race
from benchmarks.server import EXCHANGES, TABLE, Sandbox, Server, base
from benchmarks.sizes import LONGER, Sizes

_PAIR = (EXCHANGES[0], base(0), "USDT")

# Rows are three minutes apart: the long history of the default sizes takes 200 hours, or 400 chunks.
_FILL_ALL = (
    f"INSERT INTO {TABLE} (symbol_id, timestamp, bid_price, bid_qty, ask_price, ask_qty)"  # noqa: S608 # a constant
    " SELECT id, now() - n * interval '3 minutes' - id * interval '1 millisecond', 100 + n % 100, 1, 101 + n % 100, 2"
    " FROM symbols CROSS JOIN generate_series(0, $1::int - 1) AS n ORDER BY id, n DESC"
)
_DISTINCT_ON = (
    f"SELECT DISTINCT ON (b.symbol_id) b.*, e.enum_value, s.symbol_base, s.symbol_quote FROM {TABLE} b"  # noqa: S608 # a constant
    " JOIN symbols s ON s.id = b.symbol_id JOIN exchanges e ON e.id = s.exchange_id"
    " ORDER BY b.symbol_id, b.timestamp DESC"
)

# The million rows of the default sizes take three days, or 140 chunks.
_STEP = timedelta(milliseconds=250)
_FEW = 1_000
_FILL_ONE = (
    f"INSERT INTO {TABLE} (symbol_id, timestamp, bid_price, bid_qty, ask_price, ask_qty)"  # noqa: S608 # a constant
    " SELECT $1::int, now() - n * $3::interval, p, random() * 9, p + 0.01, random() * 9"
    " FROM generate_series($2::int - 1, 0, -1) AS n CROSS JOIN LATERAL (SELECT 60000 + sin(n / 1000.0) * 500 AS p) q"
)
_HISTORY = (
    f"SELECT timestamp, bid_price, bid_qty, ask_price, ask_qty, created_at FROM {TABLE}"  # noqa: S608 # a constant
    " WHERE symbol_id = {symbol} AND timestamp >= '{since}' ORDER BY timestamp"
)

_Read = Callable[[Store], Awaitable[object]]


def _last_hour(store: Store) -> Awaitable[object]:
    return store.book_tickers.history(*_PAIR, since=datetime.now(UTC) - timedelta(hours=1))


_READS: Mapping[str, _Read] = {
    "latest of one exchange": lambda store: store.book_tickers.latest(EXCHANGES[0]),
    "latest of one pair": lambda store: store.book_tickers.latest(*_PAIR),
    "latest, at most a day old": lambda store: store.book_tickers.latest(max_age=timedelta(days=1)),
    "history, the last 20 rows": lambda store: store.book_tickers.history(*_PAIR, limit=20),
    "history, the last hour": _last_hour,
}


async def latest(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure two databases side by side, one with a hundred times as many rows for each symbol."""
    async with server.sandbox(sizes.listed) as short, server.sandbox(sizes.listed) as long:
        for sandbox, rows in ((short, sizes.short), (long, sizes.short * LONGER)):
            await _fill(sandbox, _FILL_ALL, rows)
        depth = f"{sizes.short * LONGER:,} rows each"
        name = f"latest of {sizes.listed:,} symbols, {depth}"
        figures = [await _longer(name, short, long, lambda store: store.book_tickers.latest(), sizes)]
        contenders = [
            Contender("DISTINCT ON", lambda: long.raw.fetch(_DISTINCT_ON)),
            Contender("arbstore", _reading(long.db, lambda store: store.book_tickers.latest())),
        ]
        times = await race(contenders, min(3, sizes.rounds))  # DISTINCT ON takes seconds, and is far from its bound
        figures.append(Figure(name=name, ours=times["arbstore"], theirs=times["DISTINCT ON"], bound=50))
        return figures + [await _longer(f"{part}, {depth}", short, long, read, sizes) for part, read in _READS.items()]


async def _longer(name: str, short: Sandbox, long: Sandbox, read: _Read, sizes: Sizes) -> Figure:
    itself = f"itself, {sizes.short} rows each"
    times = await race(
        [Contender(itself, _reading(short.db, read)), Contender("arbstore", _reading(long.db, read))],
        5 * sizes.rounds,  # a read takes milliseconds: in a few rounds, outliers would decide the median
    )
    return Figure(name=name, ours=times["arbstore"], theirs=times[itself], bound=1.3, aspect=Aspect.TIME)


def _reading(db: Database, read: _Read) -> Work:
    async def work() -> None:
        async with db.begin() as store:
            await read(store)

    return work


async def history(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure the whole history of one symbol, and its last four minutes."""
    async with server.sandbox(len(EXCHANGES)) as sandbox:
        symbol, rows = sandbox.symbols[0], sizes.history
        await _fill(sandbox, _FILL_ONE, symbol, rows, _STEP)
        newest: datetime = await sandbox.raw.fetchval(f"SELECT max(timestamp) FROM {TABLE}")  # noqa: S608 # a constant
        whole, last = newest - _STEP * rows, newest - _STEP * (_FEW - 1)
        ours = Contender("arbstore", _frame(sandbox.db, whole), rows)
        # Two races, because a million dicts leave a heap behind that slows the next contender down.
        dicts = Contender("asyncpg fetch, a dict a row", _dicts(sandbox.raw, symbol, whole), rows)
        against_dicts = await race([ours, dicts], sizes.heavy_rounds)
        with dbapi.connect(sandbox.url, autocommit=True) as connection, connection.cursor() as cursor:
            bare = Contender("bare ADBC", _bare(cursor, symbol, whole), rows)
            against_bare = await race([ours, bare], 3 * sizes.rounds)  # over TCP a round can take twice as long
            few = Contender("arbstore", _frame(sandbox.db, last))
            bare_few = Contender("bare ADBC", _bare(cursor, symbol, last))
            against_few = await race([few, bare_few], 5 * sizes.rounds)
    name = f"history of {rows:,} rows into polars"
    return [
        Figure(name=name, ours=against_dicts["arbstore"], theirs=against_dicts[dicts.name], bound=4),
        Figure(name=name, ours=against_bare["arbstore"], theirs=against_bare[bare.name], bound=0.8),
        Figure(name=f"the last {_FEW:,} of them", ours=against_few["arbstore"], theirs=against_few[bare.name]),
    ]


def _frame(db: Database, since: datetime) -> Work:
    async def work() -> None:
        await db.frames.polars.history("book_tickers", *_PAIR, since=since)

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


async def _fill(sandbox: Sandbox, statement: str, *parameters: Any) -> None:
    await sandbox.raw.execute(statement, *parameters)
    await sandbox.raw.execute(f"VACUUM ANALYZE {TABLE}")
    await sandbox.checkpoint()
