"""One row, or ten, each in a transaction of its own: what is left of the driver's speed where nothing is shared out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from arbstore.database import Database
from arbstore.records import BookTicker
from benchmarks.figures import Figure
from benchmarks.measure import Contender, Work, race
from benchmarks.quotes import Batch, recent
from benchmarks.server import Server
from benchmarks.sizes import Sizes
from benchmarks.writes import UPSERT


def _insertions(db: Database, batches: Sequence[list[BookTicker]]) -> Work:
    async def work() -> None:
        for batch in batches:
            async with db.begin() as store:
                await store.book_tickers.insert(batch)

    return work


def _upserts(pool: asyncpg.Pool, batches: Sequence[list[tuple[Any, ...]]]) -> Work:
    async def work() -> None:
        for batch in batches:
            async with pool.acquire() as connection, connection.transaction():
                if len(batch) == 1:
                    await connection.execute(UPSERT, *batch[0])
                else:
                    await connection.executemany(UPSERT, batch)

    return work


async def insert_few(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure small transactions against asyncpg's prepared upsert, from a pool, in a transaction."""
    figures = []
    async with server.stand(sizes.listed) as stand, asyncpg.create_pool(stand.url, min_size=1) as pool:
        for rows, name in ((1, "insert one row"), (10, "insert 10 rows")):
            batches = recent(rows * sizes.transactions, stand.symbols[: sizes.symbols]).split(rows)
            ready = [Batch(batch).tuples for batch in batches]
            times = await race(
                [
                    Contender("arbstore", _insertions(stand.db, batches), len(batches), stand.empty),
                    Contender("asyncpg upsert", _upserts(pool, ready), len(batches), stand.empty),
                ],
                sizes.rounds,
            )
            figures.append(
                Figure(
                    name=f"{name}, in a transaction",
                    ours=times["arbstore"],
                    theirs=times["asyncpg upsert"],
                    bound=0.4,
                )
            )
    return figures
