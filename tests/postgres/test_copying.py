from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from sqlalchemy import select, text

from arbstore.database import Database, Store
from arbstore.kinds import KINDS
from arbstore.postgres import copying
from arbstore.records import BookTicker, Candle, Opportunity, OrderFlow, Snapshot, Symbol, Tick, columns
from tests.conftest import NOON
from tests.records.samples import SERVICES, TABLES
from tests.services.cases import Case, every_series, open_market

MANY = 600  # enough rows for a COPY


@pytest.mark.parametrize("kind", [BookTicker, Opportunity, OrderFlow], ids=lambda kind: kind.__name__)
async def test_rows_are_packed_byte_for_byte_as_the_server_writes_them(store: Store, kind: type[Snapshot]) -> None:
    market, case, table = await open_market(store), Case(kind), TABLES[kind]
    moments = [
        datetime(1971, 1, 1, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        NOON + timedelta(microseconds=1),
    ]
    rows = [case.row(market, at) for at in moments]
    await case.service(store).insert(rows)  # few rows: asyncpg writes them, as arrays
    given = columns(kind, rows)
    types = [copying._TYPES[type(table.c[name].type)] for name in given]
    packed = b"".join([piece async for piece in copying._packed(types, given, range(len(rows)))])
    driver: Any = (await (await store.session.connection()).get_raw_connection()).driver_connection
    written = BytesIO()
    query = f"SELECT {', '.join(given)} FROM {table.name} ORDER BY timestamp"  # noqa: S608 # names of our own tables
    await driver.copy_from_query(query, output=written, format="binary")
    assert packed == written.getvalue()


@pytest.mark.parametrize("encode", ["_packed", "_records"])
async def test_other_tasks_run_while_rows_are_encoded(encode: str) -> None:
    turns, numbers = 0, list(range(10_000))

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    given = ({"number": numbers}, numbers)
    pieces = copying._packed([copying._Type("int4", "i")], *given) if encode == "_packed" else copying._records(*given)
    other = asyncio.ensure_future(take_turns())
    async for _ in pieces:
        pass
    other.cancel()
    assert turns >= len(numbers) // copying._ROWS_AT_ONCE


@every_series
async def test_many_rows_of_every_series_are_copied_with_and_without_nulls(store: Store, case: Case) -> None:
    market, table = await open_market(store), TABLES[case.kind]
    empty: dict[str, Any] = {column.name: None for column in KINDS[SERVICES[case.kind]].columns if column.nullable}
    moments = [NOON + timedelta(hours=number) for number in range(MANY)]
    rows = [case.row(market, at, **(empty if number % 3 else {})) for number, at in enumerate(moments)]
    given = columns(case.kind, rows)
    connection = await store.session.connection()
    assert not await connection.scalar(select(table.c.timestamp))
    assert await copying.copy(connection, table, given, range(MANY))
    stored = (await connection.execute(select(*(table.c[name] for name in given)).order_by(table.c.timestamp))).all()
    assert stored == list(zip(*given.values(), strict=True))


def ticks(symbol: Symbol, count: int, **fields: Any) -> list[Tick]:
    moments = (NOON + timedelta(seconds=number) for number in range(count))
    return [Tick(symbol_id=symbol.id, timestamp=moment, bid=1.0, ask=2.0, **fields) for moment in moments]


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252"])
async def test_texts_are_stored_as_given_in_any_encoding_of_the_session(
    store: Store, symbol: Symbol, encoding: str
) -> None:
    await store.session.execute(text(f"SET LOCAL client_encoding = '{encoding}'"))
    await store.ticks.insert(ticks(symbol, MANY, event_type="é"))
    stored = await store.session.scalars(text("SELECT DISTINCT convert_to(event_type, 'UTF8') FROM ticks"))
    assert stored.all() == ["é".encode()]


@pytest.mark.parametrize(("kind", "column"), [(BookTicker, "bid_qty"), (Candle, "num_trades")])
@pytest.mark.parametrize("other", ["bigint", "double precision", "numeric"])
async def test_a_column_whose_type_was_altered_holds_the_values_that_were_given(
    committed_db: Database, kind: type[Snapshot], column: str, other: str
) -> None:
    async with committed_db.begin() as store:
        market = await open_market(store)
    case, table = Case(kind), TABLES[kind].name
    values: dict[str, Any] = {column: 42.0 if kind is BookTicker else 42}
    rows = [case.row(market, NOON + timedelta(minutes=minute), **values) for minute in range(2 * MANY)]
    # All over one connection, which asyncpg remembers the first type of.
    async with committed_db.begin() as store:
        await case.service(store).insert(rows[:MANY])
    async with committed_db.begin() as store:
        await store.session.execute(text(f"ALTER TABLE {table} ALTER {column} TYPE {other}"))
    async with committed_db.begin() as store:
        await case.service(store).insert(rows[MANY:])
    async with committed_db.begin() as store:
        stored = await store.session.scalars(text(f"SELECT CAST({column} AS integer) FROM {table}"))  # noqa: S608 # constants
        assert stored.all() == [42] * 2 * MANY


async def test_types_are_those_of_the_table_that_comes_first_on_the_search_path(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        market = await open_market(store)
        await store.session.execute(text("CREATE SCHEMA other"))
        await store.session.execute(text("CREATE TABLE other.ticks (LIKE public.ticks INCLUDING ALL)"))
        await store.session.execute(text("ALTER TABLE other.ticks ALTER ask TYPE bigint"))
    rows = ticks(market.btc, MANY)
    for path in ("public", "other, public", "public"):
        async with committed_db.begin() as store:
            await store.session.execute(text(f"SET LOCAL search_path = {path}"))
            await store.ticks.insert(rows)
            stored = await store.session.scalars(text("SELECT DISTINCT CAST(ask AS double precision) FROM ticks"))
            assert stored.all() == [2.0]


async def test_a_cancelled_copy_of_encoded_rows_leaves_nothing_and_its_connection_is_of_use(
    committed_db: Database,
) -> None:
    async with committed_db.begin() as store:
        market = await open_market(store)
    rows = ticks(market.btc, 20_000, event_type="trade")

    async def write() -> None:
        async with committed_db.begin() as store:
            await store.ticks.insert(rows)

    cancelled = 0
    for hops in range(1, 12, 2):
        writing = asyncio.ensure_future(write())
        await asyncio.sleep(hops * 0.008)
        writing.cancel()
        done, _ = await asyncio.wait([writing])
        cancelled += done.pop().cancelled()
        async with committed_db.begin() as store:
            assert await store.session.scalar(text("SELECT count(*) FROM ticks")) in {0, len(rows)}
            await store.session.execute(text("DELETE FROM ticks"))
    assert cancelled
