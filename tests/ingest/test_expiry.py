"""Files with rows that are older than what their table keeps."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from arbstore.database import Database
from arbstore.errors import ArbstoreError
from arbstore.ingest import Expired, ExpiredRowsError, IngestOptions, MalformedLineError, ingest
from arbstore.postgres.upsert import InsertResult
from tests.ingest.reading import book_ticker, trade, write

DAY = timedelta(days=1)
HEADER = "exchange,base,quote,timestamp,bid,ask\n"
FUTURES = "BINANCE_FUTURES"


def row(at: datetime, bid: float = 1.0) -> str:
    return f"OANDA_FOREX,EUR,USD,{at.isoformat()},{bid},2\n"


def table(folder: Path, ages: Iterable[timedelta], name: str = "ticks.csv") -> Path:
    now = datetime.now(UTC)
    path = folder / name
    path.write_text(HEADER + "".join(row(now - age) for age in ages))
    return path


async def ages_left(db: Database) -> list[int]:
    async with db.begin() as store:
        found = await store.ticks.history("OANDA_FOREX", "EUR", "USD")
    return [round((datetime.now(UTC) - one.timestamp) / DAY) for one in found]


async def is_empty(db: Database) -> bool:
    async with db.begin() as store:
        stats = await store.maintenance.stats()
        return not await store.exchanges.all() and sum(one.rows for one in stats if one.table != "ledger") == 0


async def kept(db: Database) -> dict[str, timedelta | None]:
    async with db.begin() as store:
        return {found.table: found.keep_for for found in await store.maintenance.retention()}


async def test_an_old_recording_is_refused_before_anything_is_written(db: Database, recordings: Path) -> None:
    files = sorted((recordings / "ticks").glob("binance_coinm__*"))
    with pytest.raises(ExpiredRowsError) as caught:
        await ingest(db, files, IngestOptions(exchange="BINANCE_COINM_FUTURES"))
    assert {found.retention.table for found in caught.value.tables} == {"book_ticker_snapshots", "trade_snapshots"}
    assert {found.oldest.date().isoformat() for found in caught.value.tables} == {"2024-08-08"}
    assert (caught.value.path, caught.value.parameter) == (files[0], "expired")
    assert await is_empty(db)


@pytest.mark.parametrize(
    ("name", "options", "table"),
    [
        ("funding/BTC-USDT_binance_2023-11_2023-12.csv", {"exchange": FUTURES}, "funding_rate_snapshots"),
        ("fx/oanda_eurusd_tick_20140504.zip", {"exchange": "OANDA_FOREX"}, "ticks"),
    ],
)
async def test_every_importer_refuses_old_rows(
    db: Database, recordings: Path, name: str, options: dict[str, Any], table: str
) -> None:
    path = recordings / name
    with pytest.raises(ExpiredRowsError) as caught:
        await ingest(db, [path], IngestOptions(utc_offset=timedelta(0), **options))
    assert [found.retention.table for found in caught.value.tables] == [table]
    assert await is_empty(db)


async def test_what_is_kept_for_good_is_never_too_old(db: Database, recordings: Path) -> None:
    path = recordings / "candles" / "coinbase_btcusd_daily_trade.zip"
    report = await ingest(db, [path], IngestOptions(exchange="COINBASE_SPOT", utc_offset=timedelta(0), timeframe="1d"))
    assert report.total.results["candles"].written > 0
    assert report.total.expired == {}


async def test_young_rows_need_no_word(db: Database, tmp_path: Path) -> None:
    report = await ingest(db, [table(tmp_path, [6 * DAY, DAY])], IngestOptions())
    assert (report.total.results["ticks"].written, report.total.expired, report.total.lifted) == (2, {}, [])


async def test_old_rows_late_in_a_file_take_back_all_of_it(db: Database, tmp_path: Path, batch_size: int) -> None:
    seconds = [timedelta(seconds=number) for number in range(batch_size)]
    path = table(tmp_path, [*seconds, 10 * DAY, 9 * DAY])
    with pytest.raises(ExpiredRowsError, match=f"line {batch_size + 2} is of") as caught:
        await ingest(db, [path], IngestOptions())
    (found,) = caught.value.tables
    assert (found.rows, found.line, found.retention.keep_for) == (2, batch_size + 2, 7 * DAY)
    assert await is_empty(db)


async def test_files_before_an_old_one_stay(db: Database, tmp_path: Path) -> None:
    files = [table(tmp_path, [DAY], "young.csv"), table(tmp_path, [10 * DAY], "old.csv")]
    with pytest.raises(ExpiredRowsError, match=r"old\.csv"):
        await ingest(db, files, IngestOptions())
    assert await ages_left(db) == [1]


async def test_the_error_says_how_old_what_is_kept_what_will_happen_and_what_to_do(
    db: Database, tmp_path: Path
) -> None:
    with pytest.raises(ArbstoreError) as caught:
        await ingest(db, [table(tmp_path, [10 * DAY])], IngestOptions())
    told = str(caught.value)
    async with db.begin() as store:
        policy = next(one.policy for one in await store.maintenance.retention() if one.table == "ticks")
    then = "the server's policy drops it at its next run" if policy else "the next cleanup removes it"
    day = f"{datetime.now(UTC) - 10 * DAY:%Y-%m-%d}"
    for words in ("ticks.csv, line 2", f"is of {day}", "ticks keeps 7 days", then, "Expired.KEEP", "Expired.ANYWAY"):
        assert words in told


async def test_keep_lifts_the_retention_of_the_tables_concerned_and_of_no_other(
    committed_db: Database, tmp_path: Path
) -> None:
    before = await kept(committed_db)
    path = table(tmp_path, [1000 * DAY, DAY])
    report = await ingest(committed_db, [path], IngestOptions(expired=Expired.KEEP))
    assert (report.total.results["ticks"], report.total.lifted) == (InsertResult(2, 2, 0), ["ticks"])
    assert report.total.lines == 2
    async with Database(settings=committed_db.settings) as other:
        assert await kept(other) == before | {"ticks": None}
        async with other.begin() as store:
            await store.maintenance.cleanup()
        assert await ages_left(other) == [1000, 1]
        # What is kept for good takes old rows without a word.
        assert (await ingest(other, [path], IngestOptions())).total.lifted == []


async def test_keep_lifts_nothing_for_young_rows(db: Database, tmp_path: Path) -> None:
    before = await kept(db)
    report = await ingest(db, [table(tmp_path, [DAY])], IngestOptions(expired=Expired.KEEP))
    assert (report.total.lifted, await kept(db)) == ([], before)


async def test_keep_writes_a_file_of_several_tables_once(db: Database, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", book_ticker(), trade())
    report = await ingest(db, [path], IngestOptions(exchange=FUTURES, expired=Expired.KEEP))
    total = report.total
    assert {kind: result.written for kind, result in total.results.items()} == {"book_tickers": 1, "trades": 1}
    assert sorted(total.lifted) == ["book_ticker_snapshots", "trade_snapshots"]
    assert (total.lines, total.exchanges, len(total.symbols)) == (2, [FUTURES], 1)


async def test_keep_lifts_for_the_batch_that_needs_it(db: Database, tmp_path: Path, batch_size: int) -> None:
    quotes = [book_ticker(T=1_723_161_501_274 + number) for number in range(batch_size)]
    path = write(tmp_path / "a.jsonl", *quotes, trade())
    report = await ingest(db, [path], IngestOptions(exchange=FUTURES, expired=Expired.KEEP))
    assert report.total.lifted == ["book_ticker_snapshots", "trade_snapshots"]
    assert {kind: result.written for kind, result in report.total.results.items()} == {
        "book_tickers": batch_size,
        "trades": 1,
    }
    assert report.total.lines == batch_size + 1


async def test_anyway_writes_what_the_next_cleanup_removes_and_counts_it(db: Database, tmp_path: Path) -> None:
    before = await kept(db)
    report = await ingest(db, [table(tmp_path, [1000 * DAY, 10 * DAY, DAY])], IngestOptions(expired=Expired.ANYWAY))
    assert (report.total.results["ticks"].written, report.total.expired) == (3, {"ticks": 2})
    assert await ages_left(db) == [1000, 10, 1]
    assert await kept(db) == before
    async with db.begin() as store:
        await store.maintenance.cleanup()
    assert await ages_left(db) == [1]


async def test_what_was_set_counts_and_not_what_is_declared(db: Database, tmp_path: Path) -> None:
    path = table(tmp_path, [10 * DAY])
    async with db.begin() as store:
        await store.maintenance.set_retention("ticks", 30 * DAY)
    assert (await ingest(db, [path], IngestOptions())).total.results["ticks"].written == 1
    async with db.begin() as store:
        await store.maintenance.set_retention("ticks", 3 * DAY)
    with pytest.raises(ExpiredRowsError, match="ticks keeps 3 days"):
        await ingest(db, [path], IngestOptions())


async def test_an_old_row_that_cannot_be_stored_is_malformed_and_no_reason_to_refuse(
    db: Database, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    path = tmp_path / "ticks.csv"
    path.write_text(HEADER + row(now) + row(now - 10 * DAY, bid=-1.0))
    with pytest.raises(MalformedLineError, match="line 3"):
        await ingest(db, [path], IngestOptions())
    report = await ingest(db, [path], IngestOptions(skip_bad=True))
    assert (report.total.bad, report.total.results["ticks"].written) == (1, 1)
