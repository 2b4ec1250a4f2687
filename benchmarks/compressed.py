"""Batches that meet compressed chunks, on servers that have them: what it costs that those are decompressed first."""

from __future__ import annotations

from alembic_timescaledb import Feature
from alembic_timescaledb import server as timescale
from benchmarks.figures import Aspect, Figure
from benchmarks.measure import Contender, Work, race
from benchmarks.quotes import Batch, recent
from benchmarks.server import Server, Stand
from benchmarks.sizes import Sizes
from benchmarks.writes import bare_copy, insertion

_OURS, _THEIRS = "arbstore", "itself, not compressed"


async def compressed(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure late rows, and rows that are there already, in large batches and in small ones."""
    async with server.stand(sizes.listed) as stand:
        async with stand.db.engine.connect() as connection:
            if not (await connection.run_sync(timescale.edition)).has(Feature.COLUMNSTORE):
                return []
        there, late = recent(sizes.batch, stand.symbols[: sizes.symbols]).halves()
        figures = []
        for rows in (len(there.records), sizes.small_batch):
            for name, batch in (("late rows", late), ("rows again", there)):
                figures.append(
                    await _compressed(
                        f"insert {rows:,} {name}, in compressed chunks", stand, there, batch.part(rows), sizes
                    )
                )
        return figures


async def _compressed(name: str, stand: Stand, there: Batch, batch: Batch, sizes: Sizes) -> Figure:
    work = insertion(stand.db, batch.records)
    copy = bare_copy(stand.raw, there.arriving)

    def prepared(compress: bool) -> Work:
        async def prepare() -> None:
            await stand.decompress()  # of a compressed chunk, TRUNCATE leaves rows behind
            await stand.empty()
            await copy()
            if compress:
                await stand.compress()
            await stand.checkpoint()

        return prepare

    rows = len(batch.records)
    times = await race(
        [
            Contender(_OURS, work, rows, prepared(compress=True)),
            Contender(_THEIRS, work, rows, prepared(compress=False)),
        ],
        sizes.heavy_rounds,
    )
    return Figure(name=name, ours=times[_OURS], theirs=times[_THEIRS], aspect=Aspect.TIME)
