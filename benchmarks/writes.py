"""Writes of book tickers: large batches, new or again or into compressed chunks, and small transactions."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any
from unittest.mock import patch

import asyncpg
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from msgspec.structs import replace
from sqlalchemy.dialects.postgresql import insert

from alembic_timescaledb import Feature
from alembic_timescaledb import server as timescale
from arbstore.database import Database
from arbstore.models import BookTickerSnapshot
from arbstore.postgres import copying
from arbstore.records import BookTicker
from arbstore.settings import Settings
from benchmarks.measure import Aspect, Contender, Figure, Timing, Work, race
from benchmarks.quotes import COLUMNS, Batch, recent
from benchmarks.server import TABLE, Sandbox, Server
from benchmarks.sizes import Sizes

_UPSERT = (
    f"INSERT INTO {TABLE} ({', '.join(COLUMNS)}) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (symbol_id, timestamp)"  # noqa: S608 # constants
    f" DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS[2:])}"
)
_MAY_CHECK_ONCE = "SELECT has_parameter_privilege('session_replication_role', 'SET')"


class _Repository(SQLAlchemyAsyncRepository[BookTickerSnapshot]):  # type: ignore[type-var] # only its own base has to_dict
    """The way advanced-alchemy writes many rows."""

    model_type = BookTickerSnapshot


def _insert(db: Database, *batches: Sequence[BookTicker]) -> Work:
    """Return arbstore's insert of each batch in a transaction of its own."""

    async def work() -> None:
        for batch in batches:
            async with db.begin() as store:
                await store.book_tickers.insert(batch)

    return work


def _encoded_by_asyncpg(insert: Work) -> Work:
    """Return the same insert without arbstore's own packing of rows for COPY."""

    async def work() -> None:
        with patch.object(copying, "_has_nulls", return_value=True):
            await insert()

    return work


def _copy(connection: asyncpg.Connection, tuples: list[tuple[Any, ...]]) -> Work:
    """Return asyncpg's COPY of ready tuples into the table."""

    async def work() -> None:
        async with connection.transaction():
            await connection.copy_records_to_table(TABLE, records=tuples, columns=COLUMNS)

    return work


def _one_upsert_a_row(connection: asyncpg.Connection, batch: Batch) -> Work:
    rows = batch.arriving

    async def work() -> None:
        async with connection.transaction():
            for row in rows:
                await connection.execute(_UPSERT, *row)

    return work


def _list_of_dicts(db: Database, batch: Batch) -> Work:
    mappings = batch.mappings
    statement = insert(BookTickerSnapshot.__table__)
    changed = {name: statement.excluded[name] for name in COLUMNS[2:]}
    upsert = statement.on_conflict_do_update(constraint=BookTickerSnapshot.__table__.primary_key, set_=changed)

    async def work() -> None:
        async with db.engine.begin() as connection:
            await connection.execute(upsert, mappings)

    return work


def _upsert_many(db: Database, batch: Batch) -> Work:
    mappings = batch.mappings

    async def work() -> None:
        async with db.session() as session, session.begin():
            await _Repository(session=session).upsert_many(
                [BookTickerSnapshot(**row) for row in mappings], match_fields=["symbol_id", "timestamp"]
            )

    return work


async def insert_many(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure a batch of new rows against COPY and other ways to write it, and then the same batch again."""
    settings = Settings.load(statement_timeout=0, batch_checked_foreign_keys=True)
    async with server.sandbox(sizes.listed) as sandbox, Database(sandbox.url, settings=settings) as checked:
        return await _insert_many(sandbox, checked, sizes)


async def _insert_many(sandbox: Sandbox, checked: Database, sizes: Sizes) -> list[Figure]:
    batch = recent(sizes.batch, sandbox.symbols[: sizes.symbols])
    tenth = batch.part(max(1, sizes.batch // 10))  # for what takes seconds: the time for each row is compared
    copy = _copy(sandbox.raw, batch.arriving)
    empty = sandbox.empty

    async def written() -> None:
        await empty()
        await copy()
        await sandbox.checkpoint()

    rows, few = len(batch.records), len(tenth.records)
    ours, ours_checked = _insert(sandbox.db, batch.records), _insert(checked, batch.records)
    others = [replace(record, bid_qty=record.bid_qty + 1) for record in batch.records]
    times = await race(
        [
            Contender("arbstore", ours, rows, empty),
            Contender("asyncpg COPY", copy, rows, empty),
            Contender("asyncpg COPY, sorted beforehand", _copy(sandbox.raw, batch.tuples), rows, empty),
            Contender("arbstore, keys checked once", ours_checked, rows, empty),
            Contender("encoded by asyncpg", _encoded_by_asyncpg(ours), rows, empty),
            Contender("checked once, encoded by asyncpg", _encoded_by_asyncpg(ours_checked), rows, empty),
            Contender("arbstore, again", ours, rows, written),
            Contender("arbstore, again, changed", _insert(sandbox.db, others), rows, written),
            Contender("one upsert a row", _one_upsert_a_row(sandbox.raw, tenth), few, empty),
            Contender("SQLAlchemy list of dicts", _list_of_dicts(sandbox.db, batch), rows, empty),
            Contender("advanced-alchemy upsert_many", _upsert_many(sandbox.db, tenth), few, empty),
        ],
        sizes.rounds,
    )
    chunked, may = await sandbox.is_chunked(), await sandbox.raw.fetchval(_MAY_CHECK_ONCE)
    name, again = f"insert {rows:,} new book tickers", f"insert the same {rows:,} again"
    new, bare = times["arbstore"], times["asyncpg COPY"]
    once = f"{name}, foreign keys checked once"
    return [
        _figure(name, new, bare, 0.85),
        _figure(name, new, times["asyncpg COPY, sorted beforehand"]),
        _figure(name, new, times["encoded by asyncpg"]),
        _figure(name, new, times["one upsert a row"], 40 if chunked else 20),
        _figure(name, new, times["SQLAlchemy list of dicts"], 3.5 if chunked else 2),
        _figure(name, new, times["advanced-alchemy upsert_many"]),
        _figure(once, times["arbstore, keys checked once"], bare, 1.8, "" if may else "not granted to the role"),
        _figure(once, times["arbstore, keys checked once"], times["checked once, encoded by asyncpg"]),
        _figure(again, times["arbstore, again"], bare, 0.6),
        _figure(f"{again}, each with another quantity", times["arbstore, again, changed"], bare),
    ]


def _figure(name: str, ours: Timing, theirs: Timing, bound: float | None = None, note: str = "") -> Figure:
    spent = f"processor: {_spent(ours, ours.units)} : {_spent(theirs, ours.units)}"
    return Figure(name=name, ours=ours, theirs=theirs, bound=bound, note="; ".join(filter(None, (note, spent))))


def _spent(timing: Timing, units: int) -> str:
    """Return the seconds of processor time for so many rows: the client's, and the rest of the machine's."""
    client, machine = (median(seconds) * units / timing.units for seconds in (timing.client, timing.machine))
    return f"{client:.2f} + {max(0.0, machine - client):.2f} s"


async def compressed(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure late and repeated rows, in large and small batches, if the server can compress chunks."""
    async with server.sandbox(sizes.listed) as sandbox:
        async with sandbox.db.engine.connect() as connection:
            if not (await connection.run_sync(timescale.edition)).has(Feature.COLUMNSTORE):
                return []
        stored, late = recent(sizes.batch, sandbox.symbols[: sizes.symbols]).halves()
        return [
            await _compressed(name, sandbox, stored, batch.part(rows), sizes)
            for rows in (len(stored.records), sizes.small_batch)
            for name, batch in (("late rows", late), ("rows again", stored))
        ]


async def _compressed(name: str, sandbox: Sandbox, stored: Batch, batch: Batch, sizes: Sizes) -> Figure:
    work, copy, rows = _insert(sandbox.db, batch.records), _copy(sandbox.raw, stored.arriving), len(batch.records)

    def prepared(compress: bool) -> Work:
        async def prepare() -> None:
            await sandbox.decompress()  # TRUNCATE leaves rows behind in a compressed chunk
            await sandbox.empty()
            await copy()
            if compress:
                await sandbox.compress()
            await sandbox.checkpoint()

        return prepare

    itself = "itself, not compressed"
    contenders = [
        Contender("arbstore", work, rows, prepared(compress=True)),
        Contender(itself, work, rows, prepared(compress=False)),
    ]
    times = await race(contenders, sizes.heavy_rounds)
    return Figure(
        name=f"insert {rows:,} {name}, in compressed chunks",
        ours=times["arbstore"],
        theirs=times[itself],
        aspect=Aspect.TIME,
    )


def _upserts(pool: asyncpg.Pool, batches: Sequence[list[tuple[Any, ...]]]) -> Work:
    async def work() -> None:
        for batch in batches:
            async with pool.acquire() as connection, connection.transaction():
                if len(batch) == 1:
                    await connection.execute(_UPSERT, *batch[0])
                else:
                    await connection.executemany(_UPSERT, batch)

    return work


async def insert_few(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure small transactions against asyncpg's prepared upsert, both with a pool and a commit."""
    figures = []
    async with server.sandbox(sizes.listed) as sandbox, asyncpg.create_pool(sandbox.url, min_size=1) as pool:
        for rows, name in ((1, "insert one row"), (10, "insert 10 rows")):
            batches = recent(rows * sizes.transactions, sandbox.symbols[: sizes.symbols]).split(rows)
            ready = [Batch(batch).tuples for batch in batches]
            contenders = [
                Contender("arbstore", _insert(sandbox.db, *batches), len(batches), sandbox.empty),
                Contender("asyncpg upsert", _upserts(pool, ready), len(batches), sandbox.empty),
            ]
            times = await race(contenders, sizes.rounds)
            theirs = times["asyncpg upsert"]
            figures.append(Figure(name=f"{name}, in a transaction", ours=times["arbstore"], theirs=theirs, bound=0.4))
    return figures
