"""`latest` of many symbols: over a short history and over one a hundred times as long, and against DISTINCT ON."""

from __future__ import annotations

from arbstore.database import Database
from benchmarks.figures import Aspect, Figure
from benchmarks.measure import Contender, Work, race
from benchmarks.server import TABLE, Server, Stand
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


def _latest(db: Database) -> Work:
    async def work() -> None:
        async with db.begin() as store:
            await store.book_tickers.latest()

    return work


async def _fill(stand: Stand, rows: int) -> None:
    await stand.raw.execute(_FILL, rows)
    await stand.raw.execute(f"VACUUM ANALYZE {TABLE}")
    await stand.checkpoint()


async def latest(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure two databases side by side, whose histories differ in length."""
    async with server.stand(sizes.quoted) as short, server.stand(sizes.quoted) as long:
        await _fill(short, sizes.short)
        await _fill(long, sizes.short * LONGER)
        times = await race(
            [
                Contender(f"itself, {sizes.short} rows each", _latest(short.db)),
                Contender("arbstore", _latest(long.db)),
            ],
            # Milliseconds each: many rounds, or the median is one of outliers.
            5 * sizes.rounds,
        )
        all_rows = await race(
            [
                Contender("DISTINCT ON", lambda: long.raw.fetch(_DISTINCT_ON)),
                Contender("arbstore", _latest(long.db)),
            ],
            min(3, sizes.rounds),  # DISTINCT ON takes seconds, and the ratio is not a near thing
        )
    name = f"latest of {sizes.quoted:,} symbols, {sizes.short * LONGER:,} rows each"
    return [
        Figure(
            name=name,
            ours=times["arbstore"],
            theirs=times[f"itself, {sizes.short} rows each"],
            bound=1.3,
            aspect=Aspect.TIME,
        ),
        Figure(name=name, ours=all_rows["arbstore"], theirs=all_rows["DISTINCT ON"], bound=50),
    ]
