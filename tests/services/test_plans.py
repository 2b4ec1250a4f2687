"""What `latest` costs, by what the server says it read: never the history, however long it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from arbstore.database import Database, Store
from arbstore.timescale import catalog
from tests.conftest import NOON
from tests.records.samples import TABLES
from tests.services.cases import CASES, Case, Market, every_series, open_market

ROWS = 1_000
REFERENCE = {"exchanges", "symbols"}


def every_part(case: Case) -> list[dict[str, Any]]:
    return [{}] if case.part is None else [{case.part[0]: value} for value in case.part[1:]]


async def fill(store: Store, market: Market, case: Case, step: timedelta) -> None:
    await case.service(store).insert(
        case.row(market, NOON + number * step, symbol, **part)
        for number in range(ROWS)
        for symbol in (market.btc, market.eth, market.perpetual)
        for part in every_part(case)
    )


async def explained(store: Store, case: Case, **filters: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return what `latest` finds, and how the server found it."""
    sent: list[tuple[str, Any]] = []

    def note(_: Connection, __: object, statement: str, parameters: Any, *___: object) -> None:
        sent.append((statement, parameters))

    connection = await store.session.connection()
    event.listen(connection.sync_connection, "before_cursor_execute", note)
    found = await case.latest(store, **filters)
    event.remove(connection.sync_connection, "before_cursor_execute", note)
    statement, parameters = sent[-1]
    plan = (await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)).scalar_one()
    (document,) = json.loads(plan) if isinstance(plan, str) else plan
    return found, document


def scans(node: dict[str, Any]) -> Iterator[float]:
    """Yield the rows that each scan of market data read, those included that it threw away."""
    if node.get("Relation Name", "exchanges") not in REFERENCE and node["Node Type"] != "Custom Scan":
        read = (
            node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        )
        yield read * node["Actual Loops"]
    for child in node.get("Plans", ()):
        yield from scans(child)


@pytest.mark.parametrize("step", [timedelta(seconds=1), timedelta(minutes=3)], ids=["one chunk", "many chunks"])
async def test_latest_reads_the_newest_rows_and_not_the_history(committed_db: Database, step: timedelta) -> None:
    async with committed_db.begin() as store:
        market = await open_market(store)
        for case in CASES:
            await fill(store, market, case, step)
        await store.session.execute(text("ANALYZE"))
    async with committed_db.begin() as store:
        hypertables = await store.session.run_sync(lambda session: catalog.hypertables(session.connection()))
        for case in CASES:
            table = hypertables.get(TABLES[case.kind].name)
            # To find the parts of a series, each chunk is asked for its first; the newest row is in the last one.
            chunks = table.chunks if table and has_parts(case) else 1
            for filters in ({}, {"exchange": "BINANCE_SPOT"}, {"max_age": timedelta(days=10_000)}):
                found, document = await explained(store, case, **filters)
                assert {row.timestamp for row in found} == {NOON + (ROWS - 1) * step}
                assert 0 < sum(scans(document["Plan"])) <= 4 * len(found) * chunks, TABLES[case.kind].name


def has_parts(case: Case) -> bool:
    return list(TABLES[case.kind].primary_key.columns)[1].name != "timestamp"


@every_series
async def test_latest_is_not_compiled(store: Store, market: Market, case: Case) -> None:
    """The server takes a recursive query for a dear one, and compiles it for hundreds of times what it takes to run."""
    await case.service(store).insert([case.row(market)])
    _, document = await explained(store, case)
    assert "JIT" not in document
