from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
from sqlalchemy import Numeric, Table, text

from arbstore.database import Database, Store
from arbstore.postgres import copying
from arbstore.records import Balance, Candle, FundingRate, Snapshot, Symbol, Tick, Trade, columns
from tests.conftest import NOON
from tests.records.samples import TABLES
from tests.services.cases import Case, every_series, open_market

MANY = 600  # rows that are copied
EXACT = {Balance, FundingRate}  # numeric has no length, and asyncpg knows how to write it


async def as_the_server_writes_them(store: Store, table: Table, names: list[str]) -> bytes:
    raw = await (await store.session.connection()).get_raw_connection()
    driver: Any = raw.driver_connection
    written = BytesIO()
    key = ", ".join(column.name for column in table.primary_key)
    query = f"SELECT {', '.join(names)} FROM {table.name} ORDER BY {key}"  # noqa: S608 # names of our own tables
    await driver.copy_from_query(query, output=written, format="binary")
    return written.getvalue()


@pytest.mark.parametrize("kind", [kind for kind in TABLES if kind not in EXACT], ids=lambda kind: kind.__name__)
async def test_rows_are_packed_byte_for_byte_as_the_server_writes_them(store: Store, kind: type[Snapshot]) -> None:
    market, case, table = await open_market(store), Case(kind), TABLES[kind]
    empty: dict[str, Any] = {column.name: None for column in table.c if column.nullable}
    moments = [
        datetime(1971, 1, 1, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        NOON + timedelta(microseconds=1),
    ]
    rows = [case.row(market, at) for at in moments]
    rows += [case.row(market, NOON + timedelta(hours=hours), **empty) for hours in (1, 2)]
    await case.service(store).insert(rows)  # few rows: asyncpg writes them, as arrays
    given = columns(kind, rows)
    kinds = [table.c[name] for name in given]
    assert copying.packs(kinds)
    packed = b"".join([part async for part in copying._packed_rows(kinds, given, range(len(rows)))])
    assert packed == await as_the_server_writes_them(store, table, list(given))


async def test_texts_of_any_alphabet_are_packed_as_the_server_writes_them(store: Store) -> None:
    market, case, table = await open_market(store), Case(Trade), TABLES[Trade]
    texts = ("a", "z" * 200, "é", "成交", "😀")
    rows = [case.row(market, NOON + timedelta(seconds=second), trade_id=text) for second, text in enumerate(texts)]
    await store.trades.insert(rows)
    given = columns(Trade, rows)
    kinds = [table.c[name] for name in given]
    packed = b"".join([part async for part in copying._packed_rows(kinds, given, range(len(rows)))])
    assert packed == await as_the_server_writes_them(store, table, list(given))


@every_series
def test_what_is_exact_is_left_to_the_driver_and_nothing_else(case: Case) -> None:
    table = TABLES[case.kind]
    assert copying.packs(table.c) is (case.kind not in EXACT)
    assert any(isinstance(column.type, Numeric) and column.type.python_type is Decimal for column in table.c) is (
        case.kind in EXACT
    )


@every_series
async def test_every_series_has_the_columns_that_copy_rests_on(store: Store, case: Case) -> None:
    connection = await store.session.connection()
    assert await copying.speaks_utf8(connection)
    assert await copying.fits(connection, TABLES[case.kind], TABLES[case.kind].c.keys())


def ticks(symbol: Symbol, count: int, **fields: Any) -> list[Tick]:
    moments = (NOON + timedelta(seconds=number) for number in range(count))
    return [Tick(symbol_id=symbol.id, timestamp=moment, bid=1.0, ask=2.0, **fields) for moment in moments]


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252"])  # Python has no codec of the latter's name
async def test_texts_are_those_that_were_given_whatever_the_session_speaks(
    store: Store, symbol: Symbol, encoding: str
) -> None:
    await store.session.execute(text(f"SET LOCAL client_encoding = '{encoding}'"))
    await store.ticks.insert(ticks(symbol, MANY, event_type="é"))
    stored = await store.session.scalars(text("SELECT DISTINCT convert_to(event_type, 'UTF8') FROM ticks"))
    assert stored.all() == ["é".encode()]


@pytest.mark.parametrize("other", ["double precision", "numeric", "integer"])
async def test_a_column_that_is_given_another_type_holds_what_was_given(committed_db: Database, other: str) -> None:
    async with committed_db.begin() as store:
        market = await open_market(store)
    rows = [Case(Candle).row(market, NOON + timedelta(minutes=number), num_trades=42) for number in range(2 * MANY)]
    # Over one connection, which knew the column as it was.
    async with committed_db.begin() as store:
        await store.candles.insert(rows[:MANY])
    async with committed_db.begin() as store:
        await store.session.execute(text(f"ALTER TABLE candles ALTER num_trades TYPE {other}"))
    async with committed_db.begin() as store:
        await store.candles.insert(rows[MANY:])
    async with committed_db.begin() as store:
        stored = await store.session.scalars(text("SELECT CAST(num_trades AS integer) FROM candles"))
        assert stored.all() == [42] * 2 * MANY


async def test_a_table_that_comes_first_on_the_search_path_is_asked_for_its_own_types(committed_db: Database) -> None:
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


async def test_long_texts_are_sent_in_pieces_that_are_not(symbol: Symbol) -> None:
    rows = ticks(symbol, 1_000, created_at=NOON, event_type="x" * 100_000)
    given = columns(Tick, rows)
    kinds = [TABLES[Tick].c[name] for name in given]
    pieces = [len(part) async for part in copying._packed_rows(kinds, given, range(len(rows)))]
    assert max(pieces) < 2 * copying._CHARACTERS_AT_ONCE
    assert sum(pieces) > 100_000_000
