"""What `latest` costs, by what the server says it read: never the history, however long it is."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from alembic_timescaledb import server
from arbstore.database import Database, Store
from arbstore.records import BookTicker, Trade
from tests.conftest import NOON
from tests.records.samples import REPRESENTATIVES, TABLES
from tests.services.cases import Case, Market, open_market, perpetual

ROWS = 300
RECENT = 600  # rows of a symbol, three minutes apart: they begin before `BEFORE`
CHUNKS = 4  # an hour's, and those at its ends
HOUR = timedelta(hours=1)
BEFORE = datetime.now(UTC) - 24 * HOUR
PATHS = [Case(kind) for kind in REPRESENTATIVES[:3]]
NEWEST = [Case(BookTicker), Case(Trade)]
REFERENCE = {"exchanges", "symbols"}
MARKET = {table.name for table in TABLES.values()}


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
    found, (*_, document) = await all_explained(store, case.latest(store, **filters))
    return found, document


async def all_explained(store: Store, read: Awaitable[list[Any]]) -> tuple[list[Any], list[dict[str, Any]]]:
    """Return what a read finds, and how the server ran each of its queries of market data."""
    sent: list[tuple[str, Any]] = []

    def note(_: Connection, __: object, statement: str, parameters: Any, *___: object) -> None:
        sent.append((statement, parameters))

    connection = await store.session.connection()
    event.listen(connection.sync_connection, "before_cursor_execute", note)
    found = await read
    event.remove(connection.sync_connection, "before_cursor_execute", note)
    return found, [
        await explain(connection, *statement) for statement in sent if any(name in statement[0] for name in MARKET)
    ]


async def explain(connection: AsyncConnection, statement: str, parameters: Any) -> dict[str, Any]:
    plan = (await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)).scalar_one()
    document: dict[str, Any]
    (document,) = json.loads(plan) if isinstance(plan, str) else plan
    return document


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
        for case in PATHS:
            await fill(store, market, case, step)
        await store.session.execute(text("ANALYZE"))
    async with committed_db.begin() as store:
        hypertables = await store.session.run_sync(lambda session: server.hypertables(session.connection()))
        for case in PATHS:
            table = hypertables.get(TABLES[case.kind].name)
            # To find the parts of a series, each chunk is asked for its first; the newest row is in the last one.
            chunks = table.chunks if table and has_parts(case) else 1
            for filters in ({}, {"exchange": "BINANCE_SPOT"}, {"max_age": timedelta(days=10_000)}):
                found, document = await explained(store, case, **filters)
                assert {row.timestamp for row in found} == {NOON + (ROWS - 1) * step}
                assert 0 < sum(scans(document["Plan"])) <= 4 * len(found) * chunks, TABLES[case.kind].name


async def fill_until_now(store: Store, market: Market, rows: int) -> None:
    """Write quotes and trades of three symbols, three minutes apart, up to now."""
    now = datetime.now(UTC)
    for case in NEWEST:
        await case.service(store).insert(
            case.row(market, now - number * timedelta(minutes=3), symbol)
            for number in range(rows)
            for symbol in (market.btc, market.eth, market.perpetual)
        )
    await store.session.execute(text("ANALYZE"))


@pytest.mark.parametrize(
    "read",
    [
        lambda service: service.latest(),
        lambda service: service.latest("BINANCE_SPOT"),
        lambda service: service.latest("BINANCE_SPOT", "BTC", "USDT"),
        lambda service: service.latest(max_age=timedelta(minutes=10)),
        lambda service: service.latest(max_age=timedelta(days=10_000)),
        lambda service: service.history("BINANCE_SPOT", "BTC", "USDT", limit=8),
        lambda service: service.history("BINANCE_SPOT", "BTC", "USDT", until=BEFORE, limit=8),
        lambda service: service.history("BINANCE_SPOT", "BTC", "USDT", since=BEFORE, until=BEFORE + HOUR),
    ],
    ids=["all", "exchange", "pair", "young", "of any age", "newest", "newest before", "range"],
)
async def test_a_plan_has_the_chunks_of_its_answer_and_not_those_of_the_history(
    committed_db: Database, read: Callable[[Any], Awaitable[list[Any]]]
) -> None:
    """Planning takes its time for every chunk of a plan, read or not. A chunk has thirty rows here."""
    async with committed_db.begin() as store:
        await fill_until_now(store, await open_market(store), RECENT)
    async with committed_db.begin() as store:
        for case in NEWEST:
            found, documents = await all_explained(store, read(case.service(store)))
            assert found
            nodes = [node for document in documents for node in nodes_of(document["Plan"])]
            touched = [node for node in nodes if node.get("Relation Name", "exchanges") not in REFERENCE]
            assert 0 < len([node for node in touched if node["Node Type"] != "Custom Scan"]) <= CHUNKS
            assert sum(rows for document in documents for rows in scans(document["Plan"])) <= CHUNKS * 30


async def test_only_what_is_not_found_among_the_newest_is_looked_for_in_all_chunks(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        market = await open_market(store)
        await fill_until_now(store, market, RECENT)
        await store.symbols.add(market.spot.id, perpetual("IDLE"))
        case = NEWEST[0]
        found, (*_, last) = await all_explained(store, case.latest(store))
        assert len(found) == 3
        # The three that have a row are no longer asked for.
        assert sum(scans(last["Plan"])) == 0


def nodes_of(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from nodes_of(child)


def has_parts(case: Case) -> bool:
    return list(TABLES[case.kind].primary_key.columns)[1].name != "timestamp"


async def test_latest_is_not_compiled(store: Store, market: Market) -> None:
    """The server takes a recursive query for a dear one, and compiles it for hundreds of times what it takes to run."""
    for case in PATHS:
        await case.service(store).insert([case.row(market)])
        _, document = await explained(store, case)
        assert "JIT" not in document
