from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator
from itertools import product
from types import MappingProxyType
from typing import Any

import pytest

from arbstore.errors import ArbstoreError, ValidationError
from arbstore.records import BookTicker, Candle, Record, StoredBookTicker, Tick, Trade, columns
from tests.records.samples import SAMPLES, field_names, mapping, with_fields

TICKER = SAMPLES[BookTicker]


def refusal(kind: type[Record], rows: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        columns(kind, rows)
    return caught.value


def test_records_and_mappings_mix_in_one_batch() -> None:
    for kind in SAMPLES:
        sample = SAMPLES[kind]
        rows: list[Any] = [sample, mapping(sample), MappingProxyType(mapping(sample)), ChainMap({}, mapping(sample))]
        assert columns(kind, rows) == {name: [value] * 4 for name, value in mapping(sample).items()}


def test_what_is_fit_to_store_stays_as_it_is() -> None:
    for kind in SAMPLES:
        assert columns(kind, [SAMPLES[kind]]) == {name: [value] for name, value in mapping(SAMPLES[kind]).items()}


def test_an_empty_batch_has_all_its_columns() -> None:
    for kind in SAMPLES:
        assert columns(kind, []) == columns(kind, iter(())) == {name: [] for name in field_names(kind)}


def test_the_order_of_the_rows_is_kept() -> None:
    for kind in SAMPLES:
        ids = [3, 1, 2, 1]
        owner = "symbol_id" if "symbol_id" in field_names(kind) else "exchange_id"
        assert columns(kind, [with_fields(SAMPLES[kind], **{owner: number}) for number in ids])[owner] == ids


def test_a_batch_may_be_any_iterable_that_is_gone_after_one_pass() -> None:
    def feed() -> Iterator[Record]:
        yield TICKER
        yield TICKER

    assert columns(BookTicker, feed())["symbol_id"] == [1, 1]
    assert columns(BookTicker, {1: TICKER}.values())["symbol_id"] == [1]


def test_the_callers_rows_are_left_alone() -> None:
    row = with_fields(TICKER, bid_price="1.5")
    rows = [row]
    columns(BookTicker, rows)
    assert rows == [row]
    assert row["bid_price"] == "1.5"


def test_rows_are_counted_from_zero_across_records_and_mappings() -> None:
    rows = [TICKER, mapping(TICKER), BookTicker(**with_fields(TICKER, ask_qty=-1.0)), TICKER]
    assert refusal(BookTicker, rows).row == 2


def test_the_row_is_the_right_one_where_other_rows_have_none_in_the_field() -> None:
    rows = [with_fields(SAMPLES[Tick], volume=volume) for volume in (None, 1.0, None, -1.0)]
    assert refusal(Tick, rows).row == 3


def test_the_first_field_with_a_bad_value_is_named_then_the_first_row() -> None:
    rows = [with_fields(TICKER, ask_qty=-1), with_fields(TICKER, bid_price=0), with_fields(TICKER, bid_price=-1)]
    error = refusal(BookTicker, rows)
    assert (error.row, error.field) == (1, "bid_price")


def test_an_unknown_field_is_refused_and_the_known_ones_are_named() -> None:
    error = refusal(BookTicker, [TICKER, with_fields(TICKER, bid_size=1.0)])
    assert (error.row, error.field) == (1, "bid_size")
    assert "bid_qty" in error.reason


def test_a_key_that_is_no_text_is_an_unknown_field() -> None:
    assert refusal(BookTicker, [{**mapping(TICKER), 7: 1.0}]).field == "7"


@pytest.mark.parametrize("row", [None, 1, "BTCUSDT", [1, 2], SAMPLES[Trade], BookTicker], ids=repr)
def test_a_row_that_is_neither_record_nor_mapping_is_refused(row: object) -> None:
    error = refusal(BookTicker, [TICKER, row])
    assert error.row == 1
    assert "BookTicker or a mapping" in error.reason


def test_one_mapping_in_place_of_a_batch_is_refused() -> None:
    assert refusal(BookTicker, mapping(TICKER)).row == 0


def test_what_was_read_back_can_be_stored_again() -> None:
    names = {"exchange": "X_SPOT", "symbol_base": "BTC", "symbol_quote": "USDT", "exchange_symbol": "BTCUSDT"}
    stored = StoredBookTicker(**mapping(TICKER) | names)
    assert columns(BookTicker, [stored, TICKER]) == columns(BookTicker, [TICKER, TICKER])


def test_a_refusal_is_a_value_error_with_its_cause() -> None:
    error = refusal(BookTicker, [with_fields(TICKER, bid_price="abc")])
    assert isinstance(error, ValueError)
    assert isinstance(error, ArbstoreError)
    assert isinstance(error.__cause__, ValueError)


def test_a_candle_is_refused_exactly_when_its_prices_lie_outside_its_range() -> None:
    prices: tuple[Any, ...] = (1, 2.0, "3")
    for low, first, last, high in product(prices, repeat=4):
        candle = with_fields(SAMPLES[Candle], low=low, open=first, close=last, high=high)
        numbers = [float(price) for price in (low, first, last, high)]
        if numbers[0] == min(numbers) and numbers[3] == max(numbers):
            assert [columns(Candle, [candle])[name][0] for name in ("low", "open", "close", "high")] == numbers
        else:
            error = refusal(Candle, [SAMPLES[Candle], candle])
            assert error.row == 1
            assert error.field in {"low", "open", "close"}


def test_a_crossed_book_is_accepted() -> None:
    crossed = with_fields(TICKER, bid_price=101.0, ask_price=100.0)
    assert columns(BookTicker, [crossed])["bid_price"] == [101.0]
