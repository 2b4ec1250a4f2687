from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from arbstore.errors import ConfigurationError
from arbstore.ingest.rows import Row, SymbolName
from arbstore.ingest.symbols import derive
from tests.ingest.reading import parsed, rows, write

_UTC = timedelta(0)
_MOSCOW = timedelta(hours=3)
_SETTLED = "Symbol,Date,Funding Rate"
_SNAPSHOT = "date_time,platform,market_type,pairId,symbol,funding_rate,funding_rate_time,mark_price,index_price"


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
        ("BTC-USDT,2023-11-01 03:00:00,0.0001", "say with --utc-offset"),
        ("BTCUSDT,2023-11-01T03:00:00Z,0.0001", "no pair such as BTC-USDT"),
        ("BTC-USDT-SWAP,2023-11-01T03:00:00Z,0.0001", "no pair such as BTC-USDT"),
        ("BTC-USDT,yesterday,0.0001", "Invalid isoformat"),
    ],
)
def test_a_bad_settlement_says_what_is_wrong(tmp_path: Path, row: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rows(write(tmp_path / "funding.csv", _SETTLED, row), exchange="BINANCE_FUTURES")


def test_settled_rates_do_not_name_their_exchange(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--exchange"):
        rows(write(tmp_path / "funding.csv", _SETTLED))


def test_a_snapshot_is_read_as_it_stands(recordings: Path) -> None:
    path = recordings / "symbols" / "pair_tickers.csv"
    found = rows(path, utc_offset=_UTC)
    wanted = [row for row in _table(path) if row["funding_rate_time"] != "0"]
    assert len(found) == len(wanted) == 843
    for row, cells in zip(found, wanted, strict=True):
        assert _symbol(row).spelling == cells["symbol"]
        assert row.values == {
            "timestamp": datetime(2024, 3, 14, 21, 47, 1, tzinfo=UTC),
            "funding_time": datetime(2024, 3, 15, tzinfo=UTC),
            "funding_rate": cells["funding_rate"],
            "mark_price": _per_contract(cells, "mark_price"),
            "index_price": _per_contract(cells, "index_price"),
        }


def _per_contract(cells: dict[str, str], column: str) -> Decimal | None:
    units = 1000 if cells["symbol"].startswith("1000") else 1
    return Decimal(cells[column]) * units if cells[column] else None


def test_the_price_of_a_thousand_is_that_of_the_symbol(recordings: Path) -> None:
    found = rows(recordings / "symbols" / "pair_tickers.csv", exchange="BINANCE_FUTURES", utc_offset=_UTC)
    (row,) = [row for row in found if _symbol(row).spelling == "1000SHIBUSDT"]
    assert row.values["mark_price"] == Decimal("0.032158")


@pytest.mark.parametrize("pair", ["1INCH_USDT,1INCHUSDT", "1000SATS_USDT,1000SATSUSDT", "BTC_USDT,BTCUSDT"])
def test_the_price_of_a_name_that_is_the_assets_own_stays(tmp_path: Path, pair: str) -> None:
    line = f"2024-03-14T21:47:01Z,binance,uFuture,{pair},0.1,1710460800000,0.5,"
    (row,) = rows(write(tmp_path / "pair_tickers.csv", _SNAPSHOT, line))
    assert (row.values["mark_price"], row.values["index_price"]) == (Decimal("0.5"), None)


def test_platforms_become_exchanges(recordings: Path) -> None:
    exchanges = [_symbol(row).exchange for row in rows(recordings / "symbols" / "pair_tickers.csv", utc_offset=_UTC)]
    counts = {exchange: exchanges.count(exchange) for exchange in set(exchanges)}
    assert counts == {"BINANCE_FUTURES": 276, "GATEIO_FUTURES": 359, "OKX_FUTURES": 208}


def test_rows_of_other_exchanges_and_dated_contracts_are_told(recordings: Path) -> None:
    path = recordings / "symbols" / "pair_tickers.csv"
    found = [one for one in parsed(path, exchange="BINANCE_FUTURES", utc_offset=_UTC) if isinstance(one, str)]
    counts = {reason: found.count(reason) for reason in set(found)}
    assert counts == {"of GATEIO_FUTURES": 359, "of OKX_FUTURES": 208, "funding time 0 (dated contract)": 4}


def test_a_coin_and_a_thousand_of_it_are_different_symbols(recordings: Path) -> None:
    names = [_symbol(row) for row in rows(recordings / "symbols" / "pair_tickers.csv", utc_offset=_UTC)]
    bases = {derive(name).symbol_base for name in names if name.spelling and "SHIB" in name.spelling}
    assert bases == {"SHIB", "1000SHIB"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2024-03-14 21:47:01,okx,uFuture,X_USDT,X,0.1,1710460800000,,", "say with --utc-offset"),
        ("2024-03-14T21:47:01Z,okx,option,X_USDT,X,0.1,1710460800000,,", "market type 'option'"),
        ("2024-03-14T21:47:01Z,okx,uFuture,X_USDT,X,0.1,,,", "invalid literal for int"),
        ("2024-03-14T21:47:01Z,okx,uFuture,X_USDT,X,0.1,1710460800000,much,", "mark_price: must be a number"),
    ],
)
def test_a_bad_snapshot_says_what_is_wrong(tmp_path: Path, row: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rows(write(tmp_path / "pair_tickers.csv", _SNAPSHOT, row))
