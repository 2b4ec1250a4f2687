from __future__ import annotations

import zipfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from arbstore.errors import ConfigurationError
from arbstore.ingest import UnknownFormatError
from arbstore.ingest.symbols import SymbolName
from arbstore.records import Candle, columns
from tests.ingest.reading import rows

_UTC = timedelta(0)
_EST = timedelta(hours=-5)
_QUOTES = "20140505_eurusd_minute_quote.csv"
_TICKS = "20140504_eurusd_tick_quote.csv"


def _content(path: Path) -> list[list[str]]:
    with zipfile.ZipFile(path) as archive:
        return [line.split(",") for line in archive.read(archive.namelist()[0]).decode().split()]


def _zip(path: Path, member: str, *lines: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "\n".join(lines))
    return path


@pytest.mark.parametrize(("broker", "offset"), [("oanda", _UTC), ("fxcm", _EST)])
def test_ticks_are_milliseconds_of_the_brokers_day(recordings: Path, broker: str, offset: timedelta) -> None:
    path = recordings / "fx" / f"{broker}_eurusd_tick_20140504.zip"
    midnight = datetime(2014, 5, 4, tzinfo=UTC) - offset
    wanted = [
        {"timestamp": midnight + timedelta(milliseconds=int(time)), "bid": float(bid), "ask": float(ask)}
        for time, bid, ask in _content(path)
    ]
    found = rows(path, exchange="X_FOREX", utc_offset=offset)
    assert [row.values for row in found] == wanted
    assert {row.kind for row in found} == {"ticks"}


def test_locked_and_crossed_quotes_are_kept(recordings: Path) -> None:
    path = recordings / "fx" / "fxcm_eurusd_tick_20140504.zip"
    found = rows(path, exchange="FXCM_FOREX", utc_offset=_EST)
    crossed = [row for row in found if row.values["bid"] >= row.values["ask"]]
    assert len(crossed) == len([1 for _, bid, ask in _content(path) if Decimal(bid) >= Decimal(ask)])
    assert crossed


def test_the_symbol_is_in_the_name_of_the_file(recordings: Path) -> None:
    first = rows(recordings / "fx" / "oanda_eurusd_tick_20140504.zip", exchange="OANDA_FOREX", utc_offset=_UTC)[0]
    assert first.owners == (("symbol_id", SymbolName("OANDA_FOREX", "EURUSD")),)


@pytest.mark.parametrize(
    ("name", "timeframe", "first"),
    [
        ("coinbase_btcusd_daily_trade.zip", "1d", datetime(2014, 12, 1, tzinfo=UTC)),
        ("coinbase_btcusd_minute_20180404_trade.zip", "1m", datetime(2018, 4, 4, tzinfo=UTC)),
    ],
)
def test_bars_of_trades_are_candles_with_volume(recordings: Path, name: str, timeframe: str, first: datetime) -> None:
    path = recordings / "candles" / name
    found = [row.values for row in rows(path, exchange="COINBASE_SPOT", utc_offset=_UTC)]
    names = ("open", "high", "low", "close", "volume")
    # "20141201 00:00" is split at the blank.
    wanted = [tuple(map(float, cells[-5:])) for cells in _content(path) if len(cells) > 1]
    assert [tuple(row[name] for name in names) for row in found] == wanted
    assert found[0]["timestamp"] == first
    assert {row["timeframe"] for row in found} == {timeframe}


@pytest.mark.parametrize(
    "name", ["fx/oanda_eurusd_minute_20140505.zip", "candles/coinbase_btcusd_minute_20180404_quote.zip"]
)
def test_bars_of_quotes_are_candles_of_the_mid_without_volume(recordings: Path, name: str) -> None:
    found = [row.values for row in rows(recordings / name, exchange="X_FOREX", utc_offset=_UTC)]
    wanted = [
        [float((Decimal(bid) + Decimal(ask)) / 2) for bid, ask in zip(cells[1:5], cells[6:10], strict=True)]
        for cells in _content(recordings / name)
    ]
    assert [[row[name] for name in ("open", "high", "low", "close")] for row in found] == wanted
    assert {row["volume"] for row in found} == {None}


def test_candles_of_the_mid_are_candles(recordings: Path) -> None:
    """Open and close lie between low and high, minute by minute."""
    path = recordings / "fx" / "oanda_eurusd_minute_20140505.zip"
    found = rows(path, exchange="OANDA_FOREX", utc_offset=_UTC)
    assert len(columns(Candle, [row.values | {"symbol_id": 1} for row in found])["open"]) == len(_content(path))


def test_minutes_without_a_trade_stay_missing(recordings: Path) -> None:
    path = recordings / "candles" / "coinbase_btcusd_minute_20180404_trade.zip"
    assert len(rows(path, exchange="COINBASE_SPOT", utc_offset=_UTC)) == len(_content(path)) == 1007


def test_times_need_an_offset(recordings: Path) -> None:
    for name in ("fx/oanda_eurusd_tick_20140504.zip", "candles/coinbase_btcusd_daily_trade.zip"):
        with pytest.raises(ValueError, match="has no time zone: say how far"):
            rows(recordings / name, exchange="X_FOREX")


def test_the_exchange_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not name its exchange"):
        rows(_zip(tmp_path / "a.zip", _TICKS))


def test_the_length_of_bars_of_years_comes_from_the_name_or_the_options(tmp_path: Path) -> None:
    line = "20141201 00:00,300,370,300,370,0.05"
    with pytest.raises(UnknownFormatError, match="give the timeframe") as error:
        rows(_zip(tmp_path / "btcusd_trade.zip", "btcusd.csv", line), exchange="X_SPOT", utc_offset=_UTC)
    assert error.value.parameter == "timeframe"
    options = {"exchange": "X_SPOT", "utc_offset": _UTC, "timeframe": "4h"}
    assert rows(tmp_path / "btcusd_trade.zip", **options)[0].values["timeframe"] == "4h"
    (tmp_path / "hour").mkdir()
    path = _zip(tmp_path / "hour" / "btcusd_trade.zip", "btcusd.csv", line)
    assert rows(path, **options)[0].values["timeframe"] == "1h"


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("readme.txt", "expected a name like"),
        ("20140599_eurusd_tick_quote.csv", "is not a date"),
        ("20140505_btcusd_tick_trade.csv", "without ids"),
    ],
)
def test_a_zip_of_something_else_is_told(tmp_path: Path, member: str, reason: str) -> None:
    with pytest.raises(UnknownFormatError, match=reason):
        rows(_zip(tmp_path / "a.zip", member), exchange="X_FOREX", utc_offset=_UTC)


@pytest.mark.parametrize(
    ("member", "line", "reason"),
    [
        (_TICKS, "1,1.5", "has 2 cells, but a tick has"),
        *((_TICKS, f"{time},1.5,1.6", "not a count of milliseconds") for time in ("86400000", "-1", "1.5", "", "x")),
        (_TICKS, "1,1.5,x", "could not convert"),
        (_TICKS, "1,1.5,é", "ascii"),
        (_QUOTES, "0,1,1,1,1", "has 5 cells, but a bar"),
        (_QUOTES, "0,1,1,1,1,0,x,1,1,1,0", "must be numbers"),
        (_QUOTES, "0,0,1,1,1,0,2,1,1,1,0", "must be > 0"),
        (_QUOTES, "0,nan,1,1,1,0,2,1,1,1,0", "must be > 0"),
        ("btcusd.csv", "2014-12-01,1,1,1,1,1", "does not match format"),
    ],
)
def test_a_bad_line_says_what_is_wrong(tmp_path: Path, member: str, line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rows(_zip(tmp_path / "daily.zip", member, line), exchange="X_FOREX", utc_offset=_UTC)
