from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from arbstore.errors import ConfigurationError
from arbstore.ingest import Clock, IngestOptions
from arbstore.ingest.formats.binance import Recording
from arbstore.ingest.reading import Lines, Row
from arbstore.ingest.symbols import SymbolName
from arbstore.records import Side
from tests.ingest.reading import book_ticker, message, recorded, rows, trade, write

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL = datetime(2024, 8, 8, 23, 58, 20, 3145, tzinfo=UTC)
_EVENT = datetime(2024, 8, 8, 23, 58, 21, 274000, tzinfo=UTC)


def _parse(line: str, clock: Clock = Clock.EXCHANGE) -> Row | str:
    with closing(Lines(Path(__file__))) as lines:  # any file: what it holds does not matter here
        return Recording(lines, IngestOptions(exchange="BINANCE_FUTURES", clock=clock)).read(line.encode())


def _row(line: str, clock: Clock = Clock.EXCHANGE) -> Row:
    found = _parse(line, clock)
    assert isinstance(found, Row)
    return found


def test_the_exchange_dates_a_message_and_the_local_clock_its_receipt() -> None:
    for line in (book_ticker(), trade()):
        values = _row(line).values
        assert (values["timestamp"], values["created_at"]) == (_EVENT, _LOCAL)


def test_receipt_before_the_event_is_kept_as_it_is() -> None:
    values = _row(book_ticker()).values
    assert values["created_at"] < values["timestamp"]


def test_the_local_clock_dates_everything_on_demand() -> None:
    for line in (book_ticker(), trade(), book_ticker(T=None)):
        row = _row(line, Clock.LOCAL)
        assert row.values["timestamp"] == _LOCAL
        assert not row.dated_locally


def test_a_book_ticker_without_exchange_time_is_dated_locally_and_says_so() -> None:
    row = _row(book_ticker(T=None))
    assert row.values["timestamp"] == _LOCAL
    assert row.dated_locally


@pytest.mark.parametrize(("buyer_made", "side"), [(True, Side.SELL), (False, Side.BUY)])
def test_who_did_not_make_the_trade_is_the_aggressor(buyer_made: bool, side: Side) -> None:
    assert _row(trade(m=buyer_made)).values["side"] is side


def test_a_trade_without_a_source_is_one_of_the_book() -> None:
    assert _row(trade(X=None)).kind == "trades"


def test_ids_are_texts() -> None:
    assert _row(trade(t=3735688877)).values["trade_id"] == "3735688877"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (trade(X="INSURANCE_FUND"), "X=INSURANCE_FUND"),
        (trade(X="NA"), "X=NA"),
        ('1 {"lastUpdateId": 5, "bids": [["1", "2"]], "asks": []}', "no stream"),
        ('1 {"result": null, "id": 1}', "subscription answer"),
        ('1 {"stream": "btcusdt@depth@0ms", "data": {"e": "depthUpdate", "b": []}}', "depth"),
        ('1 {"stream": "btcusdt@aggTrade", "data": {"e": "aggTrade", "p": "1"}}', "aggTrade"),
        ('1 {"stream": "btcusdt@depth20", "data": {"bids": []}}', "depth20"),
        ('1 {"stream": "!ticker@arr", "data": [{"e": "24hrTicker"}]}', "arr"),
    ],
)
def test_what_is_no_market_data_is_told_by_its_reason(line: str, reason: str) -> None:
    assert _parse(line) == reason


def test_the_stream_of_all_symbols_holds_book_tickers_too() -> None:
    assert _row(book_ticker().replace("btcusdt@bookTicker", "!bookTicker")).kind == "book_tickers"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"stream": "btcusdt@trade"}', "local clock"),
        ("12x {}", "local clock"),
        ("1 ", "truncated"),
        ("1 [1]", "Expected `object`"),
        (book_ticker()[:-9], "truncated"),
        (book_ticker() + "}", "trailing characters"),
        (book_ticker(b=None), "missing required field `b`"),
        (book_ticker(b="1,5"), r"Expected `float`.*\$\.b"),
        (book_ticker(b=""), r"Expected `float`.*\$\.b"),
        (trade(T=None), "missing required field `T`"),
        (trade(m="maybe"), r"Expected `bool`"),
        (trade(t=1.5), r"Expected `int`"),
        ('1 {"stream": "btcusdt@trade"}', "truncated"),
    ],
)
def test_a_malformed_line_says_what_is_wrong(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        _parse(line)


def test_a_recording_does_not_name_its_exchange(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"a\.jsonl does not name its exchange") as error:
        rows(write(tmp_path / "a.jsonl", trade()))
    assert error.value.parameter == "exchange"


def test_every_recorded_message_is_read_as_it_stands(recordings: Path) -> None:
    for path in sorted(recordings.glob("ticks/*.jsonl.gz")):
        found = rows(path, exchange="BINANCE_FUTURES")
        wanted = recorded(path)
        assert len(found) == len(wanted)
        for row, (local, data) in zip(found, wanted, strict=True):
            assert _as_recorded(row) == _independently(local, data)


def _as_recorded(row: Row) -> dict[str, Any]:
    ((_, name),) = row.owners
    assert isinstance(name, SymbolName)
    micro = timedelta(microseconds=1)
    times = {name: (row.values[name] - _EPOCH) // micro for name in ("timestamp", "created_at")}
    return {**row.values, **times, "kind": row.kind, "symbol": name.spelling, "spot": row.dated_locally}


def _independently(local: int, data: dict[str, Any]) -> dict[str, Any]:
    shared = {"symbol": data["s"], "created_at": local // 1000, "spot": "T" not in data}
    shared["timestamp"] = data["T"] * 1000 if "T" in data else local // 1000
    if "t" not in data:
        fields = {"bid_price": "b", "bid_qty": "B", "ask_price": "a", "ask_qty": "A"}
        return {**shared, "kind": "book_tickers", **{name: float(data[key]) for name, key in fields.items()}}
    numbers = {"price": float(data["p"]), "quantity": float(data["q"])}
    side = "sell" if data["m"] else "buy"
    return {**shared, "kind": "trades", "trade_id": json.dumps(data["t"]), "side": side, **numbers}


def test_the_quantities_of_coin_margined_symbols_are_contracts(recordings: Path) -> None:
    first = rows(recordings / "ticks" / "binance_coinm__btcusd_perp.jsonl.gz", exchange="BINANCE_COINM_FUTURES")[0]
    assert (first.values["bid_qty"], first.values["ask_qty"]) == (1705.0, 1179.0)


def test_other_events_may_have_any_data() -> None:
    assert _parse(message("kline_1m", {"e": "kline"})) == "kline_1m"
