from __future__ import annotations

import inspect
from enum import StrEnum

import pytest
from sqlalchemy import CheckConstraint

from arbstore import models, records
from arbstore.models import Base
from arbstore.records import BookTicker, CollectorState, MarketType, Record, Side, Snapshot, SymbolType
from tests.records.samples import RECEIVED, SAMPLES, TABLES, field_names, with_fields

NAMES = {"exchange", "symbol_base", "symbol_quote", "exchange_symbol"}


def stored_kind(kind: type[Snapshot]) -> type[Record]:
    found: type[Record] = getattr(records, f"Stored{kind.__name__}")
    return found


def columns_of(table: str) -> set[str]:
    return {column.name for column in Base.metadata.tables[table].c}


def test_a_snapshots_fields_are_its_tables_columns() -> None:
    for kind in SAMPLES:
        assert set(field_names(kind)) == {column.name for column in TABLES[kind].c} - {"rows_gone"}


def test_a_stored_kind_is_its_snapshot_and_the_names_it_goes_by() -> None:
    for kind in SAMPLES:
        names = NAMES if "symbol_id" in field_names(kind) else {"exchange"}
        assert issubclass(stored_kind(kind), kind)
        assert set(field_names(stored_kind(kind))) == set(field_names(kind)) | names


def test_a_field_may_be_none_where_the_column_may_be_null() -> None:
    for kind in SAMPLES:
        hints = {name: hint for parent in kind.__mro__ for name, hint in inspect.get_annotations(parent).items()}
        optional = {name for name in field_names(kind) if "None" in str(hints[name])}
        nullable = {column.name for column in TABLES[kind].c if column.nullable}
        # Where created_at is None the server's clock is stored. What is None in is_closed is found out by an insert.
        assert optional - {"created_at", "is_closed"} == nullable


def test_every_table_that_callers_write_has_its_record() -> None:
    ours = {"late_minutes", "ledger", "retention_overrides"}  # what arbstore itself keeps in mind
    written = {table.name for table in TABLES.values()} | {"exchanges", "symbols"}
    assert set(Base.metadata.tables) == written | ours


def test_exchanges_and_symbols_have_their_columns_for_fields() -> None:
    assert set(field_names(records.Exchange)) == columns_of(models.Exchange.__tablename__)
    assert set(field_names(records.Symbol)) == columns_of(models.Symbol.__tablename__)
    assert set(field_names(records.Listing)) == columns_of("symbols") - {"id", "exchange_id", "created_at"}


@pytest.mark.parametrize(
    ("options", "table", "column"),
    [
        (Side, "trade_snapshots", "side"),
        (CollectorState, "collector_status", "status"),
        (MarketType, "exchanges", "market_type"),
        (SymbolType, "symbols", "symbol_type"),
    ],
)
def test_an_enums_values_are_those_of_the_columns_constraint(options: type[StrEnum], table: str, column: str) -> None:
    checks = [
        str(check.sqltext)
        for check in Base.metadata.tables[table].constraints
        if isinstance(check, CheckConstraint) and str(check.name).endswith(column)
    ]
    assert checks == [f"{column} IN ({', '.join(repr(str(option)) for option in options)})"]


def test_a_record_is_immutable() -> None:
    for kind in SAMPLES:
        with pytest.raises(AttributeError):
            SAMPLES[kind].timestamp = RECEIVED  # type: ignore[misc] # that it is forbidden is the point


def test_equal_records_are_equal_and_can_be_keys() -> None:
    for kind in SAMPLES:
        again = kind(**with_fields(SAMPLES[kind]))
        assert {SAMPLES[kind]: "found"}[again] == "found"


def quote(bid: float, ask: float) -> BookTicker:
    return BookTicker(**with_fields(SAMPLES[BookTicker], bid_price=bid, ask_price=ask))


def test_mid_and_spread_are_computed_from_the_prices() -> None:
    book = quote(99.0, 101.0)
    assert (book.mid, book.spread, book.spread_bps) == (100.0, 2.0, 200.0)


def test_the_spread_of_a_crossed_book_is_below_zero() -> None:
    book = quote(101.0, 99.0)
    assert (book.mid, book.spread, book.spread_bps) == (100.0, -2.0, -200.0)
