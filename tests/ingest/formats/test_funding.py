from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from arbstore.errors import ConfigurationError
from arbstore.ingest.reading import Row
from arbstore.ingest.symbols import SymbolName
from tests.ingest.reading import rows, write

_UTC = timedelta(0)
_MOSCOW = timedelta(hours=3)
_SETTLED = "Symbol,Date,Funding Rate"


def _table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def _symbol(row: Row) -> SymbolName:
    ((field, name),) = row.owners
    assert field == "symbol_id"
    assert isinstance(name, SymbolName)
    return name


@pytest.mark.parametrize(("exchange", "offset"), [("binance", _MOSCOW), ("mexc", _MOSCOW), ("gate", _UTC)])
def test_settlements_are_at_zero_eight_and_sixteen_utc(recordings: Path, exchange: str, offset: timedelta) -> None:
    for path in recordings.glob(f"funding/*_{exchange}_*.csv"):
        found = rows(path, exchange="X_FUTURES", utc_offset=offset)
        times = [row.values["timestamp"] for row in found]
        first = datetime(2023, 11, 1, tzinfo=UTC)
        late = [time - first - timedelta(hours=8 * number) for number, time in enumerate(times)]
        # Binance settles a millisecond late at times, and says so.
        assert set(late) <= {timedelta(0), timedelta(milliseconds=1)}
        assert len(late) == 183
        assert [row.values["funding_time"] for row in found] == times
        rates = [Decimal(row.values["funding_rate"]) for row in found]
        assert rates == [Decimal(row["Funding Rate"]) for row in _table(path)]


def test_scientific_notation_is_exact(recordings: Path) -> None:
    path = recordings / "funding" / "ETH-USDT_gate_2023-11_2023-12.csv"
    first = rows(path, exchange="GATEIO_FUTURES", utc_offset=_UTC)[0]
    assert Decimal(first.values["funding_rate"]) == Decimal("0.000079")


def test_the_symbol_of_a_settled_rate_is_a_pair(recordings: Path) -> None:
    path = recordings / "funding" / "BTC-USDT_mexc_2023-11_2023-12.csv"
    name = _symbol(rows(path, exchange="MEXC_FUTURES", utc_offset=_MOSCOW)[0])
    assert name == SymbolName("MEXC_FUTURES", base="BTC", quote="USDT")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("BTC-USDT,2023-11-01 03:00:00,0.0001", "Date: .*say how far"),
        ("BTCUSDT,2023-11-01T03:00:00Z,0.0001", "not a pair such as BTC-USDT"),
        ("BTC-USDT-SWAP,2023-11-01T03:00:00Z,0.0001", "not a pair such as BTC-USDT"),
        ("BTC-USDT,yesterday,0.0001", "Invalid isoformat"),
    ],
)
def test_a_bad_settlement_says_what_is_wrong(tmp_path: Path, row: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rows(write(tmp_path / "funding.csv", _SETTLED, row), exchange="BINANCE_FUTURES")


def test_settled_rates_do_not_name_their_exchange(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not name its exchange"):
        rows(write(tmp_path / "funding.csv", _SETTLED))
