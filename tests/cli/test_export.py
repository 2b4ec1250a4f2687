"""`arbstore history --out`."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped] # it has no types
import pytest

from tests.cli.conftest import CommandLine

PAIR = ("BINANCE_SPOT", "BTC", "USDT")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "rows.parquet"


@pytest.fixture(autouse=True)
def _the_folder_is_there(out: Path) -> None:
    out.parent.mkdir()


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def test_all_rows_go_into_the_file_oldest_first(market: CommandLine, out: Path) -> None:
    shown = market("history", "book-tickers", *PAIR, "--out", str(out)).stdout
    assert shown == f"{out}: 30 rows, {out.stat().st_size / 1000:.3g} kB\n"
    assert [row["bid_price"] for row in rows(out)] == [float(bid) for bid in range(100, 130)]


def test_a_window_is_that_of_the_command(market: CommandLine, out: Path) -> None:
    window = ("--since", "2024-08-08T12:00:03", "--until", "2024-08-08T12:00:09", "--limit", "2")
    shown = market.json("history", *PAIR, *window, "--out", str(out))
    assert shown == {"file": str(out), "rows": 2, "bytes": out.stat().st_size}
    assert [row["bid_price"] for row in rows(out)] == [107.0, 108.0]


def test_decimals_are_exact_unless_floats_are_wanted(market: CommandLine, out: Path) -> None:
    of = ("history", "balances", "BINANCE_SPOT", "USDT", "--out", str(out))
    market(*of)
    assert str(rows(out)[0]["available_balance"]) == "1.000000000000000001"
    market(*of, "--force", "--floats")
    assert rows(out)[0]["available_balance"] == 1.0


def test_the_file_of_a_symbol_by_its_id_is_that_of_its_pair(market: CommandLine, out: Path) -> None:
    (symbol,) = market.json("symbols", "--exchange", "BINANCE_SPOT")
    other = out.with_name("other.parquet")
    for part in ((), ("candles", "--timeframe", "1h")):
        kind, timeframe = part[:1], part[1:]
        market("history", *kind, "--symbol-id", str(symbol["id"]), *timeframe, "--out", str(out), "--force")
        market("history", *kind, *PAIR, *timeframe, "--out", str(other), "--force")
        # A symbol's candles are of all timeframes unless one is named.
        assert [row for row in rows(out) if row.get("timeframe", "1h") == "1h"] == rows(other)


@pytest.mark.parametrize("source", ["trades", "quotes"])
def test_candles_of_rows_are_those_of_the_command(market: CommandLine, out: Path, source: str) -> None:
    of = ("history", "candles", *PAIR, "--timeframe", "1m", "--origin", source)
    shown = market.json(*of)
    market(*of, "--out", str(out))
    assert [row["close"] for row in rows(out)] == [row["close"] for row in shown]
    assert shown


@pytest.mark.parametrize(
    ("kind", "series"),
    [
        ("funding_rates", PAIR),
        ("balances", ("BINANCE_SPOT", "USDT")),
        ("candles", (*PAIR, "--timeframe", "1m")),
    ],
)
def test_another_database_takes_the_file_in(
    kind: str, series: tuple[str, ...], market: CommandLine, arbstore: CommandLine, out: Path
) -> None:
    market("history", kind, *series, "--out", str(out))
    arbstore("ingest", str(out), "--kind", kind, "--anyway")
    there, here = (line.json("history", kind, *series, "--limit", "100") for line in (market, arbstore))
    assert [comparable(row) for row in here] == [comparable(row) for row in there]


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row without the ids, which are each database's own, and decimals as the numbers they are."""
    decimals = ("_balance", "_rate", "_price")
    return {
        name: Decimal(value) if name.endswith(decimals) and value is not None else value
        for name, value in row.items()
        if name not in {"symbol_id", "exchange_id"}
    }


def test_a_file_that_is_there_stays_unless_it_is_forced(market: CommandLine, out: Path) -> None:
    out.write_text("mine")
    refused = market("history", *PAIR, "--out", str(out), exits=2)
    assert "exists: --force replaces it" in refused.stderr
    assert out.read_text() == "mine"
    market("history", *PAIR, "--out", str(out), "--force")
    assert len(rows(out)) == 30


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--out", "rows.csv"), "give it a name ending in .parquet"),
        (("--out", "nowhere/rows.parquet"), "nowhere is not a folder"),
        (("--force",), "goes with --out only"),
        (("--floats",), "goes with --out only"),
    ],
)
def test_what_cannot_be_a_file_of_rows_is_a_usage_error(
    words: tuple[str, ...], reason: str, market: CommandLine
) -> None:
    assert reason in market("history", *PAIR, *words, exits=2).stderr


def test_what_is_not_registered_leaves_no_file(market: CommandLine, out: Path) -> None:
    result = market("history", "BINANCE_SPOT", "NO", "USDT", "--out", str(out), exits=4)
    assert "is not registered" in result.stderr
    assert list(out.parent.iterdir()) == []
