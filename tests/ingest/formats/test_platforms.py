from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from arbstore.database import Store
from arbstore.ingest import MalformedLineError, UnknownFormatError, read_listings
from arbstore.ingest.reading import Row
from arbstore.ingest.symbols import SymbolName, derive
from arbstore.records import Listing, SymbolType
from tests.ingest.reading import parsed, rows, write

_UTC = timedelta(0)
_SNAPSHOT = "date_time,platform,market_type,pairId,symbol,funding_rate,funding_rate_time,mark_price,index_price"
_HEADER = "date_time,platform,market_type,pairId,symbol,base,quote,mul,pmul,settleDate"


def _listed(recordings: Path, name: str) -> dict[str, Listing]:
    (listings,) = read_listings(recordings / "symbols" / f"pair_info_{name}_uFuture.csv").values()
    return {listing.exchange_symbol: listing for listing in listings}


def _one(tmp_path: Path, row: str) -> Listing:
    ((listing,),) = read_listings(write(tmp_path / "pair_info.csv", _HEADER, row)).values()
    return listing


def test_every_row_of_a_listing_is_a_symbol(recordings: Path) -> None:
    for name, exchange in (("binance", "BINANCE_FUTURES"), ("gate", "GATEIO_FUTURES")):
        path = recordings / "symbols" / f"pair_info_{name}_uFuture.csv"
        with path.open() as file:
            wanted = {row["symbol"]: (row["base"], row["quote"]) for row in csv.DictReader(file)}
        found = read_listings(path)
        assert list(found) == [exchange]
        assert {one.exchange_symbol: (one.symbol_base, one.symbol_quote) for one in found[exchange]} == wanted


def test_a_base_of_a_thousand_is_not_the_asset_itself(recordings: Path) -> None:
    binance, gate = _listed(recordings, "binance"), _listed(recordings, "gate")
    assert binance["1000SHIBUSDT"].symbol_base == "1000SHIB"
    assert gate["SHIB_USDT"].symbol_base == "SHIB"


def test_a_base_that_hides_its_multiple_gets_it(tmp_path: Path) -> None:
    row = "2024-03-14 21:39:46,binance,uFuture,SHIB_USDT,1000SHIBUSDT,SHIB,USDT,1,1000,4133404800000"
    assert _one(tmp_path, row).symbol_base == "1000SHIB"


def test_dated_contracts_expire_at_their_settlement(recordings: Path) -> None:
    dated = {name: one.expiry for name, one in _listed(recordings, "binance").items() if one.expiry is not None}
    assert dated == {
        f"{base}USDT_{day:%y%m%d}": day
        for base in ("BTC", "ETH")
        for day in (datetime(2024, 3, 29, 8, tzinfo=UTC), datetime(2024, 6, 28, 8, tzinfo=UTC))
    }
    assert _listed(recordings, "binance")["BTCUSDT_240329"].symbol_type is SymbolType.FUTURE


def test_perpetuals_settled_before_the_listing_are_delisted(recordings: Path) -> None:
    listed = _listed(recordings, "binance")
    delisted = {one.exchange_symbol for one in listed.values() if not one.is_active}
    assert delisted == {f"{base}USDT" for base in ("SRM", "HNT", "TOMO", "CVC", "BTS", "SC", "RAY", "FTT", "COCOS")}
    assert listed["FTTUSDT"].delisted_at == datetime(2022, 11, 14, 4, tzinfo=UTC)
    assert listed["FTTUSDT"].symbol_type is SymbolType.PERPETUAL


def test_a_dated_contract_that_has_expired_is_not_delisted(tmp_path: Path) -> None:
    row = "2024-07-14 21:39:46,binance,uFuture,BTC_USDT,BTCUSDT_240329,BTC,USDT,1,1,1711699200000"
    listing = _one(tmp_path, row)
    assert (listing.is_active, listing.delisted_at, listing.expiry) == (
        True,
        None,
        datetime(2024, 3, 29, 8, tzinfo=UTC),
    )


def test_a_settlement_that_is_announced_delists_nothing_yet(recordings: Path) -> None:
    strax = _listed(recordings, "binance")["STRAXUSDT"]
    assert (strax.is_active, strax.expiry, strax.delisted_at) == (True, None, None)


@pytest.mark.parametrize("settled", ["0", "4133404800000", ""])
def test_perpetuals_are_not_settled(tmp_path: Path, settled: str) -> None:
    listing = _one(tmp_path, f"2024-03-14 21:39:46,gate,uFuture,GAS_USDT,GAS_USDT,GAS,USDT,1.0,,{settled}")
    assert (listing.symbol_type, listing.expiry, listing.is_active) == (SymbolType.PERPETUAL, None, True)


def test_the_contract_size_is_the_multiplier(recordings: Path, tmp_path: Path) -> None:
    gate = _listed(recordings, "gate")
    assert (gate["BTC_USDT"].contract_size, gate["ZEC_USDT"].contract_size) == (0.0001, 0.01)
    row = "2024-03-14 21:39:46,gate,uFuture,X_USDT,X_USDT,X,USDT,1e-05,,0"
    assert _one(tmp_path, row).contract_size == 0.00001


def test_active_symbols_come_before_delisted_ones(recordings: Path) -> None:
    (listings,) = read_listings(recordings / "symbols" / "pair_info_binance_uFuture.csv").values()
    states = [listing.is_active for listing in listings]
    assert states == sorted(states, reverse=True)


async def test_a_whole_listing_can_be_registered(store: Store, recordings: Path) -> None:
    for platform in ("binance", "gate"):
        for name, listings in read_listings(recordings / "symbols" / f"pair_info_{platform}_uFuture.csv").items():
            exchange = await store.exchanges.add(name)
            assert len(await store.symbols.add_many(exchange.id, listings)) == len(listings)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2024-03-14,binance,option,A_B,AB,A,B,1,1,0", "market type 'option'"),
        ("2024-03-14,binance,uFuture,A_B,AB_240329,A,B,1,1,0", "dated contract without a settleDate"),
        ("2024-03-14,binance,uFuture,A_B,AB,A,B,1,1,soon", "invalid literal"),
        ("2024-03-14,binance,uFuture,A_B,AB,,B,1,1,0", "symbol_base: must be a ticker"),
        ("2024-03-14,binance,uFuture,A_B,AB", "has 5 cells, but the header has 10"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, reason: str) -> None:
    good = "2024-03-14,binance,uFuture,BTC_USDT,BTCUSDT,BTC,USDT,1,1,0"
    with pytest.raises(MalformedLineError, match=reason) as error:
        read_listings(write(tmp_path / "pair_info.csv", _HEADER, good, row))
    assert error.value.line == 3


def test_another_table_is_no_listing(recordings: Path) -> None:
    with pytest.raises(UnknownFormatError, match="no column base, mul, quote, settleDate"):
        read_listings(recordings / "symbols" / "pair_tickers.csv")


def _table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def _symbol(row: Row) -> SymbolName:
    ((field, name),) = row.owners
    assert field == "symbol_id"
    assert isinstance(name, SymbolName)
    return name


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
        ("2024-03-14 21:47:01,okx,uFuture,X_USDT,X,0.1,1710460800000,,", "date_time: .*say how far"),
        ("2024-03-14T21:47:01Z,okx,option,X_USDT,X,0.1,1710460800000,,", "market type 'option'"),
        ("2024-03-14T21:47:01Z,okx,uFuture,X_USDT,X,0.1,,,", "invalid literal for int"),
        ("2024-03-14T21:47:01Z,okx,uFuture,X_USDT,X,0.1,1710460800000,much,", "mark_price: must be a number"),
    ],
)
def test_a_bad_snapshot_says_what_is_wrong(tmp_path: Path, row: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rows(write(tmp_path / "pair_tickers.csv", _SNAPSHOT, row))
