"""`arbstore ingest`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine

HEADER = "exchange,base,quote,timestamp,bid_price,bid_qty,ask_price,ask_qty\n"
SPOT = ("--exchange", "BINANCE_SPOT")


@pytest.fixture
def quotes(tmp_path: Path) -> str:
    path = tmp_path / "quotes.csv"
    rows = [f"MEXC_SPOT,BTC,USDT,2024-08-08T12:00:0{second}Z,100,1,101,2\n" for second in (0, 1, 1)]
    path.write_text(HEADER + "".join(rows))
    return str(path)


@pytest.fixture
def damaged(tmp_path: Path) -> str:
    path = tmp_path / "damaged.csv"
    path.write_text(f"{HEADER}MEXC_SPOT,BTC,USDT,2024-08-08T12:00:00Z,100,1,101,2\nMEXC_SPOT,BTC,USDT,[noon],1,1,1,1\n")
    return str(path)


def test_a_table_goes_in_and_every_line_is_accounted_for(quotes: str, arbstore: CommandLine) -> None:
    report = arbstore.json("ingest", "--anyway", quotes)
    assert report["total"]["lines"] == 3
    assert report["total"]["results"] == {
        "book_tickers": {"given": 3, "written": 2, "superseded": 1, "too_late": 0, "too_late_minutes": 0}
    }
    assert report["files"][0]["path"] == quotes
    (registered,) = report["total"]["symbols"]
    assert (registered["exchange"], registered["symbol"]["symbol_base"], registered["derived"]) == (
        "MEXC_SPOT",
        "BTC",
        True,
    )
    assert [row["timestamp"] for row in arbstore.json("history", "MEXC_SPOT", "BTC", "USDT")] == [
        "2024-08-08T12:00:00Z",
        "2024-08-08T12:00:01Z",
    ]


def test_people_see_the_counts_and_what_was_registered(quotes: str, arbstore: CommandLine) -> None:
    text = arbstore("ingest", "--anyway", quotes).stdout
    lines = [line.split() for line in text.splitlines()]
    assert ["quotes.csv", "CSV", "3", "0", "0"] in lines
    assert ["book_tickers", "3", "2", "1"] in lines
    assert "registered exchange MEXC_SPOT" in text
    assert "(BTC/USDT, SPOT), derived from its name" in text


def test_a_malformed_line_stops_with_file_and_line(damaged: str, arbstore: CommandLine) -> None:
    result = arbstore("ingest", "--anyway", damaged, exits=1)
    assert f"{damaged}, line 3" in result.stderr
    assert "[noon]" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert arbstore.json("latest") == []


def test_a_malformed_line_is_counted_where_that_is_asked(damaged: str, arbstore: CommandLine) -> None:
    text = arbstore("ingest", "--anyway", damaged, "--skip-bad").stdout
    assert ["damaged.csv", "CSV", "2", "0", "1"] in [line.split() for line in text.splitlines()]
    assert "malformed: damaged.csv, line 3: " in text
    assert len(arbstore.json("latest")) == 1


def test_without_the_schema_the_error_names_the_remedy(quotes: str, empty: CommandLine) -> None:
    assert "`arbstore db upgrade`" in empty("ingest", "--anyway", quotes, exits=3).stderr


def test_the_embedded_database_gets_its_schema_first(quotes: str, scratch: Path) -> None:
    embedded = CommandLine(("--database", f"embedded:{scratch / 'pg'}"))
    first = embedded("ingest", "--anyway", quotes)
    assert "deployed the schema" in first.stderr
    assert "deployed" not in embedded("ingest", "--anyway", quotes).stderr
    assert len(embedded.json("latest")) == 1


def test_a_file_that_is_not_there_is_named(arbstore: CommandLine) -> None:
    assert "missing.csv" in arbstore("ingest", "--anyway", "missing.csv", exits=3).stderr


def test_times_without_a_zone_want_an_offset(tmp_path: Path, arbstore: CommandLine) -> None:
    path = tmp_path / "local.csv"
    path.write_text(f"{HEADER}MEXC_SPOT,BTC,USDT,2024-08-08 15:00:00,100,1,101,2\n")
    assert arbstore("ingest", "--anyway", str(path), exits=1).stderr
    assert "not an offset from UTC" in arbstore("ingest", "--anyway", str(path), "--utc-offset", "MSK", exits=2).stderr
    arbstore("ingest", "--anyway", str(path), "--utc-offset", "+03:00")
    assert arbstore.json("latest")[0]["timestamp"] == "2024-08-08T12:00:00Z"


def test_a_recording_is_dated_by_the_clock_that_is_chosen(recordings: Path, arbstore: CommandLine) -> None:
    path = str(recordings / "ticks" / "binance_usdm__ethusdt.jsonl.gz")
    exchange = ("--exchange", "BINANCE_FUTURES")
    by_exchange = arbstore.json("ingest", "--anyway", path, *exchange)["total"]["results"]
    by_local = arbstore.json("ingest", "--anyway", path, *exchange, "--clock", "local")["total"]["results"]
    assert by_exchange["trades"] == by_local["trades"]
    assert by_exchange["book_tickers"]["superseded"] > by_local["book_tickers"]["superseded"]


def test_quotes_without_a_time_of_the_exchange_are_counted(recordings: Path, arbstore: CommandLine) -> None:
    path = str(recordings / "ticks" / "binance_spot__ethusdt.jsonl.gz")
    text = arbstore("ingest", "--anyway", path, *SPOT).stdout
    assert "dated by the recorder's clock, because the exchange sent no time" in text
    assert "registered BINANCE_SPOT ETHUSDT (ETH/USDT, SPOT), derived from its name" in text


def test_of_many_registered_symbols_the_first_are_shown_and_the_others_counted(
    tmp_path: Path, arbstore: CommandLine
) -> None:
    path = tmp_path / "many.csv"
    path.write_text(HEADER + "".join(f"MEXC_SPOT,COIN{n},USDT,2024-08-08T12:00:00Z,100,1,101,2\n" for n in range(23)))
    text = arbstore("ingest", "--anyway", str(path)).stdout
    assert text.count("derived from its name") == 20
    assert "registered 3 more symbols" in text


def test_rows_older_than_what_is_kept_want_a_word(quotes: str, arbstore: CommandLine) -> None:
    result = arbstore("ingest", quotes, exits=1)
    for words in (quotes, "2024-08-08 12:00 UTC", "book_ticker_snapshots keeps 3 days", "--keep", "--anyway"):
        assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert arbstore.json("symbols") == []


def test_keep_says_what_it_keeps_for_good(quotes: str, arbstore: CommandLine) -> None:
    assert "book_ticker_snapshots is kept for good from now on" in arbstore("ingest", quotes, "--keep").stdout
    assert arbstore.json("db", "retention", "book_ticker_snapshots")[0]["keep_for"] is None
    assert arbstore.json("ingest", quotes)["total"]["lifted"] == []


def test_anyway_says_what_will_be_gone(quotes: str, arbstore: CommandLine) -> None:
    assert "older than the retention of book_ticker_snapshots" in arbstore("ingest", quotes, "--anyway").stdout
    assert arbstore.json("ingest", quotes, "--anyway")["total"]["expired"] == {"book_ticker_snapshots": 3}


def test_keep_and_anyway_exclude_one_another(quotes: str, bare: CommandLine) -> None:
    assert "use only one of them" in bare("ingest", quotes, "--keep", "--anyway", exits=2).stderr
