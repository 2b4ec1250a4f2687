from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as arrow  # type: ignore[import-untyped] # it has no types
import pyarrow.parquet as parquet  # type: ignore[import-untyped] # it has no types
import pytest

from arbstore.database import Database
from arbstore.errors import ConfigurationError
from arbstore.ingest import IngestOptions, MalformedLineError, UnknownFormatError
from arbstore.ingest.formats import tables
from arbstore.ingest.formats.tables import deduce
from arbstore.ingest.symbols import SymbolName
from arbstore.kinds import KINDS, TRADES, Kind
from arbstore.records import Snapshot, SymbolType
from tests.ingest.reading import ingested, parsed, rows, write

_PATH = Path("a.csv")
_TIME = "2024-08-08T12:00:00Z"
_PAIR = {"exchange": "MEXC_SPOT", "base": "BTC", "quote": "USDT", "timestamp": _TIME}
_OWN = {"exchange": "MEXC_SPOT", "timestamp": _TIME}
# The smallest table of each kind.
_SMALLEST: dict[str, dict[str, Any]] = {
    "book_tickers": {**_PAIR, "bid_price": 1.5, "bid_qty": 2, "ask_price": 1.6, "ask_qty": 3},
    "trades": {**_PAIR, "trade_id": "7", "price": 1.5, "quantity": 2, "side": "buy"},
    "funding_rates": {**_PAIR, "funding_rate": "7.9e-05", "funding_time": "2024-08-08T16:00:00Z"},
    "ticks": {**_PAIR, "bid": 1.5, "ask": 1.6},
    "candles": {**_PAIR, "timeframe": "1m", "open": 2, "high": 3, "low": 1, "close": 2},
    "balances": {**_OWN, "asset_name": "ETH", "available_balance": "1.123456789012345678"},
    "opportunities": {
        **{name: value for name, value in _PAIR.items() if name != "exchange"},
        "buy_exchange": "MEXC_SPOT",
        "sell_exchange": "GATEIO_SPOT",
        "buy_price": 1.5,
        "sell_price": 1.6,
        "quantity": 1,
        "spread_bps": 5,
    },
    "order_flow": {
        **_PAIR,
        "window_seconds": 5,
        "ofi_score": -2.5,
        "microprice": 1.5,
        "mid_price": 1.5,
        "spread_bps": 1,
        "book_imbalance": 0.5,
    },
    "collectors": {**_OWN, "collector": "ws", "status": "running"},
}


def _csv(path: Path, *table: dict[str, Any]) -> Path:
    return write(path, *(",".join(map(str, cells)) for cells in ([*table[0]], *(row.values() for row in table))))


def _ndjson(path: Path, *table: dict[str, Any]) -> Path:
    return write(path, *(json.dumps(row) for row in table))


def _stored(values: dict[str, Any]) -> dict[str, Any]:
    """Return what a record should hold: what stood in the file, as the record's types."""
    times = {"timestamp", "funding_time"}
    names = {"exchange", "base", "quote", "buy_exchange", "sell_exchange"}
    decimals = {"funding_rate", "available_balance"}
    return {
        name: datetime.fromisoformat(value) if name in times else Decimal(value) if name in decimals else value
        for name, value in values.items()
        if name not in names
    }


@pytest.mark.parametrize(("kind", "make"), [*((kind, _csv) for kind in KINDS), ("funding_rates", _ndjson)])
async def test_every_kind_is_deduced_from_its_columns_and_stored(
    db: Database, tmp_path: Path, kind: str, make: Any
) -> None:
    name = "a.csv.gz" if make is _csv else "a.ndjson"
    report = await ingested(db, make(tmp_path / name, _SMALLEST[kind]))
    assert report.results[kind].written == 1
    async with db.begin() as store:
        (found,) = await getattr(store, kind).latest()
    wanted = _stored(_SMALLEST[kind])
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert found.exchange == "MEXC_SPOT"


def test_every_kind_has_a_smallest_table() -> None:
    assert _SMALLEST.keys() == KINDS.keys()


class _Spread(Snapshot, frozen=True, kw_only=True):
    buy_exchange_id: int
    sell_exchange_id: int
    timestamp: datetime
    spread: Decimal
    seen_at: datetime | None = None


@pytest.mark.parametrize("make", [_csv, _ndjson])
def test_a_new_series_needs_no_more_than_its_row_in_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    kind: Kind[Any, Any] = Kind("spreads", _Spread, _Spread, "nowhere:Spread")
    monkeypatch.setattr(tables, "KINDS", {**KINDS, "spreads": kind})
    line = {"buy_exchange": "mexc_spot", "sell_exchange": "GATEIO_SPOT", "spread": "0.5"}
    (row,) = rows(
        make(tmp_path / ("a.csv" if make is _csv else "a.ndjson"), line | {"timestamp": _TIME, "seen_at": _TIME})
    )
    assert row.kind == "spreads"
    assert dict(row.owners) == {
        "buy_exchange_id": "MEXC_SPOT",
        "sell_exchange_id": "GATEIO_SPOT",
    }
    noon = datetime.fromisoformat(_TIME)
    assert row.values == {"spread": "0.5", "timestamp": noon, "seen_at": noon}


async def test_what_history_returned_can_be_ingested(db: Database, tmp_path: Path) -> None:
    await ingested(db, _ndjson(tmp_path / "a.ndjson", _SMALLEST["trades"] | {"trade_id": 7}))
    async with db.begin() as store:
        history = await store.trades.history("MEXC_SPOT", "BTC", "USDT")
    exported = [msgspec.to_builtins(trade) | {"symbol_id": 999, "price": 2.5} for trade in history]
    report = await ingested(db, _ndjson(tmp_path / "b.ndjson", *exported))
    assert (report.results["trades"].written, report.symbols) == (1, [])
    async with db.begin() as store:
        again = await store.trades.history("MEXC_SPOT", "BTC", "USDT")
    assert [trade.price for trade in again] == [2.5]
    assert [trade.created_at for trade in again] == [trade.created_at for trade in history]


def test_an_empty_cell_is_a_value_that_is_not_there(tmp_path: Path) -> None:
    row = _SMALLEST["balances"] | {"locked_balance": "", "created_at": ""}
    assert rows(_csv(tmp_path / "a.csv", row))[0].values.keys() == {"asset_name", "available_balance", "timestamp"}


async def test_an_empty_cell_of_a_required_column_is_malformed(db: Database, tmp_path: Path) -> None:
    path = _csv(tmp_path / "a.csv", _SMALLEST["trades"], _SMALLEST["trades"] | {"price": ""})
    with pytest.raises(MalformedLineError, match="line 3: price: is missing"):
        await ingested(db, path)


def test_numbers_of_json_keep_their_digits(tmp_path: Path) -> None:
    line = json.dumps(_SMALLEST["balances"]).replace('"1.123456789012345678"', "1.123456789012345678")
    assert rows(write(tmp_path / "a.ndjson", line))[0].values["available_balance"] == Decimal("1.123456789012345678")


async def test_parquet_is_a_table_too(db: Database, tmp_path: Path) -> None:
    times = [datetime(2024, 8, 8, 12, minute) for minute in (0, 1, 2)]  # noqa: DTZ001 # as files have them
    columns = {
        "timestamp": times,
        "base": ["BTC"] * 3,
        "quote": ["USDT"] * 3,
        "open": [2.0] * 3,
        "high": [3.0] * 3,
        "low": [1.0] * 3,
        "close": [2.5] * 3,
        "volume": [None, 1.0, 2.0],
        "num_trades": [1, 2, 3],
    }
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
    options = {"exchange": "mexc_spot", "timeframe": "1m", "utc_offset": timedelta(hours=8)}
    report = await ingested(db, tmp_path / "a.parquet", **options)
    assert (report.lines, report.results["candles"].written) == (3, 3)
    async with db.begin() as store:
        found = await store.candles.history("MEXC_SPOT", "BTC", "USDT", "1m")
    assert [(candle.timestamp, candle.volume, candle.num_trades) for candle in found] == [
        (datetime(2024, 8, 8, 4, minute, tzinfo=UTC), volume, minute + 1)
        for minute, volume in enumerate([None, 1.0, 2.0])
    ]


def test_a_symbol_is_a_pair_or_a_spelling(tmp_path: Path) -> None:
    base = {name: value for name, value in _SMALLEST["trades"].items() if name not in ("base", "quote")}
    dated = base | {"exchange_symbol": "BTC-X", "symbol_type": "future", "expiry": "2024-09-27T08:00:00Z"}
    named = rows(_csv(tmp_path / "a.csv", dated))[0].owners
    expiry = datetime(2024, 9, 27, 8, tzinfo=UTC)
    assert named == (("symbol_id", SymbolName("MEXC_SPOT", "BTC-X", symbol_type=SymbolType.FUTURE, expiry=expiry)),)
    paired = rows(_csv(tmp_path / "a.csv", _SMALLEST["trades"] | {"base": "btc "}))[0].owners
    assert paired == (("symbol_id", SymbolName("MEXC_SPOT", base="BTC", quote="USDT")),)


def test_an_opportunity_has_two_exchanges(tmp_path: Path) -> None:
    owners = dict(rows(_csv(tmp_path / "a.csv", _SMALLEST["opportunities"]))[0].owners)
    assert owners["symbol_id"] == SymbolName("MEXC_SPOT", base="BTC", quote="USDT")
    assert owners["buy_exchange_id"] == "MEXC_SPOT"
    assert owners["sell_exchange_id"] == "GATEIO_SPOT"


def test_rows_of_other_exchanges_are_told(tmp_path: Path) -> None:
    path = _csv(tmp_path / "a.csv", _SMALLEST["ticks"], _SMALLEST["ticks"] | {"exchange": "gateio_spot"})
    assert [str(one) for one in parsed(path, exchange="MEXC_SPOT")][1:] == ["of GATEIO_SPOT"]


def test_blank_lines_are_told(tmp_path: Path) -> None:
    path = _csv(tmp_path / "a.csv", _SMALLEST["ticks"])
    path.write_text(path.read_text() + "\n,,,,,\n")
    assert parsed(path)[1:] == ["blank line", "blank line"]


@pytest.mark.parametrize(
    ("kind", "changes", "options", "reason"),
    [
        (None, {"prize": 1}, {}, "^a.csv: the columns.*closest is trades: prize is not a column of it$"),
        (None, {"side": None}, {}, "closest is trades: side is missing$"),
        (None, {"exchange": None}, {}, "exchange is missing"),
        (None, {"base": None, "symbol_id": 1}, {}, "base is missing"),
        ("trades", {"a": 1, "b": 2}, {}, "a is not a column of it; b is not a column of it"),
        ("ticks", {}, {}, "closest is ticks: .*price is not a column of it.*bid is missing"),
    ],
)
def test_columns_that_fit_nothing_are_named(
    kind: str | None, changes: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    columns = [name for name, value in (_SMALLEST["trades"] | changes).items() if value is not None]
    with pytest.raises(UnknownFormatError, match=reason):
        deduce(_PATH, columns, IngestOptions(kind=kind, **options))


def test_a_kind_there_is_not_is_told() -> None:
    with pytest.raises(ConfigurationError, match="kind quotes is unknown: known are book_tickers, trades") as error:
        deduce(_PATH, ["price"], IngestOptions(kind="quotes"))
    assert error.value.parameter == "kind"


def test_the_exchange_of_the_options_stands_for_a_column() -> None:
    assert deduce(_PATH, set(_SMALLEST["trades"]) - {"exchange"}, IngestOptions(exchange="MEXC_SPOT")) is TRADES


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"timestamp": "2024-08-08 12:00:00"}, "timestamp: .*no time zone: say how far"),
        ({"timestamp": 1723118400000}, "timestamp: 1723118400000 is not a time.*ambiguous"),
        ({"timestamp": "noon"}, "timestamp: Invalid isoformat"),
        ({"exchange": 5}, "exchange: must be a text"),
        ({"exchange": None}, "exchange: is missing"),
        ({"base": None}, "names no symbol"),
        ({"symbol_type": "swap"}, "'SWAP' is not a valid SymbolType"),
    ],
)
def test_a_bad_row_says_what_is_wrong(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rows(_ndjson(tmp_path / "a.ndjson", _SMALLEST["trades"], _SMALLEST["trades"] | changes))


def test_a_missing_exchange_to_sell_on_is_not_the_one_to_buy_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sell_exchange: is missing"):
        rows(_csv(tmp_path / "a.csv", _SMALLEST["opportunities"] | {"sell_exchange": ""}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"price": -1}, "price: must be > 0 and finite, is -1"),
        ({"price": "x"}, "price: must be a number, is 'x'"),
        ({"side": "both"}, "side: must be one of buy, sell"),
        ({"prize": 1}, "prize: is not a field of Trade"),
        ({"exchange": "MEXC"}, "exchange: must be {EXCHANGE_NAME}_{MARKET_TYPE}"),
        ({"timestamp": "2999-01-01T00:00:00Z"}, "timestamp: .*too far in the future"),
    ],
)
async def test_a_row_that_cannot_be_stored_is_named_by_its_line(
    db: Database, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = _ndjson(tmp_path / "a.ndjson", _SMALLEST["trades"], _SMALLEST["trades"] | changes)
    with pytest.raises(MalformedLineError, match=f"line 2: {reason}"):
        await ingested(db, path)
    report = await ingested(db, path, skip_bad=True)
    assert (report.bad, report.results["trades"].written) == (1, 1)
