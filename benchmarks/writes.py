"""One large batch of book tickers: new, with foreign keys checked once, and written again."""

from __future__ import annotations

from statistics import median
from typing import Any

import asyncpg
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from msgspec.structs import replace
from sqlalchemy.dialects.postgresql import insert

from arbstore.database import Database
from arbstore.models import BookTickerSnapshot
from arbstore.records import BookTicker
from arbstore.settings import Settings
from benchmarks.figures import Figure
from benchmarks.measure import Contender, Timing, Work, race
from benchmarks.quotes import COLUMNS, Batch, recent
from benchmarks.server import TABLE, Server, Stand
from benchmarks.sizes import Sizes

UPSERT = (
    f"INSERT INTO {TABLE} ({', '.join(COLUMNS)}) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (symbol_id, timestamp)"  # noqa: S608 # constants
    f" DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in COLUMNS[2:])}"
)

_MAY_CHECK_ONCE = "SELECT has_parameter_privilege('session_replication_role', 'SET')"


class _Repository(SQLAlchemyAsyncRepository[BookTickerSnapshot]):  # type: ignore[type-var] # only its own base has to_dict
    """advanced-alchemy's way to many rows."""

    model_type = BookTickerSnapshot


def insertion(db: Database, records: list[BookTicker]) -> Work:
    """Return what inserts the records in a transaction, as arbstore does."""

    async def work() -> None:
        async with db.begin() as store:
            await store.book_tickers.insert(records)

    return work


def bare_copy(connection: asyncpg.Connection, tuples: list[tuple[Any, ...]]) -> Work:
    """Return what copies ready tuples straight into the table."""

    async def work() -> None:
        async with connection.transaction():
            await connection.copy_records_to_table(TABLE, records=tuples, columns=COLUMNS)

    return work


def _one_upsert_a_row(connection: asyncpg.Connection, batch: Batch) -> Work:
    rows = batch.arriving

    async def work() -> None:
        async with connection.transaction():
            for row in rows:
                await connection.execute(UPSERT, *row)

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


async def insert_new(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure a batch of new rows against COPY and against what else is done; then the same batch again."""
    settings = Settings.load(statement_timeout=0, batch_checked_foreign_keys=True)
    async with server.stand(sizes.listed) as stand, Database(stand.url, settings=settings) as checked:
        return await _insert_new(stand, checked, sizes)


async def _insert_new(stand: Stand, checked: Database, sizes: Sizes) -> list[Figure]:
    batch = recent(sizes.batch, stand.symbols[: sizes.symbols])
    # Those that take seconds get fewer rows: what counts is the time a row.
    tenth = batch.part(max(1, sizes.batch // 10))
    copy = bare_copy(stand.raw, batch.arriving)

    async def written() -> None:
        await stand.empty()
        await copy()
        await stand.checkpoint()

    rows, few = len(batch.records), len(tenth.records)
    ours = insertion(stand.db, batch.records)
    others = [replace(record, bid_qty=record.bid_qty + 1) for record in batch.records]
    times = await race(
        [
            Contender("arbstore", ours, rows, stand.empty),
            Contender("asyncpg COPY", copy, rows, stand.empty),
            Contender("asyncpg COPY, sorted beforehand", bare_copy(stand.raw, batch.tuples), rows, stand.empty),
            Contender("arbstore, keys checked once", insertion(checked, batch.records), rows, stand.empty),
            Contender("arbstore, again", ours, rows, written),
            Contender("arbstore, again, changed", insertion(stand.db, others), rows, written),
            Contender("one upsert a row", _one_upsert_a_row(stand.raw, tenth), few, stand.empty),
            Contender("SQLAlchemy list of dicts", _list_of_dicts(stand.db, batch), rows, stand.empty),
            Contender("advanced-alchemy upsert_many", _upsert_many(stand.db, tenth), few, stand.empty),
        ],
        sizes.rounds,
    )
    chunked, may = await stand.is_chunked(), await stand.raw.fetchval(_MAY_CHECK_ONCE)
    name, again = f"insert {rows:,} new book tickers", f"insert the same {rows:,} again"
    new, bare = times["arbstore"], times["asyncpg COPY"]
    once = f"{name}, foreign keys checked once"
    return [
        _figure(name, new, bare, 0.85),
        _figure(name, new, times["asyncpg COPY, sorted beforehand"]),
        _figure(name, new, times["one upsert a row"], 40 if chunked else 20),
        _figure(name, new, times["SQLAlchemy list of dicts"], 3.5 if chunked else 2),
        _figure(name, new, times["advanced-alchemy upsert_many"]),
        _figure(once, times["arbstore, keys checked once"], bare, 1.8, "" if may else "the role may not"),
        _figure(again, times["arbstore, again"], bare, 0.6),
        _figure(f"{again}, each with another quantity", times["arbstore, again, changed"], bare),
    ]


def _figure(name: str, ours: Timing, theirs: Timing, bound: float | None = None, note: str = "") -> Figure:
    spent = f"processor: {_spent(ours, ours.units)} : {_spent(theirs, ours.units)}"
    return Figure(name=name, ours=ours, theirs=theirs, bound=bound, note="; ".join(filter(None, (note, spent))))


def _spent(timing: Timing, units: int) -> str:
    """Say the seconds of processor that so many rows cost, the client's and then what others used."""
    client, machine = (median(seconds) * units / timing.units for seconds in (timing.client, timing.machine))
    return f"{client:.2f} + {max(0.0, machine - client):.2f} s"
