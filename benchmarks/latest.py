"""`latest`, and `history` of little: over a short history and over one a hundred times as long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from arbstore import BookTicker, StoredBookTicker
from arbstore.database import Database
from arbstore.services.markets import PairSeries
from benchmarks.figures import Aspect, Figure
from benchmarks.measure import Contender, Work, race
from benchmarks.server import EXCHANGES, TABLE, Server, Stand, base
from benchmarks.sizes import LONGER, Sizes

# Three minutes apart: the long history of the usual sizes is 200 hours, which are 400 chunks.
_FILL = (
    f"INSERT INTO {TABLE} (symbol_id, timestamp, bid_price, bid_qty, ask_price, ask_qty)"  # noqa: S608 # a constant
    " SELECT id, now() - n * interval '3 minutes' - id * interval '1 millisecond', 100 + n % 100, 1, 101 + n % 100, 2"
    " FROM symbols CROSS JOIN generate_series(0, $1::int - 1) AS n ORDER BY id, n DESC"
)
_DISTINCT_ON = (
    f"SELECT DISTINCT ON (b.symbol_id) b.*, e.enum_value, s.symbol_base, s.symbol_quote FROM {TABLE} b"  # noqa: S608 # a constant
    " JOIN symbols s ON s.id = b.symbol_id JOIN exchanges e ON e.id = s.exchange_id"
    " ORDER BY b.symbol_id, b.timestamp DESC"
)


_Read = Callable[[PairSeries[BookTicker, StoredBookTicker]], Awaitable[object]]
_PAIR = (EXCHANGES[0], base(0), "USDT")


def _last_hour(tickers: PairSeries[BookTicker, StoredBookTicker]) -> Awaitable[object]:
    return tickers.history(*_PAIR, since=datetime.now(UTC) - timedelta(hours=1))


_READS: Mapping[str, _Read] = {
    "latest of one exchange": lambda tickers: tickers.latest(EXCHANGES[0]),
    "latest of one pair": lambda tickers: tickers.latest(*_PAIR),
    "latest, at most a day old": lambda tickers: tickers.latest(max_age=timedelta(days=1)),
    "history, the last 20 rows": lambda tickers: tickers.history(*_PAIR, limit=20),
    "history, the last hour": _last_hour,
}


def _reading(db: Database, read: _Read) -> Work:
    async def work() -> None:
        async with db.begin() as store:
            await read(store.book_tickers)

    return work


async def _fill(stand: Stand, rows: int) -> None:
    await stand.raw.execute(_FILL, rows)
    await stand.raw.execute(f"VACUUM ANALYZE {TABLE}")
    await stand.checkpoint()


async def latest(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure two databases side by side, whose histories differ in length."""
    async with server.stand(sizes.listed) as short, server.stand(sizes.listed) as long:
        await _fill(short, sizes.short)
        await _fill(long, sizes.short * LONGER)
        rows = f"{sizes.short * LONGER:,} rows each"
        name = f"latest of {sizes.listed:,} symbols"
        figures = [await _longer(f"{name}, {rows}", short, long, lambda tickers: tickers.latest(), sizes)]
        all_rows = await race(
            [
                Contender("DISTINCT ON", lambda: long.raw.fetch(_DISTINCT_ON)),
                Contender("arbstore", _reading(long.db, lambda tickers: tickers.latest())),
            ],
            min(3, sizes.rounds),  # DISTINCT ON takes seconds, and the ratio is not a near thing
        )
        figures.append(
            Figure(name=f"{name}, {rows}", ours=all_rows["arbstore"], theirs=all_rows["DISTINCT ON"], bound=50)
        )
        return figures + [await _longer(f"{part}, {rows}", short, long, read, sizes) for part, read in _READS.items()]


async def _longer(name: str, short: Stand, long: Stand, read: _Read, sizes: Sizes) -> Figure:
    itself = f"itself, {sizes.short} rows each"
    times = await race(
        [Contender(itself, _reading(short.db, read)), Contender("arbstore", _reading(long.db, read))],
        5 * sizes.rounds,  # of milliseconds each: of few, the median is one of outliers
    )
    return Figure(name=name, ours=times["arbstore"], theirs=times[itself], bound=1.3, aspect=Aspect.TIME)
