"""Late data: rows for chunks that the server's columnstore policy has compressed already."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, text

from arbstore.database import Database, Store
from arbstore.models import Base
from arbstore.records import Record
from arbstore.timescale import catalog, declared
from tests.conftest import NOON
from tests.records.samples import TABLES
from tests.services.cases import Case, Market, every_series, open_market

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


async def has_columnstore(db: Database) -> bool:
    async with db.engine.connect() as connection:
        return (await connection.run_sync(catalog.edition)).has_policies


def prepare(connection: Connection, table: str, series: str) -> None:
    """Give the table a columnstore and its policy, unless its revision did."""
    enabled = text("SELECT compression_enabled FROM timescaledb_information.hypertables WHERE hypertable_name = :table")
    if not connection.scalar(enabled, {"table": table}):
        connection.execute(
            text(
                f"ALTER TABLE {table} SET (timescaledb.enable_columnstore,"
                f" timescaledb.segmentby = '{series}', timescaledb.orderby = 'timestamp')"
            )
        )
    if connection.scalar(JOB, {"table": table}) is None:
        connection.execute(text(f"CALL add_columnstore_policy('{table}', after => INTERVAL '1 day')"))


async def compress(db: Database, case: Case) -> None:
    """Compress all old chunks of the case's table by the policy's own call."""
    table = TABLES[case.kind]
    series = next(iter(table.primary_key.columns)).name
    async with db.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")  # the job commits chunk by chunk
        await connection.run_sync(prepare, table.name, series)
        job = await connection.scalar(JOB, {"table": table.name})
        await connection.execute(text(f"CALL run_job({job})"))
        made, compressed = (await connection.execute(CHUNKS, {"table": table.name})).one()
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


@every_series
async def test_late_rows_reach_a_compressed_chunk_and_none_is_lost_or_doubled(
    committed_db: Database, case: Case
) -> None:
    if not await has_columnstore(committed_db):
        pytest.skip("only the Community edition of TimescaleDB has a columnstore")
    async with committed_db.begin() as store:
        market = await open_market(store)
        rows = [case.row(market, at) for at in moments(case)]
        assert (await case.service(store).insert(rows)).written == ROWS
    await compress(committed_db, case)
    async with committed_db.begin() as store:
        assert await stored(store, case) == expected(case, market, rows)

    changed = {number: case.other(market, rows[number].timestamp) for number in range(0, ROWS, 3)}
    same = [rows[number] for number in range(1, ROWS, 3)]
    new = [case.row(market, row.timestamp + SECOND / 2) for row in rows[::7]]
    async with committed_db.begin() as store:
        late = [*changed.values(), *same, *new]
        assert (await case.service(store).insert(late)).written == len(late)
    wanted = [changed.get(number, row) for number, row in enumerate(rows)] + new
    wanted.sort(key=lambda row: row.timestamp)
    async with committed_db.begin() as store:
        assert await stored(store, case) == expected(case, market, wanted)
        assert await total(store, case) == ROWS + len(new)

    await compress(committed_db, case)
    async with committed_db.begin() as store:
        assert await stored(store, case) == expected(case, market, wanted)
        assert await total(store, case) == ROWS + len(new)
