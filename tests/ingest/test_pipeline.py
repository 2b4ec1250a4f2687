from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from arbstore.database import Database
from arbstore.errors import ConfigurationError, UnknownSymbolError, ValidationError
from arbstore.ingest import Clock, IngestOptions, IngestReport, MalformedLineError, ingest
from arbstore.postgres.upsert import InsertResult
from arbstore.records import StoredBookTicker, StoredTrade
from tests.ingest.reading import TICKS, book_ticker, excerpt, historic, ingested, recorded, trade, write

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UTC = timedelta(0)
_EXCHANGE = "BINANCE_FUTURES"
_BASES = ("BTC", "ETH")


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


async def _ingest_ticks(db: Database, recordings: Path, exchange: str, pattern: str, **options: Any) -> IngestReport:
    files = _files(recordings, pattern)
    return await ingest(db, files, historic(exchange=exchange, **options))


def _files(recordings: Path, pattern: str) -> list[Path]:
    return sorted((recordings / "ticks").glob(pattern))


async def _quotes(
    db: Database, exchange: str = _EXCHANGE, base: str = "BTC", quote: str = "USDT"
) -> list[StoredBookTicker]:
    async with db.begin() as store:
        return await store.book_tickers.history(exchange, base, quote)


async def _trades(db: Database, exchange: str = _EXCHANGE, base: str = "BTC", quote: str = "USDT") -> list[StoredTrade]:
    async with db.begin() as store:
        return await store.trades.history(exchange, base, quote)


async def _is_empty(db: Database) -> bool:
    async with db.begin() as store:
        return not await store.exchanges.all() and not await store.book_tickers.latest()


def _wanted_quotes(path: Path) -> dict[int, tuple[float, ...]]:
    return {
        data["T"] * 1000 if "T" in data else local // 1000: (
            *(float(data[name]) for name in ("b", "B", "a", "A")),
            local // 1000,
        )
        for local, data in recorded(path)
        if "t" not in data
    }


def _wanted_trades(path: Path) -> dict[str, tuple[Any, ...]]:
    return {
        str(data["t"]): (data["T"] * 1000, float(data["p"]), float(data["q"]), "sell" if data["m"] else "buy")
        for _, data in recorded(path)
        if "t" in data and data.get("X", "MARKET") == "MARKET"
    }


@pytest.mark.parametrize(("exchange", "pattern", "quote"), TICKS)
async def test_the_last_quote_of_each_instant_and_every_trade_of_the_book_are_stored_however_often(
    db: Database, recordings: Path, exchange: str, pattern: str, quote: str
) -> None:
    first = await _ingest_ticks(db, recordings, exchange, pattern)
    stored = {
        base: (await _quotes(db, exchange, base, quote), await _trades(db, exchange, base, quote)) for base in _BASES
    }
    for path, (quotes, trades) in zip(_files(recordings, pattern), stored.values(), strict=True):
        assert {
            _micros(one.timestamp): (one.bid_price, one.bid_qty, one.ask_price, one.ask_qty, _micros(one.created_at))
            for one in quotes
        } == _wanted_quotes(path)
        wanted = _wanted_trades(path)
        assert {one.trade_id: (_micros(one.timestamp), one.price, one.quantity, one.side) for one in trades} == wanted
        assert len(trades) == len(wanted)
    second = await _ingest_ticks(db, recordings, exchange, pattern)
    for base, before in stored.items():
        assert (await _quotes(db, exchange, base, quote), await _trades(db, exchange, base, quote)) == before
    assert first.total.results == second.total.results
    assert (len(first.total.symbols), second.total.symbols, second.total.exchanges) == (2, [], [])


async def test_the_counts_are_those_of_the_recording(db: Database, recordings: Path) -> None:
    report = await _ingest_ticks(db, recordings, _EXCHANGE, "binance_usdm__btc*")
    (file,) = report.files
    assert file.lines == 13_958
    assert file.results == {
        "book_tickers": InsertResult(given=9057, written=4207, superseded=4850),
        "trades": InsertResult(given=4901, written=4901, superseded=0),
    }
    assert (file.bad, file.ignored, file.dated_locally) == (0, {}, 0)


async def test_spot_book_tickers_dated_by_the_local_clock_are_counted(db: Database, recordings: Path) -> None:
    report = await _ingest_ticks(db, recordings, "BINANCE_SPOT", "binance_spot__*")
    wanted = [sum("t" not in data for _, data in recorded(path)) for path in _files(recordings, "binance_spot__*")]
    assert [file.dated_locally for file in report.files] == wanted
    assert report.total.dated_locally == sum(wanted)


async def test_the_local_clock_can_date_everything(db: Database, recordings: Path) -> None:
    await _ingest_ticks(db, recordings, _EXCHANGE, "binance_usdm__eth*", clock=Clock.LOCAL)
    (path,) = _files(recordings, "binance_usdm__eth*")
    wanted = {local // 1000 for local, data in recorded(path) if "t" not in data}
    found = await _quotes(db, base="ETH")
    assert {_micros(one.timestamp) for one in found} == wanted
    assert all(one.timestamp == one.created_at for one in found)


async def test_coin_margined_symbols_are_perpetuals_in_dollars(db: Database, recordings: Path) -> None:
    report = await _ingest_ticks(db, recordings, "BINANCE_COINM_FUTURES", "binance_coinm__*")
    symbols = [one.symbol for one in report.total.symbols]
    assert [(one.exchange_symbol, one.symbol_base, one.symbol_quote, one.symbol_type) for one in symbols] == [
        ("BTCUSD_PERP", "BTC", "USD", "PERPETUAL"),
        ("ETHUSD_PERP", "ETH", "USD", "PERPETUAL"),
    ]
    assert {one.derived for one in report.total.symbols} == {True}


async def test_symbols_come_from_the_listing(db: Database, recordings: Path) -> None:
    listing = recordings / "symbols" / "pair_info_binance_uFuture.csv"
    report = await _ingest_ticks(db, recordings, _EXCHANGE, "binance_usdm__eth*", symbols=listing)
    assert [(one.symbol.exchange_symbol, one.derived) for one in report.total.symbols] == [
        ("ETHUSDT", False),
    ]


async def test_the_listing_of_another_exchange_is_refused(db: Database, recordings: Path) -> None:
    listing = recordings / "symbols" / "pair_info_gate_uFuture.csv"
    with pytest.raises(ConfigurationError, match="lists GATEIO_FUTURES, not BINANCE_FUTURES"):
        await _ingest_ticks(db, recordings, _EXCHANGE, "binance_usdm__*", symbols=listing)


async def test_settled_funding_goes_to_the_symbol_of_the_book_tickers(db: Database, recordings: Path) -> None:
    await _ingest_ticks(db, recordings, _EXCHANGE, "binance_usdm__eth*")
    path = recordings / "funding" / "ETH-USDT_binance_2023-11_2023-12.csv"
    report = await ingested(db, path, exchange=_EXCHANGE, utc_offset=timedelta(hours=3))
    assert (report.results["funding_rates"].written, report.symbols) == (183, [])


async def test_funding_rates_are_exact(db: Database, recordings: Path) -> None:
    path = recordings / "funding" / "ETH-USDT_gate_2023-11_2023-12.csv"
    await ingested(db, path, exchange="GATEIO_FUTURES", utc_offset=_UTC)
    async with db.begin() as store:
        first = (await store.funding_rates.history("GATEIO_FUTURES", "ETH", "USDT"))[0]
    assert str(first.funding_rate) == "0.000079"
    assert first.timestamp == first.funding_time == datetime(2023, 11, 1, tzinfo=UTC)


async def test_a_snapshot_of_platforms_can_be_ingested_twice(db: Database, recordings: Path, tmp_path: Path) -> None:
    listing = recordings / "symbols" / "pair_info_binance_uFuture.csv"
    words = ("SHIB", "BTC", "FTT", "COCOS")
    path = excerpt(recordings / "symbols" / "pair_tickers.csv", tmp_path, *words)
    first = await ingested(db, path, utc_offset=_UTC, symbols=listing)
    assert first.results == {"funding_rates": InsertResult(13, 13, 0)}
    assert first.ignored == {"funding time 0 (dated contract)": 2}
    assert first.exchanges == ["BINANCE_FUTURES", "GATEIO_FUTURES", "OKX_FUTURES"]
    # Some that are delisted in the listing have rates still.
    assert any(not one.symbol.is_active for one in first.symbols)
    assert (await ingested(db, path, utc_offset=_UTC, symbols=listing)).symbols == []
    async with db.begin() as store:
        (shib,) = await store.funding_rates.latest("GATEIO_FUTURES", "SHIB", "USDT")
        (thousand,) = await store.funding_rates.latest("BINANCE_FUTURES", "1000SHIB", "USDT")
    assert shib.mark_price is not None
    assert thousand.mark_price is not None
    assert 999 < thousand.mark_price / shib.mark_price < 1001


async def test_ticks_and_candles_of_lean_are_stored(db: Database, recordings: Path) -> None:
    names = ("tick_20140504", "minute_20140505")
    files = [recordings / "fx" / f"oanda_eurusd_{name}.zip" for name in names]
    report = await ingest(db, files, historic(exchange="OANDA_FOREX", utc_offset=_UTC))
    assert {kind: result.given for kind, result in report.total.results.items()} == {"ticks": 1164, "candles": 1350}
    async with db.begin() as store:
        ticks = await store.ticks.history("OANDA_FOREX", "EUR", "USD")
        candles = await store.candles.history("OANDA_FOREX", "EUR", "USD", "1m", origin="mid")
    assert (ticks[0].bid, ticks[0].ask) == (1.38817, 1.38884)
    assert (candles[0].open, candles[0].volume) == (1.38718, None)
    assert candles[0].timestamp == datetime(2014, 5, 5, tzinfo=UTC)


async def test_crossed_quotes_are_stored(db: Database, recordings: Path) -> None:
    path = recordings / "fx" / "fxcm_eurusd_tick_20140504.zip"
    await ingested(db, path, exchange="FXCM_FOREX", utc_offset=timedelta(hours=-5))
    async with db.begin() as store:
        ticks = await store.ticks.history("FXCM_FOREX", "EUR", "USD")
    assert any(tick.bid >= tick.ask for tick in ticks)
    assert ticks[0].timestamp == datetime(2014, 5, 4, 19, 0, 51, 815000, tzinfo=UTC)


async def test_every_line_is_stored_ignored_or_bad(db: Database, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl.gz",
        book_ticker(),
        "no line",
        trade(),
        trade(t=8, X="INSURANCE_FUND"),
        '1 {"lastUpdateId": 5, "bids": []}',
        '1 {"lastUpdateId": 6, "bids": []}',
        '1 {"result": null, "id": 1}',
        book_ticker(a="0"),
        "",
    )
    report = await ingested(db, path, exchange=_EXCHANGE, skip_bad=True)
    assert report.ignored == {"no stream": 2, "X=INSURANCE_FUND": 1, "subscription answer": 1, "blank line": 1}
    assert [(bad.line, bad.reason) for bad in report.first_bad] == [
        (2, "does not begin with the local clock in nanoseconds"),
        (8, "ask_price: must be > 0 and finite, is 0.0"),
    ]
    stored = sum(result.given for result in report.results.values())
    assert report.lines == 9 == stored + report.ignored.total() + report.bad


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1 {", "Input data was truncated"),
        (book_ticker(b="0"), "bid_price: must be > 0"),
        (book_ticker(b="nan"), "bid_price: must be > 0 and finite"),
        (book_ticker(B="-1"), "bid_qty: must be >= 0"),
        (trade(p="1e999"), "price: must be > 0 and finite|Number out of range"),
        (book_ticker(T=1723161501274000), "1723161501274 seconds after 1970 is beyond"),
        (book_ticker(T=10**18), "1000000000000000 seconds after 1970 is beyond"),
        (book_ticker(at=1_723_161_500), "created_at: .*before 1971"),
    ],
)
async def test_a_malformed_line_stops_the_file_and_nothing_of_it_is_written(
    db: Database, tmp_path: Path, line: str, reason: str
) -> None:
    path = write(tmp_path / "a.jsonl", book_ticker(), "", line, trade())
    with pytest.raises(MalformedLineError, match=rf"a\.jsonl, line 3: ({reason})") as error:
        await ingested(db, path, exchange=_EXCHANGE)
    assert (error.value.path, error.value.line) == (path, 3)
    assert await _is_empty(db)
    report = await ingested(db, path, exchange=_EXCHANGE, skip_bad=True)
    assert (report.bad, [bad.line for bad in report.first_bad]) == (1, [3])
    assert (len(await _quotes(db)), len(await _trades(db))) == (1, 1)


async def test_text_that_is_no_utf8_is_malformed(db: Database, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(book_ticker().replace("BTCUSDT", "BTC\xff").encode("latin-1"))
    with pytest.raises(MalformedLineError, match=r"line 1: .*utf-8"):
        await ingested(db, tmp_path / "a.jsonl", exchange=_EXCHANGE)


async def test_a_truncated_file_stops_at_its_end_or_keeps_what_was_there(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(f"{book_ticker()}\n{trade()}\n".encode())[:-9])
    with pytest.raises(MalformedLineError, match="line 3: the compressed data break off"):
        await ingested(db, path, exchange=_EXCHANGE)
    assert await _is_empty(db)
    report = await ingested(db, path, exchange=_EXCHANGE, skip_bad=True)
    assert (report.lines, report.bad) == (3, 1)
    assert (len(await _quotes(db)), len(await _trades(db))) == (1, 1)


async def test_only_the_first_bad_lines_are_kept(db: Database, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", book_ticker(), *["x"] * 9)
    report = await ingested(db, path, exchange=_EXCHANGE, skip_bad=True)
    assert (report.bad, [bad.line for bad in report.first_bad]) == (9, [2, 3, 4, 5, 6])


async def test_the_last_of_equal_keys_wins_across_batches(db: Database, tmp_path: Path, batch_size: int) -> None:
    many = [trade(t=number) for number in range(batch_size)]
    path = write(tmp_path / "a.jsonl", book_ticker(b="1.5"), *many, book_ticker(b="2.5"), trade(t=0, p="9"))
    report = await ingested(db, path, exchange=_EXCHANGE)
    assert [quote.bid_price for quote in await _quotes(db)] == [2.5]
    trades = await _trades(db)
    assert len(trades) == batch_size
    assert {one.price for one in trades if one.trade_id == "0"} == {9.0}
    assert report.lines == batch_size + 3 == sum(result.given for result in report.results.values())


async def test_a_bad_line_in_a_later_batch_takes_the_earlier_ones_back(
    db: Database, tmp_path: Path, batch_size: int
) -> None:
    path = write(tmp_path / "a.jsonl", *(trade(t=number) for number in range(batch_size)), "x")
    with pytest.raises(MalformedLineError, match=f"line {batch_size + 1}"):
        await ingested(db, path, exchange=_EXCHANGE)
    assert await _is_empty(db)


async def test_files_before_a_bad_one_stay(db: Database, tmp_path: Path) -> None:
    good, bad = write(tmp_path / "a.jsonl", book_ticker()), write(tmp_path / "b.jsonl", trade(), trade(p="x"))
    with pytest.raises(MalformedLineError, match=r"b\.jsonl, line 2"):
        await ingest(db, [good, bad], historic(exchange=_EXCHANGE))
    assert (len(await _quotes(db)), len(await _trades(db))) == (1, 0)


async def test_a_file_that_is_missing_stops_before_the_first_is_read(db: Database, tmp_path: Path) -> None:
    files = [write(tmp_path / "a.jsonl", book_ticker()), tmp_path / "b.jsonl"]
    with pytest.raises(ConfigurationError, match=r"b\.jsonl is not a file"):
        await ingest(db, files, historic(exchange=_EXCHANGE))
    assert await _is_empty(db)


async def test_an_empty_recording_has_no_lines(db: Database, tmp_path: Path) -> None:
    report = await ingested(db, write(tmp_path / "a.jsonl"), exchange=_EXCHANGE)
    assert (report.lines, report.results) == (0, {})


async def test_a_symbol_that_cannot_be_derived_asks_for_a_listing(db: Database, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", book_ticker(s="XBTM"))
    with pytest.raises(UnknownSymbolError, match="Give a listing of BINANCE_FUTURES") as error:
        await ingested(db, path, exchange=_EXCHANGE)
    assert error.value.parameter == "symbols"
    assert await _is_empty(db)


async def test_what_is_no_exchange_is_refused(db: Database, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"exchange: must be \{EXCHANGE_NAME\}"):
        await ingested(db, write(tmp_path / "a.jsonl", book_ticker()), exchange="BINANCE", skip_bad=True)


async def test_letter_case_of_the_exchange_does_not_matter(db: Database, tmp_path: Path) -> None:
    report = await ingested(db, write(tmp_path / "a.jsonl", book_ticker()), exchange="binance_futures")
    assert report.exchanges == ["BINANCE_FUTURES"]


async def test_progress_is_told_up_to_the_last_byte(db: Database, recordings: Path) -> None:
    told: list[tuple[Path, int, int]] = []
    files = _files(recordings, "binance_coinm__*")
    sizes = {path: path.read_bytes().__len__() for path in files}
    await ingest(db, files, historic(exchange=_EXCHANGE), progress=lambda *step: told.append(step))
    assert {path: read for path, read, _ in told} == sizes
    assert all(0 < read <= size == sizes[path] for path, read, size in told)


async def test_progress_of_a_large_file_is_told_on_the_way(db: Database, tmp_path: Path, batch_size: int) -> None:
    told: list[int] = []
    path = write(tmp_path / "a.jsonl", *(trade(t=number) for number in range(batch_size + 1)))
    options = historic(exchange=_EXCHANGE)
    await ingest(db, [path], options, progress=lambda path, read, size: told.append(size - read))
    assert told == sorted(told, reverse=True)
    assert told[0] > 0 == told[-1]


async def test_progress_of_a_file_without_market_data_is_told(db: Database, tmp_path: Path) -> None:
    told: list[int] = []
    path = write(tmp_path / "a.jsonl", '1 {"result": null, "id": 1}')
    options = historic(exchange=_EXCHANGE)
    await ingest(db, [path], options, progress=lambda path, read, size: told.append(size - read))
    assert told == [0]


async def test_the_total_is_the_sum_of_the_files(db: Database, recordings: Path) -> None:
    report = await _ingest_ticks(db, recordings, "BINANCE_SPOT", "binance_spot__*")
    total = report.total
    assert total.lines == sum(file.lines for file in report.files) == 6327 + 1261
    assert total.results["trades"].given == 2356 + 282
    assert [one.symbol.symbol_base for one in total.symbols] == ["BTC", "ETH"]


def test_an_offset_of_a_day_is_none() -> None:
    with pytest.raises(ConfigurationError, match="less than a day"):
        IngestOptions(utc_offset=timedelta(days=1))


async def test_rows_that_come_too_late_for_their_candle_are_reported(db: Database, tmp_path: Path) -> None:
    async def add(*numbers: int) -> IngestReport:
        path = write(tmp_path / "late.jsonl", *(trade(t=number, T=1723161501274 + number) for number in numbers))
        return await ingest(db, [path], historic(exchange="BINANCE_FUTURES"))

    assert (await add(1, 2)).total.results["trades"].too_late == 0
    async with db.begin() as store:
        await store.maintenance.cleanup()
    assert (await add(3, 4, 5)).total.results["trades"] == InsertResult(3, 3, 0, too_late=3, too_late_minutes=1)
