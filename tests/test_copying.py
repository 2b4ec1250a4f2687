from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
from sqlalchemy import Numeric, Table

from arbstore import copying
from arbstore.database import Store
from arbstore.records import Balance, FundingRate, Snapshot, Trade, columns
from tests.conftest import NOON
from tests.records.samples import TABLES
from tests.services.cases import Case, every_series, open_market

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
    assert copying.packs(table, given)
    packed = b"".join([part async for part in copying._packed_rows(table, given, range(len(rows)))])
    assert packed == await as_the_server_writes_them(store, table, list(given))


async def test_texts_of_any_alphabet_are_packed_as_the_server_writes_them(store: Store) -> None:
    market, case, table = await open_market(store), Case(Trade), TABLES[Trade]
    texts = ("a", "z" * 200, "é", "成交", "😀")
    rows = [case.row(market, NOON + timedelta(seconds=second), trade_id=text) for second, text in enumerate(texts)]
    await store.trades.insert(rows)
    given = columns(Trade, rows)
    packed = b"".join([part async for part in copying._packed_rows(table, given, range(len(rows)))])
    assert packed == await as_the_server_writes_them(store, table, list(given))


@every_series
def test_what_is_exact_is_left_to_the_driver_and_nothing_else(case: Case) -> None:
    table = TABLES[case.kind]
    assert copying.packs(table, list(table.c.keys())) is (case.kind not in EXACT)
    assert any(isinstance(column.type, Numeric) and column.type.python_type is Decimal for column in table.c) is (
        case.kind in EXACT
    )
