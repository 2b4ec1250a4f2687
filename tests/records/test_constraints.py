from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal
from itertools import product
from random import Random
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Double, Numeric, Table, insert, text
from sqlalchemy.exc import DBAPIError

from arbstore.database import Store
from arbstore.errors import ValidationError
from arbstore.models import Base
from arbstore.records import (
    Balance,
    Candle,
    CollectorStatus,
    Listing,
    Record,
    Snapshot,
    Symbol,
    SymbolType,
    Trade,
    columns,
)
from tests.records.samples import SAMPLES, TABLES, mapping, refusal, with_fields

TINY, HUGE = 5e-324, sys.float_info.max
EDGES = (math.nan, math.inf, -math.inf, -HUGE, -1.0, -TINY, -0.0, 0.0, TINY, 0.5, 1.0, math.nextafter(1, 2), HUGE)
# Latin, Greek, Cyrillic and Chinese: real tickers are of these. Chinese has no cases, so that some of it is enough.
LETTERS = [chr(code) for code in (*range(0x180), *range(0x386, 0x530), *range(0x4E00, 0xA000, 50))]
INTEGERS = (-(2**63), -(2**31), -1, 0, 1, 2**31 - 1, 2**31, 2**63 - 1)
DECIMALS = tuple(
    Decimal(edge) for edge in ("NaN", "Infinity", "-Infinity", "-1", "-1E-100", "-0", "0", "1E-100", "1E59")
)


def checked_columns(kind: type[Snapshot]) -> list[str]:
    """Return the columns that a check speaks of, a candle's range apart."""
    checks = [str(check.sqltext) for check in TABLES[kind].constraints if isinstance(check, CheckConstraint)]
    simple = " ".join(check for check in checks if "LEAST" not in check).split()
    return [column.name for column in TABLES[kind].c if column.name in simple]


def edges(kind: type[Snapshot], name: str) -> Iterable[Any]:
    column = TABLES[kind].c[name].type
    if isinstance(column, Double):
        return EDGES
    if isinstance(column, Numeric):
        return DECIMALS
    return INTEGERS if column.python_type is int else ("buy", "sell", "hold", "running", "feed", "")


CHECKED = {kind: checked_columns(kind) for kind in SAMPLES}


async def database_takes(store: Store, table: Table, row: dict[str, Any]) -> bool:
    savepoint = await store.session.begin_nested()
    try:
        await store.session.execute(insert(table).values(row))
    except DBAPIError:
        return False
    finally:
        await savepoint.rollback()
    return True


def rules_take(kind: type[Record], row: dict[str, Any]) -> bool:
    return refusal(kind, row) is None


def around(kind: type[Snapshot], symbol: Symbol, **fields: Any) -> dict[str, Any]:
    ids = {"symbol_id": symbol.id} if hasattr(SAMPLES[kind], "symbol_id") else {}
    ids |= {name: symbol.exchange_id for name in mapping(SAMPLES[kind]) if name.endswith("exchange_id")}
    if kind is Candle and fields.keys() & {"open", "high", "low", "close"}:
        fields = dict.fromkeys(("open", "high", "low", "close"), *fields.values())
    return with_fields(SAMPLES[kind], **ids | fields)


def test_every_number_and_every_choice_of_every_table_is_checked() -> None:
    def wanted(kind: type[Snapshot], name: str) -> bool:
        column = TABLES[kind].c[name]
        number = isinstance(column.type, Double | Numeric) or name in {"duration_ms", "window_seconds", "num_trades"}
        return number or name in {"side", "status", "origin"}

    for kind, checked in CHECKED.items():
        assert checked == [column.name for column in TABLES[kind].c if wanted(kind, column.name)], kind


@pytest.mark.parametrize("kind", CHECKED, ids=lambda kind: kind.__name__)
async def test_the_rules_and_the_database_draw_the_same_line(
    store: Store, symbol: Symbol, kind: type[Snapshot]
) -> None:
    for name in CHECKED[kind]:
        rows = {repr(edge): around(kind, symbol, **{name: edge}) for edge in edges(kind, name)}
        by_rules = {edge for edge, row in rows.items() if rules_take(kind, row)}
        by_database = {edge for edge, row in rows.items() if await database_takes(store, TABLES[kind], row)}
        assert by_rules == by_database, name
        assert by_rules < set(rows), f"the edges of {name} contain no bad value"
        assert by_rules, f"the edges of {name} contain no good value"


async def test_the_database_refuses_the_candles_that_the_rules_refuse(store: Store, symbol: Symbol) -> None:
    for prices in product((1.0, 2.0, 3.0), repeat=4):
        row = around(Candle, symbol) | dict(zip(("open", "high", "low", "close"), prices, strict=True))
        assert await database_takes(store, TABLES[Candle], row) is rules_take(Candle, row), row


async def test_the_size_of_a_contract_is_drawn_the_same_line(store: Store, symbol: Symbol) -> None:
    listing = {"symbol_base": "ETH", "symbol_quote": "USDT", "exchange_symbol": "E", "symbol_type": SymbolType.SPOT}
    table = Base.metadata.tables["symbols"]
    for size in EDGES:
        row = listing | {"contract_size": size}
        taken = await database_takes(store, table, row | {"exchange_id": symbol.exchange_id})
        assert taken is rules_take(Listing, row), size


def normalised(kind: type[Snapshot], name: str, characters: list[str]) -> list[str]:
    found = []
    for character in characters:
        with suppress(ValidationError):
            found += columns(kind, [with_fields(SAMPLES[kind], **{name: character})])[name]
    return found


async def test_the_database_calls_upper_case_what_the_rules_make_of_a_ticker(store: Store) -> None:
    tickers = normalised(Balance, "asset_name", LETTERS)
    assert len(tickers) > 900
    statement = text("SELECT t FROM unnest(CAST(:tickers AS text[])) t WHERE upper(t) <> t")
    assert (await store.session.scalars(statement, {"tickers": tickers})).all() == []


async def test_every_text_that_the_rules_take_is_one_to_the_database(store: Store) -> None:
    texts = normalised(Trade, "trade_id", [chr(code) for code in range(0x3000)])
    statement = text("SELECT count(*) FROM unnest(CAST(:texts AS text[])) t WHERE length(t) = 1")
    assert await store.session.scalar(statement, {"texts": texts}) == len(texts)


def longest(kind: type[Record], row: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the row with the longest of some incompressible texts that the rules take in these fields."""
    random = Random(7)  # noqa: S311 # nothing is to be kept secret
    text = "".join(chr(random.randrange(0x4E00, 0xA000)) for _ in range(10_000))
    rows = [row | dict.fromkeys(names, text[:length]) for length in (1, 8, 64, 128, 256, 512, 1_024, 10_000)]
    return [row for row in rows if rules_take(kind, row)][-1]


@pytest.mark.parametrize(
    ("kind", "name"), [(Trade, "trade_id"), (Balance, "asset_name"), (CollectorStatus, "collector")]
)
async def test_the_longest_text_that_the_rules_take_fits_the_key(
    store: Store, symbol: Symbol, kind: type[Snapshot], name: str
) -> None:
    assert await database_takes(store, TABLES[kind], longest(kind, around(kind, symbol), name))


async def test_the_longest_names_that_the_rules_take_fit_the_indexes_of_symbols(store: Store, symbol: Symbol) -> None:
    listing = {"symbol_type": SymbolType.SPOT}
    row = longest(Listing, listing, "symbol_base", "symbol_quote", "exchange_symbol")
    table = Base.metadata.tables["symbols"]
    assert await database_takes(store, table, row | {"exchange_id": symbol.exchange_id})
