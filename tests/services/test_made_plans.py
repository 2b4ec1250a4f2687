"""What candles of trades cost, by what the server says it read: their window, and not the history."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from arbstore.database import Database, Store
from arbstore.records import Origin, StoredCandle
from tests.conftest import NOON
from tests.services.bars import HOUR, MINUTE, PAIR
from tests.services.cases import open_market

HOURS = 5
ROWS = HOURS * 3_600  # one a second
END = NOON + HOURS * HOUR
A_FOURTH = ROWS / 4
# The rows of candles and trades that this transaction has read, also those that functions of the server read.
_READ = text(
    "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables"
    " WHERE relname NOT IN ('symbols', 'exchanges', 'ledger', 'late_minutes')"
    " AND schemaname NOT LIKE '\\_timescaledb\\_c%'"
)


async def fill(store: Store, step: timedelta, rows: int) -> None:
    """Let two symbols trade `rows` times, up to END."""
    await open_market(store)
    await store.session.execute(text("SET LOCAL session_replication_role = replica"))
    await store.session.execute(
        text(
            "INSERT INTO trade_snapshots (symbol_id, timestamp, trade_id, price, quantity, side)"
            " SELECT symbol, CAST(:until AS timestamptz) - number * CAST(:step AS interval), 'a', 100, 1, 'buy'"
            " FROM generate_series(1, :rows) number, generate_series(1, 2) symbol"
        ),
        {"until": END, "step": step, "rows": rows},
    )


async def read(db: Database, timeframe: str = "1m", **window: Any) -> tuple[list[StoredCandle], float]:
    """Return the candles, and how many rows were read for them."""
    async with db.begin() as store:
        before = await store.session.scalar(_READ)
        found = await store.candles.history(*PAIR, timeframe, origin=Origin.TRADES, **window)
        return found, await store.session.scalar(_READ) - before


@pytest.mark.parametrize("gone", [False, True], ids=["of rows", "of rows that are gone"])
async def test_candles_are_read_of_their_window_and_not_of_the_history(committed_db: Database, gone: bool) -> None:
    async with committed_db.begin() as store:
        await fill(store, timedelta(seconds=1), ROWS)
        if gone:
            await store.maintenance.cleanup(batch_size=ROWS)
    async with committed_db.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("VACUUM ANALYZE"))
    few = HOURS * 60 / 4 + 100 if gone else A_FOURTH
    windows: list[tuple[dict[str, Any], int]] = [
        ({"limit": 5}, 5),
        ({"limit": 5, "until": END - 2 * HOUR}, 5),
        ({"since": END - 5 * MINUTE}, 5),
        ({"since": NOON + HOUR, "until": NOON + HOUR + 5 * MINUTE}, 5),
    ]
    for window, count in windows:
        found, rows = await read(committed_db, **window)
        assert len(found) == count
        assert count <= rows <= few, window
    found, rows = await read(committed_db)
    assert len(found) == HOURS * 60
    assert rows > few


async def test_a_limit_of_rare_candles_reads_little_of_what_was_busy_before(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        await fill(store, timedelta(seconds=1), ROWS)
        rare = text(
            "INSERT INTO trade_snapshots (symbol_id, timestamp, trade_id, price, quantity, side)"
            " SELECT 1, CAST(:end AS timestamptz) + number * interval '7 hours', 'a', 100, 1, 'buy'"
            " FROM generate_series(1, 30) number"
        )
        await store.session.execute(rare, {"end": END})
    async with committed_db.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("VACUUM ANALYZE"))
    found, rows = await read(committed_db, limit=20)
    assert [candle.timestamp for candle in found] == [END + number * 7 * HOUR for number in range(11, 31)]
    assert rows <= 20 * 20
