"""Late data: rows for chunks that the server's columnstore policy has compressed already."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text

from alembic_timescaledb import Feature, declared, server
from arbstore.database import Database, Store
from arbstore.ingest import Expired, IngestOptions, ingest
from arbstore.models import Base
from arbstore.records import Record
from arbstore.testing import skip_without
from tests.conftest import NOON
from tests.ingest.reading import TICKS
from tests.records.samples import TABLES
from tests.services.cases import Case, Market, every_path_and_decimals, open_market

SECOND = timedelta(seconds=1)
ROWS = 1_200  # a second each: beyond the 1,000 rows of one compressed batch, within one chunk of every table
JOB = text(
    "SELECT job_id FROM timescaledb_information.jobs"
    " WHERE proc_name = 'policy_compression' AND hypertable_name = :table"
)
CHUNKS = text(
    "SELECT count(*), count(*) FILTER (WHERE is_compressed) FROM timescaledb_information.chunks"
    " WHERE hypertable_name = :table"
)

SIZES = text(
    "SELECT before_compression_total_bytes, after_compression_total_bytes"
    " FROM hypertable_columnstore_stats(CAST(:table AS regclass))"
)


async def need_columnstore(db: Database) -> None:
    async with db.engine.connect() as connection:
        skip_without(await connection.run_sync(server.edition), Feature.COLUMNSTORE)


async def compress(db: Database, table: str) -> None:
    """Compress all old chunks of the table by the policy's own call."""
    async with db.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")  # the job commits chunk by chunk
        job = await connection.scalar(JOB, {"table": table})
        await connection.execute(text(f"CALL run_job({job})"))
        made, compressed = (await connection.execute(CHUNKS, {"table": table})).one()
        assert made == compressed > 0


def moments(case: Case) -> list[datetime]:
    kept = declared(TABLES[case.kind])
    assert kept is not None
    assert kept.chunk_interval >= SECOND * ROWS
    return [NOON + number * SECOND for number in range(ROWS)]


async def stored(store: Store, case: Case) -> list[Any]:
    found: list[Any] = await case.history(store, limit=10 * ROWS)
    return found


async def total(store: Store, case: Case) -> int:
    return int(
        await store.session.scalar(select(func.count()).select_from(Base.metadata.tables[TABLES[case.kind].name])) or 0
    )


def expected(case: Case, market: Market, rows: list[Any]) -> list[Record]:
    return [case.expected(market, row) for row in rows]


@every_path_and_decimals
async def test_late_rows_reach_a_compressed_chunk_and_none_is_lost_or_doubled(
    committed_db: Database, case: Case
) -> None:
    await need_columnstore(committed_db)
    async with committed_db.begin() as store:
        market = await open_market(store)
        rows = [case.row(market, at) for at in moments(case)]
        assert (await case.service(store).insert(rows)).written == ROWS
    await compress(committed_db, TABLES[case.kind].name)
    async with committed_db.begin() as store:
        assert await stored(store, case) == expected(case, market, rows)

    changed = {number: case.other(market, rows[number].timestamp) for number in range(0, ROWS, 3)}
    same = [rows[number] for number in range(1, ROWS, 3)]
    new = [case.row(market, row.timestamp + ROWS * SECOND) for row in rows[::7]]
    async with committed_db.begin() as store:
        late = [*changed.values(), *same, *new]
        assert (await case.service(store).insert(late)).written == len(late)
    wanted = [changed.get(number, row) for number, row in enumerate(rows)] + new
    wanted.sort(key=lambda row: row.timestamp)
    async with committed_db.begin() as store:
        assert await stored(store, case) == expected(case, market, wanted)
        assert await total(store, case) == ROWS + len(new)

    await compress(committed_db, TABLES[case.kind].name)
    async with committed_db.begin() as store:
        assert await stored(store, case) == expected(case, market, wanted)
        assert await total(store, case) == ROWS + len(new)


async def test_recordings_take_a_quarter_of_the_space_and_can_be_ingested_again(
    committed_db: Database, recordings: Path
) -> None:
    await need_columnstore(committed_db)
    counts = await ingest_all(committed_db, recordings)
    written = await rows_of(committed_db)
    assert [len(found) for found in written] == counts
    for table in ("book_ticker_snapshots", "trade_snapshots"):
        await compress(committed_db, table)
        async with committed_db.engine.connect() as connection:
            before, after = (await connection.execute(SIZES, {"table": table})).one()
        assert before >= 4 * after
    assert await rows_of(committed_db) == written
    assert await ingest_all(committed_db, recordings) == counts
    assert await rows_of(committed_db) == written


async def ingest_all(db: Database, recordings: Path) -> list[int]:
    """Ingest the recordings of all three markets, and return how many quotes and trades were written."""
    quotes = trades = 0
    for exchange, pattern, _ in TICKS:
        files = sorted((recordings / "ticks").glob(pattern))
        report = await ingest(db, files, IngestOptions(exchange=exchange, expired=Expired.KEEP))
        quotes += report.total.results["book_tickers"].written
        trades += report.total.results["trades"].written
    return [quotes, trades]


async def rows_of(db: Database) -> tuple[list[Any], list[Any]]:
    pairs = [(exchange, base, quote) for exchange, _, quote in TICKS for base in ("BTC", "ETH")]
    async with db.begin() as store:
        quotes = [row for pair in pairs for row in await store.book_tickers.history(*pair)]
        return quotes, [row for pair in pairs for row in await store.trades.history(*pair)]
