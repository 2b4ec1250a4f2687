"""Candles made of trades: a day of minutes, stored or not, and what the marks of late minutes cost an insert."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from arbstore.database import Database
from arbstore.deploy.cleanup import cleanup
from arbstore.kinds import BOOK_TICKERS
from arbstore.postgres.upsert import upsert
from arbstore.records import BookTicker, Origin, columns
from benchmarks.measure import Aspect, Contender, Figure, Work, race
from benchmarks.quotes import recent
from benchmarks.server import EXCHANGES, Server, base
from benchmarks.sizes import Sizes

_PAIR = (EXCHANGES[0], base(0), "USDT")
_DAY = timedelta(days=1)
_FILL = (
    "INSERT INTO trade_snapshots (symbol_id, timestamp, trade_id, price, quantity, side)"
    " SELECT $1::int, $2::timestamptz + n * interval '250 milliseconds', n::text, 100 + sin(n / 1000.0), 1, 'buy'"
    " FROM generate_series(0, 4 * 86400 - 1) AS n"
)
_OF_ROWS = (
    "SELECT date_bin('1 minute', timestamp, '2001-01-01') AS begin,"
    " (array_agg(price ORDER BY timestamp, trade_id))[1], max(price), min(price),"
    " (array_agg(price ORDER BY timestamp, trade_id))[count(*)], sum(quantity),"
    " sum(price * quantity) / sum(quantity), count(*), max(created_at)"
    " FROM trade_snapshots WHERE symbol_id = $1 AND timestamp >= $2 AND timestamp < $3 GROUP BY begin ORDER BY begin"
)
_OF_MINUTES = (
    "SELECT timestamp, open, high, low, close, volume, vwap, num_trades, created_at FROM candles WHERE symbol_id = $1"
    " AND origin = 'trades' AND timeframe = '1m' AND timestamp >= $2 AND timestamp < $3 ORDER BY timestamp"
)


async def candles(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure a day of minutes of one symbol, four trades a second: before its minutes are stored, and after that."""
    since = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=26)
    window = since, since + _DAY
    figures = []
    async with server.sandbox(len(EXCHANGES)) as sandbox:
        await sandbox.raw.execute(_FILL, sandbox.symbols[0], since)
        for state, statement, bound in (("of rows", _OF_ROWS, 1.2), ("stored", _OF_MINUTES, None)):
            if state == "stored":
                await cleanup(sandbox.db, {"trade_snapshots": None})
            await sandbox.raw.execute("VACUUM ANALYZE")
            bare = Contender("one statement", partial(sandbox.raw.fetch, statement, sandbox.symbols[0], *window))
            ours = Contender("arbstore", _minutes(sandbox.db, *window))
            times = await race([bare, ours], 5 * sizes.rounds)
            name = f"a day of minutes, {state}"
            figures.append(
                Figure(name=name, ours=times[ours.name], theirs=times[bare.name], bound=bound, aspect=Aspect.TIME)
            )
    return figures


def _minutes(db: Database, since: datetime, until: datetime) -> Work:
    async def work() -> None:
        async with db.begin() as store:
            found = await store.candles.history(*_PAIR, "1m", origin=Origin.TRADES, since=since, until=until)
            assert len(found) == _DAY // timedelta(minutes=1)  # noqa: S101 # else nothing was measured

    return work


async def marks(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure inserts of one row, with and without the marks of late minutes."""
    async with server.sandbox(len(EXCHANGES)) as sandbox:
        (row,) = recent(1, sandbox.symbols).records
        times = await race(
            [
                Contender("without marks", _one_by_one(sandbox.db, row, makes=None), prepare=sandbox.empty),
                Contender("arbstore", _one_by_one(sandbox.db, row, makes=Origin.QUOTES), prepare=sandbox.empty),
            ],
            5 * sizes.rounds,
        )
    name = "100 transactions of one row, marking late minutes"
    return [Figure(name=name, ours=times["arbstore"], theirs=times["without marks"], bound=1.1, aspect=Aspect.TIME)]


def _one_by_one(db: Database, row: BookTicker, *, makes: Origin | None) -> Work:
    async def work() -> None:
        for number in range(100):
            values = columns(BookTicker, [row])
            values["timestamp"] = [row.timestamp + timedelta(microseconds=number)]
            async with db.begin() as store:
                await upsert(store.session, BOOK_TICKERS.table, values, makes=makes)

    return work
