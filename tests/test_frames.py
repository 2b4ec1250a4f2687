"""Frames: the same rows as the services give, in other hands; on committed data over ADBC, else through the session."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped] # it has no types
import pyarrow.parquet as pq  # type: ignore[import-untyped] # it has no types
import pytest
import pytest_asyncio
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped] # it has no types
from sqlalchemy import text

from arbstore.database import Database, Store
from arbstore.errors import (
    ConfigurationError,
    DatabaseConnectionError,
    DatabaseError,
    PoolExhaustedError,
    QueryTimeoutError,
    SchemaOutOfDateError,
    UnknownExchangeError,
    UnknownSymbolError,
    ValidationError,
)
from arbstore.frames.connections import Connections, conninfo
from arbstore.frames.reading import Reading
from arbstore.frames.schema import reversed_batch
from arbstore.postgres.history import oldest_first
from arbstore.records import Side, Trade
from arbstore.settings import Settings
from tests.conftest import NOON, quote
from tests.records.samples import SERVICES
from tests.services.cases import CASES, Case, Market, every_path_and_decimals, every_series, open_market

PAIR = ("BINANCE_SPOT", "BTC", "USDT")
SECOND = timedelta(seconds=1)
FEW = 1_000
MANY = 300_000  # rows: more than one batch of the driver's
READS = max(12, min(32, (os.cpu_count() or 1) + 4))  # as many as the loop's own threads, or more


@pytest.fixture(params=["arbstore_committed_db", "arbstore_db"], ids=["committed", "rolled back"])
def either(request: pytest.FixtureRequest) -> Database:
    """A database with real commits, and one of tests, whose rows no other connection sees."""
    found: Database = request.getfixturevalue(request.param)
    return found


async def fill(db: Database, *rows: Callable[[Market], Any], kind: str = "book_tickers") -> Market:
    async with db.begin() as store:
        market = await open_market(store)
        if rows:
            await getattr(store, kind).insert([row(market) for row in rows])
    return market


async def fill_quotes(db: Database, count: int) -> Market:
    market = await fill(db)
    async with db.engine.begin() as connection:
        # The check of each row's symbol would take most of the time.
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(
            text(
                "INSERT INTO book_ticker_snapshots (symbol_id, timestamp, bid_price, bid_qty, ask_price, ask_qty)"
                " SELECT :symbol, CAST(:noon AS timestamptz) + n * interval '1 ms', n, 1, n + 1, 1"
                " FROM generate_series(1, :count) n"
            ),
            {"symbol": market.btc.id, "noon": NOON, "count": count},
        )
    return market


def plain(record: Any) -> dict[str, Any]:
    return msgspec.structs.asdict(record)


def as_rows(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


async def assert_history_is_what_the_service_returns(case: Case, db: Database) -> None:
    instants = [NOON + number * SECOND for number in range(3)]
    await fill(db, *(lambda market, at=at: case.row(market, at) for at in instants), kind=SERVICES[case.kind])
    async with db.begin() as store:
        records = await case.history(store)
    table = await db.frames.history(SERVICES[case.kind], *case.series)
    assert as_rows(table) == [plain(record) for record in records]
    assert len(table) == 3
    assert set(table.schema.names) == set(plain(records[0]))


@every_path_and_decimals
async def test_history_is_what_the_service_returns(case: Case, committed_db: Database) -> None:
    await assert_history_is_what_the_service_returns(case, committed_db)


@every_series
async def test_history_of_every_kind_is_what_the_service_returns(case: Case, db: Database) -> None:
    await assert_history_is_what_the_service_returns(case, db)


@pytest.mark.parametrize("origin", ["trades", "quotes"])
async def test_candles_of_rows_are_what_the_service_returns(origin: str, either: Database, tmp_path: Path) -> None:
    market = await fill(either)
    async with either.begin() as store:
        await store.book_tickers.insert(
            [quote(market.btc, 1.0 + number, NOON + number * SECOND) for number in range(90)]
        )
        await store.trades.insert(
            [
                Trade(
                    symbol_id=market.btc.id,
                    timestamp=NOON + number * SECOND,
                    trade_id=str(number),
                    price=100.0 + number,
                    quantity=2.0,
                    side=Side.BUY,
                )
                for number in range(90)
            ]
        )
        records = await store.candles.history(*PAIR, "1m", origin=origin)
    table = await either.frames.candles(*PAIR, "1m", origin=origin)
    assert as_rows(table) == [plain(record) for record in records]
    assert len(table) == 2
    assert (await either.frames.export(tmp_path / "bars.parquet", "candles", *PAIR, "1m", origin=origin)).rows == 2


@every_path_and_decimals
async def test_latest_is_what_the_service_returns(case: Case, either: Database) -> None:
    await fill(either, case.row, lambda market: case.row(market, NOON + SECOND), kind=SERVICES[case.kind])
    async with either.begin() as store:
        records = await case.latest(store, "BINANCE_SPOT")
    table = await either.frames.latest(SERVICES[case.kind], "BINANCE_SPOT")
    assert as_rows(table) == [plain(record) for record in records]
    assert len(table) == 1


@every_path_and_decimals
async def test_what_is_empty_has_the_same_schema(case: Case, either: Database) -> None:
    kind = SERVICES[case.kind]
    await fill(either, case.row, kind=kind)
    full = await either.frames.history(kind, *case.series)
    empty = await either.frames.history(kind, *case.series, until=NOON)
    assert (len(full), len(empty)) == (1, 0)
    assert full.schema == empty.schema == (await either.frames.latest(kind, max_age=SECOND)).schema
    assert full.schema == (await either.frames.latest(kind)).schema


async def test_columns_have_the_types_of_what_they_hold(committed_db: Database) -> None:
    await fill(committed_db)
    frames = committed_db.frames
    quotes = (await frames.history("book_tickers", *PAIR)).schema
    assert quotes.names[:6] == ["exchange", "symbol_base", "symbol_quote", "exchange_symbol", "symbol_id", "timestamp"]
    assert quotes.field("timestamp").type == quotes.field("created_at").type == pa.timestamp("us", tz="UTC")
    assert (quotes.field("symbol_id").type, quotes.field("bid_price").type) == (pa.int32(), pa.float64())
    assert quotes.field("exchange").type == pa.dictionary(pa.int32(), pa.string())
    balances = (await frames.history("balances", "BINANCE_SPOT", "ETH")).schema
    assert balances.field("exchange_id").type == pa.int16()
    assert balances.field("available_balance").type == pa.decimal128(38, 18)
    rates = (await frames.history("funding_rates", *PAIR)).schema
    assert rates.field("funding_rate").type == pa.decimal128(38, 24)
    trades = (await frames.history("trades", *PAIR)).schema
    assert pa.types.is_dictionary(trades.field("side").type)
    assert trades.field("trade_id").type == pa.string()
    candles = (await frames.candles(*PAIR, "1m")).schema
    assert (candles.field("num_trades").type, candles.field("num_trades").nullable) == (pa.int64(), True)


async def test_a_window_is_half_open_and_its_limit_keeps_the_newest_oldest_first(either: Database) -> None:
    await fill(either, *(lambda market, n=n: quote(market.btc, 100.0 + n, NOON + n * SECOND) for n in range(6)))
    frames = either.frames
    table = await frames.history("book_tickers", *PAIR, since=NOON + SECOND, until=NOON + 5 * SECOND, limit=3)
    assert table["bid_price"].to_pylist() == [102.0, 103.0, 104.0]
    batches = [batch async for batch in frames.batches("book_tickers", *PAIR, until=NOON + 5 * SECOND, limit=3)]
    assert pa.Table.from_batches(batches) == table


async def test_rows_of_one_instant_are_ordered_as_the_records_are(committed_db: Database) -> None:
    case = next(case for case in CASES if SERVICES[case.kind] == "trades")
    await fill(committed_db, *(lambda market, i=i: case.row(market, trade_id=str(i)) for i in range(12)), kind="trades")
    async with committed_db.begin() as store:
        ids = [trade.trade_id for trade in await store.trades.history(*PAIR, limit=7)]
    assert (await committed_db.frames.history("trades", *PAIR, limit=7))["trade_id"].to_pylist() == ids


async def test_a_delisted_symbol_is_read_by_its_id(either: Database) -> None:
    market = await fill(either, lambda market: quote(market.btc))
    async with either.begin() as store:
        await store.symbols.sync(market.spot.id, [plain_listing("ETH")])
    with pytest.raises(UnknownSymbolError):
        await either.frames.history("book_tickers", *PAIR)
    table = await either.frames.history("book_tickers", symbol_id=market.btc.id)
    assert table["exchange_symbol"].to_pylist() == ["BTCUSDT"]


def plain_listing(base: str) -> dict[str, Any]:
    return {
        "symbol_base": base,
        "symbol_quote": "USDT",
        "exchange_symbol": f"{base}USDT",
        "symbol_type": "SPOT",
    }


REFUSED: list[tuple[str, tuple[str, ...], dict[str, Any], type[Exception], str]] = [
    ("book_tickers", ("NO_SPOT", "BTC", "USDT"), {}, UnknownExchangeError, "NO_SPOT"),
    ("book_tickers", ("BINANCE_SPOT", "NO", "USDT"), {}, UnknownSymbolError, "NO/USDT"),
    ("book_tickers", (), {"symbol_id": 2**40}, UnknownSymbolError, "not registered"),
    ("book_tickers", PAIR, {"symbol_id": 1}, ValidationError, "replaces exchange"),
    ("balances", (), {"symbol_id": 1}, ValidationError, "belong to exchanges"),
    ("book_tickers", PAIR, {"since": NOON.replace(tzinfo=None)}, ValidationError, "aware"),
    ("book_tickers", PAIR, {"since": NOON, "until": NOON - SECOND}, ValidationError, "after until"),
    ("book_tickers", PAIR, {"limit": 0}, ValidationError, "from 1 to"),
    ("book_tickers", PAIR, {"limit": 10**20}, ValidationError, "limit: .* from 1 to"),
    ("book_tickers", PAIR, {"limit": "5"}, ValidationError, "limit: must be an integer"),
    ("book_tickers", PAIR, {"since": "2024-01-01"}, ValidationError, "since: must be a datetime"),
    ("balances", ("BINANCE_SPOT", "E\ud800"), {}, ValidationError, "asset: must be a ticker"),
    ("collectors", ("BINANCE_SPOT", "a\x00b"), {}, ValidationError, "collector: must be a text"),
    ("candles", (*PAIR, "soon"), {}, ValidationError, "timeframe"),
    ("exchanges", (), {}, ValidationError, "one of book_tickers, trades"),
    ("__class__", (), {}, ValidationError, "one of book_tickers, trades"),
]


async def test_what_the_services_refuse_is_refused(either: Database) -> None:
    await fill(either)
    for kind, series, window, error, reason in REFUSED:
        with pytest.raises(error, match=reason):
            await either.frames.history(kind, *series, **window)
        with pytest.raises(error, match=reason):
            _ = [batch async for batch in either.frames.batches(kind, *series, **window)]


async def test_texts_go_to_the_server_as_they_are(committed_db: Database) -> None:
    names = ["O'NEIL", "A\\B", "100%", ":X", "$1"]
    case = next(case for case in CASES if SERVICES[case.kind] == "balances")
    rows = [lambda market, name=name: case.row(market, asset_name=name) for name in names]
    await fill(committed_db, *rows, kind="balances")
    for name in names:
        found = await committed_db.frames.history("balances", "BINANCE_SPOT", name)
        assert found["asset_name"].to_pylist() == [name]


async def test_a_decimal_is_exact_or_refused_or_a_float_where_that_is_asked_for(either: Database) -> None:
    case = next(case for case in CASES if SERVICES[case.kind] == "balances")
    largest, tiny = Decimal("12345678901234567890.123456789012345678"), Decimal("1E-19")
    await fill(
        either,
        lambda market: case.row(market, available_balance=largest),
        lambda market: case.row(market, NOON + SECOND, locked_balance=tiny),
        kind="balances",
    )
    of = ("balances", "BINANCE_SPOT", "ETH")
    exact = await either.frames.history(*of, until=NOON + SECOND)
    assert exact["available_balance"].to_pylist() == [largest]
    with pytest.raises(ValidationError, match=r"0\.0000000000000000001 does not fit decimal128\(38, 18\)") as caught:
        await either.frames.history(*of)
    assert caught.value.field == "locked_balance"
    with pytest.raises(ValidationError, match="does not fit"):
        await either.frames.latest("balances")
    inexact = await either.frames.history(*of, exact=False)
    assert inexact["locked_balance"].to_pylist()[-1] == 1e-19
    assert inexact["available_balance"].to_pylist()[0] == float(largest)


async def test_polars_and_pandas_have_the_same_rows_in_types_of_theirs(either: Database) -> None:
    case = next(case for case in CASES if SERVICES[case.kind] == "candles")
    row, none = case.row, (lambda market: case.row(market, NOON + SECOND, num_trades=None))
    market = await fill(either, row, none, kind="candles")
    table = await either.frames.candles(*PAIR, "1s")
    frame = await either.frames.polars.candles(*PAIR, "1s")
    assert frame.rows(named=True) == as_rows(table)
    assert frame.schema["timestamp"] == pl.Datetime("us", "UTC")
    assert frame.schema["exchange"] == pl.Categorical
    assert frame.schema["num_trades"] == pl.Int64
    assert frame.filter(pl.col("exchange") == "BINANCE_SPOT").height == 2
    other = await either.frames.pandas.candles(*PAIR, "1s")
    assert str(other["timestamp"].dtype) == "datetime64[us, UTC]"
    assert (str(other["num_trades"].dtype), str(other["exchange"].dtype)) == ("Int64", "category")
    assert other["symbol_id"].tolist() == [market.btc.id] * 2
    assert (await either.frames.polars.latest("candles")).height == 1


async def test_many_rows_come_in_batches_that_are_the_history(committed_db: Database) -> None:
    await fill_quotes(committed_db, MANY)
    batches = [batch async for batch in committed_db.frames.batches("book_tickers", *PAIR)]
    assert len(batches) > 1
    assert pa.Table.from_batches(batches) == await committed_db.frames.history("book_tickers", *PAIR)
    newest = await committed_db.frames.history("book_tickers", *PAIR, limit=MANY - 1)
    assert newest["bid_price"].combine_chunks().equals(pa.array(range(2, MANY + 1), pa.float64()))


async def test_rows_are_turned_round_beside_the_event_loop(
    committed_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(committed_db, lambda market: quote(market.btc))
    turned = []

    def noting(batch: pa.RecordBatch) -> pa.RecordBatch:
        turned.append(threading.current_thread())
        return reversed_batch(batch)

    monkeypatch.setattr("arbstore.frames.reversed_batch", noting)
    assert len(await committed_db.frames.history("book_tickers", *PAIR, limit=1)) == 1
    assert len(turned) == 1
    assert threading.current_thread() not in turned


@pytest_asyncio.fixture
async def watched(committed_db: Database) -> AsyncIterator[Database]:
    """Yield a second Database on the same data, known to the server by its name."""
    async with opened(committed_db, statement_timeout=0) as db:  # what ends, a test has ended
        async with db.begin() as store:
            await store.exchanges.all()  # a pooled connection is there
        yield db


def opened(db: Database, **given: Any) -> Database:
    """Return another Database on the same data, to be entered, which the server knows as the watched one."""
    url = db.engine.url.render_as_string(hide_password=False)
    return Database(settings=Settings.load(database_url=url, application_name="watched", **given))


async def of_watched(db: Database, condition: str, what: str = "pid") -> int:
    """Return how many connections of the watched Database are so, by `pg_stat_activity`."""
    of_it = "application_name = 'watched' AND datname = current_database()"
    async with db.engine.connect() as connection:
        statement = f"SELECT count({what}) FROM pg_stat_activity WHERE {of_it} AND {condition}"  # noqa: S608 # ours
        return int(await connection.scalar(text(statement)) or 0)


async def end_watched(db: Database, condition: str) -> None:
    """End the one connection of the watched Database that is so."""
    assert await of_watched(db, condition, "pg_terminate_backend(pid, 5000)") == 1


async def until(db: Database, condition: str, count: int) -> None:
    async with asyncio.timeout(20):
        while await of_watched(db, condition) != count:  # noqa: ASYNC110 # what is waited for happens at the server
            await asyncio.sleep(0.01)


COPIES = "query LIKE 'COPY%'"
WAITS = "wait_event_type = 'Lock'"


async def test_a_reader_who_leaves_early_ends_what_the_server_does(committed_db: Database, watched: Database) -> None:
    await fill_quotes(committed_db, MANY)
    async with aclosing(watched.frames.batches("book_tickers", *PAIR)) as batches:
        async for batch in batches:
            assert 0 < len(batch) < MANY
            assert await of_watched(committed_db, COPIES) == 1  # the server waits
            break
    await until(committed_db, COPIES, 0)


@pytest.mark.parametrize("way", ["history", "batches", "export"])
async def test_the_loop_is_free_meanwhile_and_a_cancelled_read_ends_at_the_server(
    way: str, committed_db: Database, watched: Database, tmp_path: Path
) -> None:
    await fill(committed_db, lambda market: quote(market.btc))

    await watched.frames.history("book_tickers", *PAIR)
    async with committed_db.engine.begin() as connection:
        await connection.execute(text("LOCK TABLE book_ticker_snapshots IN ACCESS EXCLUSIVE MODE"))
        task = asyncio.create_task(read(watched, way, tmp_path / "quotes.parquet"))
        # These run on the loop while the read hangs.
        await until(committed_db, WAITS, 1)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task], timeout=20)
        assert task.cancelled()
        await until(committed_db, WAITS, 0)
    assert files(tmp_path) == []


async def test_many_reads_that_wait_hold_up_nobody_and_are_cancelled_all(committed_db: Database) -> None:
    await fill(committed_db, lambda market: quote(market.btc))
    async with (
        opened(committed_db, pool_size=READS, statement_timeout=0) as db,
        committed_db.engine.begin() as connection,
    ):
        await connection.execute(text("LOCK TABLE book_ticker_snapshots IN ACCESS EXCLUSIVE MODE"))
        tasks = [asyncio.create_task(db.frames.history("book_tickers", *PAIR)) for _ in range(READS)]
        await until(committed_db, WAITS, READS)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 20) == "free"
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=20)
        assert [task.cancelled() for task in tasks] == [True] * READS
        await until(committed_db, WAITS, 0)


async def test_many_reads_that_wait_all_end_with_the_statement_timeout(committed_db: Database, tmp_path: Path) -> None:
    await fill(committed_db, lambda market: quote(market.btc))
    async with (
        opened(committed_db, pool_size=READS, statement_timeout=1) as db,
        committed_db.engine.begin() as connection,
    ):
        await connection.execute(text("LOCK TABLE book_ticker_snapshots IN ACCESS EXCLUSIVE MODE"))
        tasks = [asyncio.create_task(read(db, "batches", tmp_path)) for _ in range(READS)]
        done, _ = await asyncio.wait(tasks, timeout=20)
        assert [type(task.exception()) for task in done] == [QueryTimeoutError] * READS


async def test_one_read_too_many_waits_for_its_turn_and_no_longer_than_for_the_pool(committed_db: Database) -> None:
    await fill(committed_db, lambda market: quote(market.btc))
    async with opened(committed_db, pool_size=1, max_overflow=0, pool_timeout=0.5, statement_timeout=0) as db:
        async with committed_db.engine.begin() as connection:
            await connection.execute(text("LOCK TABLE book_ticker_snapshots IN ACCESS EXCLUSIVE MODE"))
            first = asyncio.create_task(db.frames.history("book_tickers", *PAIR))
            await until(committed_db, WAITS, 1)
            with pytest.raises(PoolExhaustedError, match="1 frames are being read"):
                await asyncio.wait_for(db.frames.polars.history("book_tickers", *PAIR), 20)
        assert len(await first) == 1
        for _ in range(3):  # each place is given back
            assert len(await db.frames.history("book_tickers", *PAIR)) == 1


@pytest.mark.parametrize("way", ["history", "batches", "export"])
async def test_what_takes_longer_than_the_statement_timeout_is_an_error(
    way: str, committed_db: Database, tmp_path: Path
) -> None:
    await fill(committed_db, lambda market: quote(market.btc))
    async with opened(committed_db, statement_timeout=0.3) as db, committed_db.engine.begin() as connection:
        async with db.begin() as store:
            assert await store.symbols.by_pair((await store.exchanges.by_enum_one(PAIR[0])).id, *PAIR[1:])
        await connection.execute(text("LOCK TABLE book_ticker_snapshots IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(QueryTimeoutError):
            async with asyncio.timeout(20):
                await read(db, way, tmp_path / "quotes.parquet")
    assert files(tmp_path) == []


async def read(db: Database, way: str, path: Path) -> None:
    if way == "history":
        await db.frames.history("book_tickers", *PAIR)
    elif way == "batches":
        _ = [batch async for batch in db.frames.batches("book_tickers", *PAIR)]
    else:
        await db.frames.export(path, "book_tickers", *PAIR)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


IDLE = "state = 'idle' AND query LIKE 'COMMIT%'"  # of the frames; the pool's have rolled back


async def test_a_connection_that_was_read_to_its_end_serves_the_next_read(
    committed_db: Database, watched: Database
) -> None:
    await fill_quotes(committed_db, MANY)
    before = await of_watched(committed_db, "true")
    for _ in range(3):
        assert len(await watched.frames.history("book_tickers", *PAIR)) == MANY
        assert await of_watched(committed_db, "true") == before + 1
        assert await of_watched(committed_db, IDLE) == 1
    await watched.close()
    await until(committed_db, "true", 0)


async def test_no_more_connections_are_kept_than_the_pool_keeps(committed_db: Database) -> None:
    await fill_quotes(committed_db, MANY)
    async with opened(committed_db, pool_size=2, max_overflow=4) as db:
        reads = [db.frames.history("book_tickers", *PAIR) for _ in range(6)]
        assert [len(table) for table in await asyncio.gather(*reads)] == [MANY] * 6
        await until(committed_db, IDLE, 2)


async def test_connections_of_other_settings_make_room(committed_db: Database) -> None:
    await fill_quotes(committed_db, MANY)
    async with opened(committed_db, pool_size=2, max_overflow=0) as db:
        await asyncio.gather(*(db.frames.history("book_tickers", *PAIR) for _ in range(2)))
        await until(committed_db, IDLE, 2)
        async with aclosing(db.frames.batches("book_tickers", *PAIR)) as batches:  # these have no statement_timeout
            await anext(batches)
            await until(committed_db, IDLE, 1)


@pytest.mark.parametrize("leave", ["early", "cancelled"])
async def test_a_connection_that_was_not_read_to_its_end_serves_nobody_else(
    committed_db: Database, watched: Database, leave: str
) -> None:
    await fill_quotes(committed_db, MANY)
    if leave == "early":
        async with aclosing(watched.frames.batches("book_tickers", *PAIR)) as batches:
            await anext(batches)
    else:
        async with committed_db.engine.begin() as connection:
            await connection.execute(text("LOCK TABLE book_ticker_snapshots IN ACCESS EXCLUSIVE MODE"))
            task = asyncio.create_task(watched.frames.history("book_tickers", *PAIR))
            await until(committed_db, WAITS, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    await until(committed_db, COPIES, 0)
    assert await of_watched(committed_db, IDLE) == 0


async def test_a_kept_connection_that_the_server_has_closed_is_replaced(
    committed_db: Database, watched: Database
) -> None:
    await fill_quotes(committed_db, FEW)
    for _ in range(2):
        assert len(await watched.frames.history("book_tickers", *PAIR)) == FEW
        await end_watched(committed_db, IDLE)


@pytest.mark.parametrize(
    ("end", "error"), [("pg_cancel_backend", QueryTimeoutError), ("pg_terminate_backend", DatabaseConnectionError)]
)
async def test_a_statement_that_fails_is_not_tried_on_another_connection(
    committed_db: Database, monkeypatch: pytest.MonkeyPatch, end: str, error: type[DatabaseError]
) -> None:
    connects: list[Any] = []
    connect = dbapi.connect

    def counted(*given: Any, **options: Any) -> Any:
        connects.append(given)
        return connect(*given, **options)

    monkeypatch.setattr(dbapi, "connect", counted)
    await fill_quotes(committed_db, FEW)
    async with opened(committed_db) as db:
        assert len(await db.frames.history("book_tickers", *PAIR)) == FEW
        async with committed_db.engine.begin() as connection:
            await connection.execute(text("LOCK TABLE book_ticker_snapshots IN ACCESS EXCLUSIVE MODE"))
            task = asyncio.create_task(db.frames.history("book_tickers", *PAIR))
            await until(committed_db, WAITS, 1)
            assert await of_watched(committed_db, WAITS, f"{end}(pid)") == 1
            with pytest.raises(error):
                await task
        assert len(connects) == 1
        assert len(await db.frames.history("book_tickers", *PAIR)) == FEW
        assert len(connects) == 2  # what failed was closed


async def test_a_lost_connection_is_an_error_of_ours(committed_db: Database, watched: Database) -> None:
    await fill(committed_db, lambda market: quote(market.btc))
    async with committed_db.engine.begin() as connection:
        await connection.execute(text("LOCK TABLE book_ticker_snapshots IN ACCESS EXCLUSIVE MODE"))
        task = asyncio.create_task(watched.frames.history("book_tickers", *PAIR))
        await until(committed_db, WAITS, 1)
        await end_watched(committed_db, WAITS)
        with pytest.raises(DatabaseConnectionError):
            await task


async def test_a_column_that_is_missing_says_to_deploy(committed_db: Database) -> None:
    await fill(committed_db)
    async with committed_db.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE candles DROP COLUMN vwap"))
    with pytest.raises(SchemaOutOfDateError, match=r"vwap.*db upgrade"):
        await committed_db.frames.candles(*PAIR, "1m")


def test_no_password_is_in_the_error_of_a_server_that_is_not_there() -> None:
    where = conninfo({"host": "127.0.0.1", "port": 1, "user": "u", "password": "hush"}, settings(), statement_timeout=1)
    assert "password='hush'" in where
    with pytest.raises(DatabaseConnectionError) as caught:
        Reading(where, "SELECT 1", Connections(settings())).next()
    assert "hush" not in str(caught.value) + str(caught.value.__cause__)
    assert "127.0.0.1" in str(caught.value)


def settings(**given: Any) -> Settings:
    return Settings.load(database_url="postgresql://somewhere/else", **given)


def test_the_driver_is_told_what_the_settings_say() -> None:
    given = {"host": ["a", "b"], "port": [1, 2], "user": "u'", "password": "p\\ 1", "database": "d", "ssl": "require"}
    where = conninfo(given, settings(application_name="desk", connect_timeout=2.5), statement_timeout=1.5)
    assert where == (
        "host='a,b' hostaddr='' port='1,2' user='u\\'' password='p\\\\ 1' dbname='d' sslmode='require'"
        " connect_timeout='3' application_name='desk' client_encoding='UTF8'"
        " options='-c jit=off -c statement_timeout=1500'"
    )
    bouncer = conninfo(given, settings(prepared_statements=False, ssl_mode="disable"), statement_timeout=1.5)
    assert "options=''" in bouncer
    assert "sslmode='disable'" in bouncer
    assert "host='/run/x' hostaddr='' port='5433'" in conninfo(
        {}, settings(), statement_timeout=0, address="/run/x/.s.PGSQL.5433"
    )


async def test_a_url_without_a_host_leads_to_where_the_pool_is(
    committed_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(committed_db, lambda market: quote(market.btc))
    url = committed_db.engine.url
    monkeypatch.setenv("PGHOST", str(url.query.get("host", url.host)))
    monkeypatch.setenv("PGPORT", str(url.query.get("port", url.port)))
    async with Database(url.set(host=None, port=None, query={}).render_as_string(hide_password=False)) as db:
        monkeypatch.delenv("PGHOST")
        monkeypatch.delenv("PGPORT")
        assert len(await db.frames.history("book_tickers", *PAIR)) == 1


async def test_the_driver_reads_where_the_pool_writes_whatever_the_environment_says(
    committed_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(committed_db, lambda market: quote(market.btc))
    async with opened(committed_db, prepared_statements=False) as db:
        monkeypatch.setenv("PGHOSTADDR", "elsewhere")
        assert len(await db.frames.history("book_tickers", *PAIR)) == 1
        monkeypatch.delenv("PGHOSTADDR")
        monkeypatch.setenv("PGOPTIONS", "-c search_path=nowhere")
        assert len(await db.frames.history("book_tickers", *PAIR)) == 1


async def test_a_closed_database_has_no_frames_to_give(arbstore_url: str) -> None:
    with pytest.raises(ConfigurationError, match="not open"):
        await Database(arbstore_url).frames.history("book_tickers", *PAIR)


def python(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout  # noqa: S603


def test_only_who_asks_for_frames_imports_their_libraries() -> None:
    libraries = "{'pyarrow', 'polars', 'pandas', 'adbc_driver_postgresql'}"
    program = f"import sys, arbstore, arbstore.cli.app\nprint({libraries} & {{*sys.modules}})"
    assert python(program) == "set()\n"


@pytest.mark.parametrize("missing", ["pyarrow", "adbc_driver_postgresql"])
def test_without_the_extra_the_error_says_what_to_install(missing: str) -> None:
    program = (
        f"import sys\nsys.modules[{missing!r}] = None\nfrom arbstore import *\ntry:\n Database('embedded:').frames\n"
        "except ArbstoreError as error: print(type(error).__name__, error)"
    )
    assert python(program) == "ConfigurationError frames need: pip install 'arbstore[frames]'\n"


async def test_an_export_is_the_history_in_a_file_that_says_what_it_is(either: Database, tmp_path: Path) -> None:
    await fill(either, *(lambda market, n=n: quote(market.btc, 100.0 + n, NOON + n * SECOND) for n in range(5)))
    path, told = tmp_path / "quotes.parquet", []
    done = await either.frames.export(
        path, "book_tickers", *PAIR, progress=lambda rows, size: told.append((rows, size))
    )
    assert (done.path, done.rows, done.bytes) == (path, 5, path.stat().st_size)
    assert [rows for rows, _ in told] == [5]
    assert files(tmp_path) == [path]
    file = pq.ParquetFile(path)
    assert file.read().replace_schema_metadata() == await either.frames.history("book_tickers", *PAIR)
    about = msgspec.json.decode(file.schema_arrow.metadata[b"arbstore"])
    assert (about["kind"], about["series"]["exchange"], about["series"]["exchange_symbol"]) == (
        "book_tickers",
        "BINANCE_SPOT",
        "BTCUSDT",
    )
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


async def test_an_empty_export_has_the_columns(committed_db: Database, tmp_path: Path) -> None:
    await fill(committed_db)
    done = await committed_db.frames.export(tmp_path / "none.parquet", "book_tickers", *PAIR)
    empty = await committed_db.frames.history("book_tickers", *PAIR)
    assert (done.rows, pq.read_table(done.path).replace_schema_metadata()) == (0, empty)


async def test_a_file_that_is_there_stays_unless_it_may_be_replaced(committed_db: Database, tmp_path: Path) -> None:
    await fill(committed_db, lambda market: quote(market.btc))
    path = tmp_path / "quotes.parquet"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"quotes\.parquet"):
        await committed_db.frames.export(path, "book_tickers", *PAIR)
    assert path.read_text() == "mine"
    await committed_db.frames.export(path, "book_tickers", *PAIR, overwrite=True)
    assert pq.read_table(path).num_rows == 1
    assert files(tmp_path) == [path]


async def test_the_longest_name_that_a_file_may_have_is_written(committed_db: Database, tmp_path: Path) -> None:
    await fill(committed_db, lambda market: quote(market.btc))
    path = tmp_path / f"{'q' * (os.pathconf(tmp_path, 'PC_NAME_MAX') - len('.parquet'))}.parquet"
    await committed_db.frames.export(path, "book_tickers", *PAIR)
    assert files(tmp_path) == [path]


async def test_what_a_link_leads_to_is_written_and_the_link_stays(committed_db: Database, tmp_path: Path) -> None:
    await fill(committed_db, lambda market: quote(market.btc))
    target, link = tmp_path / "there" / "quotes.parquet", tmp_path / "quotes.parquet"
    target.parent.mkdir()
    target.write_text("mine")
    link.symlink_to(target)
    with pytest.raises(FileExistsError):
        await committed_db.frames.export(link, "book_tickers", *PAIR)
    done = await committed_db.frames.export(link, "book_tickers", *PAIR, overwrite=True)
    assert (done.path, link.readlink(), pq.read_table(target).num_rows) == (link, target, 1)
    assert (files(tmp_path), files(target.parent)) == ([link, target.parent], [target])


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
async def test_what_is_no_file_is_refused_before_anything_is_read(
    make: Callable[[Path], None], committed_db: Database, tmp_path: Path
) -> None:
    await fill(committed_db, lambda market: quote(market.btc))
    path, told = tmp_path / "quotes.parquet", []
    make(path)
    with pytest.raises(OSError, match=r"not a file.*quotes\.parquet"):
        await committed_db.frames.export(
            path, "book_tickers", *PAIR, overwrite=True, progress=lambda *done: told.append(done)
        )
    assert (told, files(tmp_path)) == ([], [path])
    assert not path.is_file()


async def test_an_export_that_fails_or_is_cancelled_leaves_nothing(committed_db: Database, tmp_path: Path) -> None:
    await fill_quotes(committed_db, MANY)
    started = asyncio.Event()
    export = committed_db.frames.export(
        tmp_path / "quotes.parquet", "book_tickers", *PAIR, progress=lambda *_: started.set()
    )
    task = asyncio.create_task(export)
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(tmp_path) == []
    with pytest.raises(UnknownSymbolError):
        await committed_db.frames.export(tmp_path / "x.parquet", "book_tickers", "BINANCE_SPOT", "NO", "USDT")
    assert files(tmp_path) == []


async def test_an_export_that_is_cancelled_again_while_it_cleans_up_leaves_nothing(
    committed_db: Database, tmp_path: Path
) -> None:
    await fill_quotes(committed_db, MANY)
    started, free = asyncio.Event(), threading.Event()
    path = tmp_path / "quotes.parquet"
    task = asyncio.create_task(
        committed_db.frames.export(path, "book_tickers", *PAIR, progress=lambda *_: started.set())
    )
    await started.wait()
    with ThreadPoolExecutor(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        threads.submit(free.wait)  # what cleans up has to wait for its turn
        while not task.done():  # on a busy machine the second cancel can come before the clean-up has begun
            task.cancel()
            await asyncio.sleep(0.1)
        assert task.cancelled()
        free.set()
        async with asyncio.timeout(20):
            while files(tmp_path):  # noqa: ASYNC110 # a folder has no event for it
                await asyncio.sleep(0.01)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())


async def test_a_full_disk_is_an_error_that_names_the_file(committed_db: Database, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    await fill_quotes(committed_db, 10_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))  # of this process; the server has its own
    try:
        with pytest.raises(OSError, match=r"cannot be written.*quotes\.parquet"):
            await committed_db.frames.export(tmp_path / "quotes.parquet", "book_tickers", *PAIR)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == []


async def test_a_folder_that_is_not_there_is_named(committed_db: Database, tmp_path: Path) -> None:
    await fill(committed_db)
    with pytest.raises(OSError, match=r"cannot be written: No such file.*nowhere"):
        await committed_db.frames.export(tmp_path / "nowhere" / "quotes.parquet", "book_tickers", *PAIR)


async def test_a_query_is_resolved_once_and_can_be_run_by_anybody(db: Database) -> None:
    market = await fill(db, *(lambda found, n=n: quote(found.btc, 1.0, NOON + n * SECOND) for n in range(4)))
    async with db.session() as session:
        query = await Store(session, db.cache).book_tickers.query(*PAIR, limit=3)
    assert query.constants["symbol_id"] == market.btc.id
    assert "symbol_id" not in oldest_first(query).selected_columns
    async with db.session() as session:
        rows = await Store(session, db.cache).series(query.kind).fetch(query)
    assert [row.timestamp for row in rows] == [NOON + n * SECOND for n in (1, 2, 3)]
