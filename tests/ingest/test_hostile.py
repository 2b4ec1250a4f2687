"""Files and circumstances that a hostile tester came up with."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arbstore.database import Database
from arbstore.ingest import MalformedLineError, ingest
from arbstore.records import Listing, SymbolType
from tests.ingest.reading import historic

HEADER = "exchange,base,quote,timestamp,bid,ask\n"


def row(second: int, base: str = "EUR") -> str:
    return f"OANDA_FOREX,{base},USD,{datetime(2024, 8, 8, tzinfo=UTC) + timedelta(seconds=second)},1.1,1.2\n"


async def test_a_stray_quote_spoils_its_own_line_and_no_other(db: Database, tmp_path: Path) -> None:
    lines = [row(second) for second in range(1_000)]
    lines[10] = '"' + lines[10]
    file = tmp_path / "quotes.csv"
    file.write_text(HEADER + "".join(lines))
    report = (await ingest(db, [file], historic(skip_bad=True))).total
    assert (report.lines, report.bad, report.results["ticks"].written) == (1_000, 1, 999)


@pytest.mark.parametrize(
    "line",
    [
        '{"exchange":"A_SPOT","base":"B","quote":"Q","timestamp":"0001-01-01T00:00:00+14:00","bid":1,"ask":2}',
        '{"exchange":"A_SPOT","base":"B","quote":"Q","expiry":1723108000000,"timestamp":"2024-08-08T12:00:00Z","bid":1,"ask":2}',
        '{"exchange":"A_SPOT","base":"B","quote":"Q","timestamp":"2024-08-08T12:00:00Z","bid":9e999999,"ask":2}',
        '{"exchange":"A_SPOT","base":["B"],"quote":"Q","timestamp":"2024-08-08T12:00:00Z","bid":1,"ask":2}',
        '{"exchange":"A_SPOT","base":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
    ids=["year 1", "epoch", "huge", "list", "deep"],
)
async def test_an_odd_cell_is_a_malformed_line(db: Database, tmp_path: Path, line: str) -> None:
    file = tmp_path / "quotes.ndjson"
    good = '{"exchange":"A_SPOT","base":"B","quote":"Q","timestamp":"2024-08-08T12:00:00Z","bid":1,"ask":2}'
    file.write_text(f"{good}\n{line}\n")
    with pytest.raises(MalformedLineError, match="line 2"):
        await ingest(db, [file], historic(kind="ticks"))
    report = (await ingest(db, [file], historic(kind="ticks", skip_bad=True))).total
    assert (report.lines, report.bad, report.results["ticks"].written) == (2, 1, 1)


async def test_old_data_go_to_the_coin_of_their_time_and_not_to_its_successor(db: Database, tmp_path: Path) -> None:
    delisted = datetime(2022, 5, 13, tzinfo=UTC)
    luna = Listing(
        symbol_base="LUNA", symbol_quote="USDT", exchange_symbol="LUNAUSDT", symbol_type=SymbolType.SPOT,
        is_active=False, delisted_at=delisted,
    )  # fmt: skip # two lines read better than nine
    async with db.begin() as store:
        exchange = await store.exchanges.add("BINANCE_SPOT")
        old = await store.symbols.add(exchange.id, luna)
        successor: dict[str, Any] = {
            "is_active": True,
            "delisted_at": None,
            "listed_at": datetime(2022, 5, 28, tzinfo=UTC),
        }
        new = await store.symbols.add(exchange.id, msgspec.structs.replace(luna, **successor))
    for year, symbol in ((2021, old), (2023, new)):
        file = tmp_path / f"{year}.csv"
        file.write_text(
            f"exchange,exchange_symbol,timestamp,bid,ask\nBINANCE_SPOT,LUNAUSDT,{year}-12-01T00:00:00Z,1,2\n"
        )
        await ingest(db, [file], historic())
        async with db.begin() as store:
            assert len(await store.ticks.history_by_id(symbol.id)) == 1


async def test_a_cancelled_import_ends_and_leaves_nothing(committed_db: Database, tmp_path: Path) -> None:
    file = tmp_path / "quotes.csv"
    file.write_text(HEADER + "".join(row(second) for second in range(60_000)))
    work = asyncio.create_task(ingest(committed_db, [file], historic(skip_bad=True)))
    await asyncio.sleep(0.1)
    work.cancel()
    async with asyncio.timeout(30):
        with suppress(asyncio.CancelledError):
            await work
    async with committed_db.begin() as store:
        assert await store.exchanges.all() == ()


async def test_imports_that_register_the_same_symbols_in_opposite_order_both_go_in(
    committed_db: Database, tmp_path: Path
) -> None:
    bases = [f"C{number}" for number in range(40)]
    files = [tmp_path / "forth.csv", tmp_path / "back.csv"]
    for second, (file, order) in enumerate(zip(files, (bases, bases[::-1]), strict=True)):
        file.write_text(HEADER + "".join(row(second, base) for base in order))
    async with committed_db.begin() as store:
        await store.exchanges.add("OANDA_FOREX")  # or one import would wait for the other to register it

    async def run(file: Path) -> None:
        async with Database(settings=committed_db.settings) as db:
            await ingest(db, [file], historic())

    await asyncio.gather(*map(run, files))
    async with committed_db.begin() as store:
        assert len(await store.ticks.latest()) == 40


async def test_a_price_of_more_digits_than_a_float_has_is_read_as_written(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "balances.ndjson"
    file.write_text(
        '{"exchange":"A_SPOT","asset_name":"ETH","timestamp":"2024-08-08T12:00:00Z",'
        '"available_balance":1.000000000000000001}\n'
    )
    await ingest(db, [file], historic(kind="balances"))
    async with db.begin() as store:
        (balance,) = await store.balances.latest()
    assert balance.available_balance == Decimal("1.000000000000000001")


async def test_imports_that_register_the_same_exchange_and_symbol_at_once_all_go_in(
    committed_db: Database, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.csv" for number in range(4)]
    for number, file in enumerate(files):
        file.write_text(
            "exchange,base,quote,timestamp,bid,ask\n"
            + "".join(f"OANDA_FOREX,EUR,USD,2024-08-08T12:0{number}:{second:02}Z,1.1,1.2\n" for second in range(60))
        )

    async def run(file: Path) -> int:
        # A Database of its own, as another process would have: nothing is shared but the server.
        async with Database(settings=committed_db.settings) as db:
            report = await ingest(db, [file], historic())
            return len(report.total.exchanges) + len(report.total.symbols)

    registered = await asyncio.gather(*(run(file) for file in files))
    async with committed_db.begin() as store:
        rows = await store.ticks.history("OANDA_FOREX", "EUR", "USD")
    assert len(rows) == 240
    assert sum(registered) == 2
