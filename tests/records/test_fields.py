from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from arbstore.errors import ValidationError
from arbstore.records import Listing, Origin, Record, SymbolType, columns
from tests.records.domains import DOMAINS, FIELDS, Domain
from tests.records.samples import SAMPLES, field_names, mapping, place, refusal, with_fields

LISTING = Listing(symbol_base="BTC", symbol_quote="USDT", exchange_symbol="BTCUSDT", symbol_type=SymbolType.SPOT)
EXAMPLES: tuple[Record, ...] = (*SAMPLES.values(), LISTING)
RECORDS = {type(example): example for example in EXAMPLES}
BALANCES = ("locked_balance", "frozen_balance", "borrowing_balance", "interest_balance")
DEFAULTS = {"is_active": True, "origin": Origin.FEED, **dict.fromkeys(BALANCES, Decimal(0))}


def every_field() -> Iterator[tuple[type[Record], str, Domain, Record]]:
    """Yield every field with its domain and an example of its record."""
    for kind, name in FIELDS:
        yield kind, name, DOMAINS[kind][name], RECORDS[kind]


def stored(kind: type[Record], *rows: Any, name: str) -> tuple[Any, type] | ValidationError:
    """Return what the last of the rows has in the field, and its type, or the refusal."""
    try:
        column = columns(kind, rows)[name]
    except ValidationError as error:
        return error
    return column[-1], type(column[-1])


def test_every_field_of_every_record_has_its_domain() -> None:
    assert {kind: set(fields) for kind, fields in DOMAINS.items()} == {kind: set(field_names(kind)) for kind in RECORDS}


def test_what_fits_is_stored_in_the_fields_own_type() -> None:
    wrong = [
        (kind.__name__, name, given, found)
        for kind, name, domain, good in every_field()
        for given, wanted in domain.takes
        if (found := stored(kind, good, with_fields(good, **{name: given}), name=name)) != (wanted, type(wanted))
    ]
    assert wrong == []


def test_what_does_not_fit_is_refused_by_row_and_field() -> None:
    wrong = [
        (kind.__name__, name, repr(bad)[:60], where)
        for kind, name, domain, good in every_field()
        for bad in domain.refuses
        if (where := place(refusal(kind, good, mapping(good), with_fields(good, **{name: bad}), good))) != (2, name)
    ]
    assert wrong == []


def test_a_bad_value_is_refused_in_a_record_as_in_a_mapping() -> None:
    wrong = [
        (kind.__name__, name)
        for kind, name, domain, good in every_field()
        if place(refusal(kind, good, kind(**with_fields(good, **{name: domain.refuses[0]})))) != (1, name)
    ]
    assert wrong == []


def test_none_is_for_optional_fields_only() -> None:
    for kind, name, domain, good in every_field():
        rows = good, with_fields(good, **{name: None})
        if domain.optional:
            assert columns(kind, rows)[name][1] is None, (kind, name)
        else:
            assert place(refusal(kind, *rows)) == (1, name), kind


def test_a_field_that_is_left_out_takes_its_default_or_is_missing() -> None:
    for kind, name, domain, good in every_field():
        row = mapping(good)
        del row[name]
        if domain.optional or name in DEFAULTS:
            assert columns(kind, [row])[name] == [DEFAULTS.get(name)], (kind, name)
        else:
            assert str(refusal(kind, good, row)) == f"row 1, {name}: is missing", kind


def test_a_reason_shows_the_value_but_not_all_of_a_long_one() -> None:
    for kind, name, _, good in every_field():
        error = refusal(kind, with_fields(good, **{name: ["a long one"] * 10_000}))
        assert error is not None, (kind, name)
        assert str(error) == f"row 0, {name}: {error.reason}", kind
        assert "a long one" in error.reason, (kind, name)
        assert len(error.reason) < 300, (kind, name)
