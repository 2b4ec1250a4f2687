from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace
from sqlalchemy import delete, event, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from alembic_timescaledb import server
from alembic_timescaledb.server import Feature
from arbstore import models
from arbstore.database import Database, Store
from arbstore.errors import DatabaseConnectionError, UnknownSymbolError, ValidationError
from arbstore.postgres import upsert as bulk
from arbstore.postgres.upsert import InsertResult
from arbstore.records import BookTicker, Exchange, Side, Symbol, Trade, columns
from tests.conftest import NOON, listing, quote

TABLE = models.BookTickerSnapshot.__table__
NEVER = 10**9

# From how many rows on: COPY inside a savepoint, and for keys that exist a temporary table.
WAYS = {"arrays": (NEVER, NEVER), "copy": (1, NEVER), "copy and a table": (1, 1)}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    worth_a_savepoint, worth_a_table = WAYS[request.param]
    monkeypatch.setattr(bulk, "_WORTH_A_SAVEPOINT", worth_a_savepoint)
    monkeypatch.setattr(bulk, "_WORTH_A_TABLE", worth_a_table)
    return str(request.param)


@contextmanager
def statements(db: Database) -> Iterator[list[str]]:
    """What SQLAlchemy sends meanwhile: COPY itself is not among it, its savepoint is."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        sent.append(" ".join(statement.split()[:2]))

    event.listen(db.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(db.engine.sync_engine, "before_cursor_execute", note)


def at(seconds: float) -> Any:
    return NOON + timedelta(seconds=seconds)


async def listed(db: Database) -> Symbol:
    async with db.begin() as store:
        exchange = await store.exchanges.add("BINANCE_SPOT")
        return await store.symbols.add(exchange.id, listing("BTC"))


async def bids(db: Database) -> list[float]:
    async with db.begin() as store:
        return [row.bid_price for row in await store.book_tickers.history("BINANCE_SPOT", "BTC", "USDT")]


@pytest.mark.usefixtures("way")
async def test_the_last_of_equal_keys_wins_and_the_others_are_counted(store: Store, symbol: Symbol) -> None:
    batch = [quote(symbol, 1.0), quote(symbol, 2.0, at(1)), quote(symbol, 3.0)]
    assert await store.book_tickers.insert(batch) == InsertResult(given=3, written=2, superseded=1)
    stored = await store.book_tickers.history("BINANCE_SPOT", "BTC", "USDT")
    assert [row.bid_price for row in stored] == [3.0, 2.0]


@pytest.mark.usefixtures("way")
async def test_a_later_write_wins_over_what_is_stored_in_every_column(store: Store, symbol: Symbol) -> None:
    await store.book_tickers.insert([quote(symbol, 1.0)])
    later = BookTicker(
        symbol_id=symbol.id, timestamp=NOON, bid_price=5.0, bid_qty=6.0, ask_price=7.0, ask_qty=8.0, created_at=at(9)
    )
    await store.book_tickers.insert([later])
    (row,) = await store.book_tickers.history("BINANCE_SPOT", "BTC", "USDT")
    assert (row.bid_price, row.bid_qty, row.ask_price, row.ask_qty, row.created_at) == (5.0, 6.0, 7.0, 8.0, at(9))


async def test_an_empty_batch_writes_nothing(store: Store) -> None:
    assert await store.book_tickers.insert([]) == InsertResult(0, 0, 0)


@pytest.mark.parametrize("series", [1, 3, 60])
async def test_rows_go_in_sorted_by_key(store: Store, exchange: Exchange, db: Database, series: int) -> None:
    symbols = await store.symbols.add_many(exchange.id, [listing(f"COIN{number}") for number in range(series)])
    sent: list[Any] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:
        if "INSERT INTO book_ticker_snapshots" in statement:
            sent.append(parameters)

    shuffled = Random(1).sample(range(240), 240)  # noqa: S311 # an order, and no secret
    rows = [quote(symbols[number % series], 1.0 + number, at(number // 2 // series)) for number in shuffled]
    event.listen(db.engine.sync_engine, "before_cursor_execute", note)
    try:
        await store.book_tickers.insert(rows)
    finally:
        event.remove(db.engine.sync_engine, "before_cursor_execute", note)
    (parameters,) = sent
    times, ids, bids = [values for values in parameters if isinstance(values, list)][:3]
    # Of each two rows of a key the later one.
    last = {(row.symbol_id, row.timestamp): row.bid_price for row in rows}
    assert list(zip(ids, times, bids, strict=True)) == [(*key, last[key]) for key in sorted(last)]


async def test_writers_of_overlapping_keys_in_different_orders_do_not_deadlock(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        exchange = await store.exchanges.add("BINANCE_SPOT")
        symbol = await store.symbols.add(exchange.id, listing("BTC"))
    rows = [quote(symbol, 1.0, at(number / 1000)) for number in range(2_000)]

    async def write(batch: list[BookTicker]) -> InsertResult:
        async with committed_db.begin() as store:
            return await store.book_tickers.insert(batch)

    for _ in range(5):
        results = await asyncio.gather(write(rows), write(rows[::-1]), write(rows[::2] + rows[1::2]))
        assert [result.written for result in results] == [2_000] * 3


@pytest.mark.usefixtures("way")
async def test_a_rollback_leaves_nothing_of_a_session_whose_first_act_is_a_bulk_write(committed_db: Database) -> None:
    symbol = await listed(committed_db)
    async with committed_db.session() as session:
        await bulk.upsert(session, TABLE, columns(BookTicker, [quote(symbol)]))
        await session.rollback()
    assert await bids(committed_db) == []


async def test_each_batch_goes_the_way_that_is_the_cheapest(committed_db: Database) -> None:
    symbol = await listed(committed_db)

    async def sent(rows: list[BookTicker]) -> list[str]:
        with statements(committed_db) as found:
            async with committed_db.begin() as store:
                await store.book_tickers.insert(rows)
        return found

    rows = [quote(symbol, 1.0, at(number / 100)) for number in range(6_000)]
    probe, savepoint, release = "SELECT EXISTS", "SAVEPOINT sa_savepoint_1", "RELEASE SAVEPOINT"
    marked, mark, merge = "WITH written", "SELECT CASE", "INSERT INTO"
    table = ["SELECT has_database_privilege(current_database(),", "CREATE TEMPORARY", merge, "DROP TABLE"]
    assert await sent(rows[:499]) == [marked]
    assert await sent(rows[499:1_000]) == [probe, savepoint, release, mark]
    assert await sent(rows[:1_000]) == [probe, savepoint, merge, release, mark]
    assert await sent(rows) == [probe, savepoint, *table, release, mark]
    later = [quote(symbol, 1.0, at(100 + number / 100)) for number in range(6_000)]
    assert await sent(later[3_000:3_001]) == [marked]
    # Neither its first row nor its last is there: only COPY itself meets the one between them.
    assert await sent(later) == [probe, savepoint, "ROLLBACK TO", "SAVEPOINT sa_savepoint_2", *table, release, mark]
    assert await bids(committed_db) == [1.0] * 12_000


@pytest.mark.usefixtures("way")
async def test_rows_that_exist_and_rows_that_do_not_go_in_together(committed_db: Database) -> None:
    symbol = await listed(committed_db)
    for bid, seconds in ((1.0, range(0, 10, 2)), (2.0, range(3, 8)), (3.0, range(10))):
        async with committed_db.begin() as store:
            written = await store.book_tickers.insert([quote(symbol, bid, at(second)) for second in seconds])
        assert written.written == len(seconds)
        expected = {3.0: [3.0] * 10, 2.0: [1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0], 1.0: [1.0] * 5}
        assert await bids(committed_db) == expected[bid]


@pytest.mark.usefixtures("way")
async def test_a_row_that_says_what_is_stored_is_not_written_again(committed_db: Database) -> None:
    symbol = await listed(committed_db)
    rows = [quote(symbol, 1.0, at(number)) for number in range(3)]

    async def insert(*batch: BookTicker) -> dict[Any, Any]:
        async with committed_db.begin() as store:
            assert await store.book_tickers.insert(batch) == InsertResult(3, 3, 0)
            stored = await store.session.execute(text(f"SELECT timestamp, ctid, created_at FROM {TABLE.name}"))  # noqa: S608
            return {moment: tuple(rest) for moment, *rest in stored}

    first = await insert(*rows)
    assert await insert(*rows) == first
    then = await insert(rows[0], replace(rows[1], ask_qty=9.0), replace(rows[2], created_at=at(9)))
    assert [moment for moment in first if then[moment] != first[moment]] == [at(1), at(2)]
    assert (then[at(1)][1] > first[at(1)][1], then[at(2)][1]) == (True, at(9))


@pytest.mark.usefixtures("way")
async def test_a_time_of_receipt_that_is_given_is_stored_be_it_the_transactions(committed_db: Database) -> None:
    symbol = await listed(committed_db)
    async with committed_db.begin() as store:
        await store.book_tickers.insert([replace(quote(symbol), created_at=at(1))])
    async with committed_db.begin() as store:
        now = await store.session.scalar(select(func.now()))
        await store.book_tickers.insert([replace(quote(symbol), created_at=now)])
        (stored,) = await store.book_tickers.latest()
    assert stored.created_at == now


@pytest.mark.usefixtures("way")
async def test_several_batches_go_into_one_transaction(store: Store, symbol: Symbol) -> None:
    for bid in (1.0, 2.0, 3.0):
        await store.book_tickers.insert([quote(symbol, bid, at(second)) for second in range(5)])
        await store.trades.insert(
            [
                Trade(symbol_id=symbol.id, timestamp=NOON, trade_id=str(number), price=bid, quantity=1.0, side=Side.BUY)
                for number in range(5)
            ]
        )
    assert {row.bid_price for row in await store.book_tickers.history("BINANCE_SPOT", "BTC", "USDT")} == {3.0}
    assert len(await store.trades.history("BINANCE_SPOT", "BTC", "USDT")) == 5


@pytest.mark.usefixtures("way")
async def test_the_servers_clock_stands_in_where_no_time_of_receipt_is_given(store: Store, symbol: Symbol) -> None:
    now = await store.session.scalar(select(func.now()))
    for bid, received in enumerate(([None, None], [at(5), None], [at(6), at(7)], [None, at(8)]), 1):
        rows = [replace(quote(symbol, bid, at(number)), created_at=value) for number, value in enumerate(received)]
        await store.book_tickers.insert(rows)
        stored = await store.book_tickers.history("BINANCE_SPOT", "BTC", "USDT")
        assert [row.created_at for row in stored] == [value or now for value in received]


@pytest.mark.usefixtures("way")
async def test_a_refused_batch_leaves_nothing_behind(committed_db: Database) -> None:
    symbol = await listed(committed_db)
    unknown = replace(quote(symbol, 1.0, at(2)), symbol_id=symbol.id + 1)
    async with committed_db.session() as session:
        with pytest.raises(UnknownSymbolError):
            await bulk.upsert(session, TABLE, columns(BookTicker, [quote(symbol), unknown]))
        await session.rollback()
    assert await bids(committed_db) == []


async def test_after_a_refused_copy_the_transaction_goes_on(committed_db: Database) -> None:
    symbol = await listed(committed_db)
    rows = [quote(symbol, 1.0, at(number)) for number in range(600)]
    async with committed_db.begin() as store:
        await store.book_tickers.insert([quote(symbol, 5.0, at(-1))])
        with pytest.raises(UnknownSymbolError):
            await store.book_tickers.insert([*rows, replace(rows[0], symbol_id=symbol.id + 1)])
        await store.book_tickers.insert(rows[:1])
    assert await bids(committed_db) == [5.0, 1.0]


async def without_columnstore(session: AsyncSession) -> list[str]:
    """Return what takes the table's columnstore away, where it has one: those have no row-level security."""
    edition = await session.run_sync(lambda sync: server.edition(sync.connection()))
    if not edition.has(Feature.COLUMNSTORE):
        return []
    return [
        f"CALL remove_columnstore_policy('{TABLE.name}')",
        f"ALTER TABLE {TABLE.name} SET (timescaledb.enable_columnstore = false)",
    ]


@pytest.mark.parametrize("obstacle", ["REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC", "row level security"])
async def test_a_role_that_may_not_all_that_copy_wants_writes_all_the_same(
    committed_db: Database, obstacle: str
) -> None:
    symbol = await listed(committed_db)
    rows = [quote(symbol, 1.0, at(number / 100)) for number in range(6_000)]
    async with committed_db.session() as session:
        database = await session.scalar(select(func.quote_ident(func.current_database())))
        statements = [obstacle.format(database=database)]
        if obstacle == "row level security":
            statements = [
                *await without_columnstore(session),
                "ALTER TABLE book_ticker_snapshots ENABLE ROW LEVEL SECURITY",
                "CREATE POLICY all_of_them ON book_ticker_snapshots USING (true) WITH CHECK (true)",
            ]
        name = f"writer_{uuid4().hex}"
        statements += [f"CREATE ROLE {name}", f"GRANT SELECT, INSERT, UPDATE ON book_ticker_snapshots TO {name}"]
        statements += [f"GRANT SELECT ON symbols TO {name}", f"SET LOCAL ROLE {name}"]
        for statement in statements:
            await session.execute(text(statement))
        for batch in (rows[:600], rows, rows):
            await bulk.upsert(session, TABLE, columns(BookTicker, batch))
        assert await session.scalar(select(func.count()).select_from(TABLE)) == 6_000
        await session.rollback()


async def test_tables_of_the_names_that_a_merge_uses_are_left_alone(committed_db: Database) -> None:
    symbol = await listed(committed_db)
    rows = [quote(symbol, 1.0, at(number / 100)) for number in range(6_000)]
    async with committed_db.begin() as store:
        await store.session.execute(text("CREATE TABLE arbstore_book_ticker_snapshots (mine integer)"))
        await store.session.execute(text("SET LOCAL search_path = public, pg_temp"))
        for _ in range(2):
            await store.book_tickers.insert(rows)
        mine = text("SELECT count(mine) FROM arbstore_book_ticker_snapshots")
        assert await store.session.scalar(mine) == 0
    assert await bids(committed_db) == [1.0] * 6_000


async def test_without_a_transaction_each_batch_is_one_statement(committed_db: Database) -> None:
    symbol = await listed(committed_db)
    rows = [quote(symbol, 1.0, at(number / 100)) for number in range(6_000)]
    async with AsyncSession(committed_db.engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        await bulk.upsert(session, TABLE, columns(BookTicker, rows))
        await session.rollback()
    assert await bids(committed_db) == [1.0] * 6_000


async def test_a_schema_that_the_engine_translates_is_where_the_rows_go(committed_db: Database) -> None:
    symbol = await listed(committed_db)
    engine = committed_db.engine.execution_options(schema_translate_map={None: "other desk"})
    async with AsyncSession(engine) as session:
        await session.execute(text('CREATE SCHEMA "other desk"'))
        await session.execute(
            text('CREATE TABLE "other desk".book_ticker_snapshots (LIKE book_ticker_snapshots INCLUDING ALL)')
        )
        for rows in ([quote(symbol, 1.0, at(number)) for number in range(600)], [quote(symbol)]):
            await bulk.upsert(session, TABLE, columns(BookTicker, rows))
        assert await session.scalar(select(func.count()).select_from(TABLE)) == 600
        await session.rollback()
    assert await bids(committed_db) == []


async def test_a_cancelled_copy_leaves_nothing_and_its_connection_is_of_use(committed_db: Database) -> None:
    symbol = await listed(committed_db)
    rows = [quote(symbol, 1.0, at(number / 1000)) for number in range(50_000)]

    async def write() -> None:
        async with committed_db.begin() as store:
            await store.book_tickers.insert(rows)

    for hops in range(1, 40, 3):
        writing = asyncio.ensure_future(write())
        for _ in range(hops):
            await asyncio.sleep(0.003)
        writing.cancel()
        done, _ = await asyncio.wait([writing])
        assert done.pop().cancelled() or await bids(committed_db) == [1.0] * 50_000
        async with committed_db.begin() as store:
            await store.session.execute(delete(TABLE))


async def test_a_connection_that_is_lost_in_a_copy_is_an_error_and_leaves_nothing(committed_db: Database) -> None:
    symbol = await listed(committed_db)
    rows = [quote(symbol, 1.0, at(number / 1000)) for number in range(50_000)]
    with pytest.raises(DatabaseConnectionError):  # noqa: PT012 # where it is noticed is not what matters
        async with committed_db.begin() as store:
            process = await store.session.scalar(select(func.pg_backend_pid()))
            writing = asyncio.ensure_future(store.book_tickers.insert(rows))
            async with committed_db.begin() as other:
                await other.session.execute(select(func.pg_terminate_backend(process)))
            await writing
    assert await bids(committed_db) == []


async def test_a_batch_with_a_bad_row_is_refused_before_anything_is_sent(store: Store, symbol: Symbol) -> None:
    batch = [quote(symbol), quote(symbol, -1.0, at(1)), quote(symbol, 2.0, at(2))]
    with pytest.raises(ValidationError, match="row 1, bid_price") as refused:
        await store.book_tickers.insert(batch)
    assert (refused.value.row, refused.value.field) == (1, "bid_price")
    # The transaction goes on, and holds nothing of the batch.
    assert await store.book_tickers.latest() == []


def test_counts_of_batches_add_up() -> None:
    assert InsertResult(3, 2, 1) + InsertResult(4, 4, 0) == InsertResult(7, 6, 1)


async def test_a_large_batch_may_leave_a_column_to_the_server_in_some_rows(committed_db: Database) -> None:
    symbol = await listed(committed_db)
    rows = [replace(quote(symbol, 1.0, at(n / 100)), created_at=at(n) if n % 2 else None) for n in range(600)]
    async with committed_db.begin() as store:
        assert (await store.book_tickers.insert(rows)).written == 600
    async with committed_db.begin() as store:
        stored = await store.book_tickers.history_by_id(symbol.id)
    assert [row.created_at for row in stored[1::2]] == [at(n) for n in range(1, 600, 2)]
    assert all(row.created_at > at(600) for row in stored[::2])  # the server's clock
