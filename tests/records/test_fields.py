from __future__ import annotations

from decimal import Decimal

import pytest

from arbstore.records import Listing, Record, SymbolType, columns
from tests.records.domains import DOMAINS, FIELDS
from tests.records.samples import SAMPLES, field_names, mapping, place, refusal, with_fields

LISTING = Listing(symbol_base="BTC", symbol_quote="USDT", exchange_symbol="BTCUSDT", symbol_type=SymbolType.SPOT)
EXAMPLES: tuple[Record, ...] = (*SAMPLES.values(), LISTING)
RECORDS = {type(example): example for example in EXAMPLES}
BALANCES = ("locked_balance", "frozen_balance", "borrowing_balance", "interest_balance")
DEFAULTS = {"is_active": True, **dict.fromkeys(BALANCES, Decimal(0))}

every_field = pytest.mark.parametrize(
    ("kind", "name"), [pytest.param(*field, id=f"{field[0].__name__}.{field[1]}") for field in FIELDS]
)


def test_every_field_of_every_record_has_its_domain() -> None:
    assert {kind: set(fields) for kind, fields in DOMAINS.items()} == {kind: set(field_names(kind)) for kind in RECORDS}


@every_field
def test_what_fits_is_stored_in_the_fields_own_type(kind: type[Record], name: str) -> None:
    for given, stored in DOMAINS[kind][name].takes:
        result = columns(kind, [RECORDS[kind], with_fields(RECORDS[kind], **{name: given})])[name][1]
        assert (result, type(result)) == (stored, type(stored)), f"from {given!r}"


@every_field
def test_what_does_not_fit_is_refused_by_row_and_field(kind: type[Record], name: str) -> None:
    good = RECORDS[kind]
    places = {
        repr(bad)[:60]: place(refusal(kind, good, mapping(good), with_fields(good, **{name: bad}), good))
        for bad in DOMAINS[kind][name].refuses
    }
    assert {bad: where for bad, where in places.items() if where != (2, name)} == {}


@every_field
def test_a_bad_value_is_refused_in_a_record_as_in_a_mapping(kind: type[Record], name: str) -> None:
    bad = DOMAINS[kind][name].refuses[0]
    assert place(refusal(kind, RECORDS[kind], kind(**with_fields(RECORDS[kind], **{name: bad})))) == (1, name)


@every_field
def test_none_is_for_optional_fields_only(kind: type[Record], name: str) -> None:
    rows = RECORDS[kind], with_fields(RECORDS[kind], **{name: None})
    if DOMAINS[kind][name].optional:
        assert columns(kind, rows)[name][1] is None
    else:
        assert place(refusal(kind, *rows)) == (1, name)


@every_field
def test_a_field_that_is_left_out_takes_its_default_or_is_missing(kind: type[Record], name: str) -> None:
    row = mapping(RECORDS[kind])
    del row[name]
    if DOMAINS[kind][name].optional:
        assert columns(kind, [row])[name] == [None]
    elif name in DEFAULTS:
        assert columns(kind, [row])[name] == [DEFAULTS[name]]
    else:
        assert str(refusal(kind, RECORDS[kind], row)) == f"row 1, {name}: is missing"


@every_field
def test_a_reason_shows_the_value_but_not_all_of_a_long_one(kind: type[Record], name: str) -> None:
    error = refusal(kind, with_fields(RECORDS[kind], **{name: ["a long one"] * 10_000}))
    assert error is not None
    assert str(error) == f"row 0, {name}: {error.reason}"
    assert "a long one" in error.reason
    assert len(error.reason) < 300
