from __future__ import annotations

from pathlib import Path

import pytest

from arbstore.ingest import IngestOptions, UnknownFormatError, formats
from arbstore.ingest.formats import open_file
from arbstore.ingest.reading import Format, Lines, Row
from arbstore.ingest.symbols import SymbolName
from tests.ingest.reading import BOOK_TICKER, book_ticker, rows, write

_OBJECT = '{"exchange": "X_SPOT", "base": "A", "quote": "B", "bid": 1, "ask": 2, "timestamp": "2024-01-01T00:00:00Z"}'


def _format(path: Path) -> str:
    with open_file(path, IngestOptions(exchange="X_SPOT")) as file:
        return file.name


def test_every_recording_is_known_by_name_and_content(recordings: Path) -> None:
    found = {path.name: _format(path) for path in recordings.glob("*/*") if not path.name.startswith("pair_info")}
    assert {name.split("__")[0]: what for name, what in found.items() if "__" in name} == dict.fromkeys(
        ("binance_spot", "binance_usdm", "binance_coinm"), "Binance websocket recording"
    )
    assert found["BTC-USDT_gate_2023-11_2023-12.csv"] == "settled funding rates"
    assert found["pair_tickers.csv"] == "funding rates of platforms"
    assert found["fxcm_eurusd_tick_20140504.zip"] == "Lean ticks"
    assert found["coinbase_btcusd_daily_trade.zip"] == "Lean candles of 1d"


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.ndjson", "a.NDJSON", "2024.08.08.jsonl"])
def test_lines_of_json_are_told_by_their_beginning(tmp_path: Path, name: str) -> None:
    assert _format(write(tmp_path / name, book_ticker())) == "Binance websocket recording"
    assert _format(write(tmp_path / name, _OBJECT)) == "NDJSON"


def test_a_recording_that_begins_in_the_middle_of_a_line_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", str(BOOK_TICKER)[20:], book_ticker())
    assert _format(path) == "Binance websocket recording"


class _Quotes(Format):
    name = "quotes, one a line"
    endings = (".quotes",)
    opens = Lines

    def read(self, line: bytes) -> Row:
        symbol, bid, ask = line.decode().split()
        return Row("ticks", (("symbol_id", SymbolName(self.exchange, symbol)),), {"bid": bid, "ask": ask})


def test_a_new_format_is_a_class_and_a_line_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, _Quotes))
    (row,) = rows(write(tmp_path / "a.quotes", "BTCUSDT 1 2"), exchange="X_SPOT")
    assert row.owners == (("symbol_id", SymbolName("X_SPOT", "BTCUSDT")),)


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a", "a.gz", "a.parquet.gz", "a.zip.gz", "csv"])
def test_an_unknown_format_says_which_are_known(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownFormatError, match=r"no known format.*Binance.*\.jsonl\.gz.*Lean.*\.zip.*CSV.*\.parquet"):
        _format(write(tmp_path / name, "1"))


def test_a_listing_is_given_as_one(recordings: Path) -> None:
    with pytest.raises(UnknownFormatError, match="give it as the listing of symbols") as error:
        _format(recordings / "symbols" / "pair_info_gate_uFuture.csv")
    assert error.value.parameter == "symbols"
