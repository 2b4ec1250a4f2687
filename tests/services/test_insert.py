from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, select, text

from arbstore.database import Database, Store
from arbstore.errors import UnknownExchangeError, UnknownSymbolError, ValidationError
from arbstore.kinds import KINDS
from arbstore.postgres.upsert import InsertResult
from arbstore.records import Balance, BookTicker, CollectorStatus, Opportunity, Trade
from tests.conftest import NOON
from tests.records.samples import SERVICES, TABLES, mapping, with_fields
from tests.services.cases import Case, Market, every_path, every_path_and_decimals, every_series, open_market

MINUTE = timedelta(minutes=1)


async def count(store: Store, case: Case) -> int:
    return int((await store.session.execute(select(func.count()).select_from(TABLES[case.kind]))).scalar_one())


@every_series
async def test_every_field_comes_back_as_it_was_given(store: Store, market: Market, case: Case) -> None:
    row = case.row(market)
    assert await case.service(store).insert([row]) == InsertResult(given=1, written=1, superseded=0)
    assert await case.history(store) == [case.expected(market, row)]
    assert await case.latest(store) == [case.expected(market, row)]


@every_path_and_decimals
async def test_fields_that_may_be_none_come_back_as_none(store: Store, market: Market, case: Case) -> None:
    empty: dict[str, Any] = dict.fromkeys(nullable(case))
    row = case.row(market, **empty)
    await case.service(store).insert([row])
    assert await case.history(store) == [case.expected(market, row)]


def nullable(case: Case) -> list[str]:
    return [column.name for column in KINDS[SERVICES[case.kind]].columns if column.nullable]


@every_path_and_decimals
async def test_mappings_are_written_as_records_are(store: Store, market: Market, case: Case) -> None:
    rows = [case.row(market), case.row(market, NOON + MINUTE)]
    assert await case.service(store).insert(mapping(row) for row in rows) == InsertResult(2, 2, 0)
    assert await case.history(store) == [case.expected(market, row) for row in rows]


@every_path
async def test_the_last_of_equal_keys_wins_and_the_others_are_counted(store: Store, market: Market, case: Case) -> None:
    first, other, last = case.row(market), case.row(market, NOON + MINUTE), case.other(market)
    assert await case.service(store).insert([first, other, first, last]) == InsertResult(4, 2, 2)
    assert await case.history(store) == [case.expected(market, last), case.expected(market, other)]


@every_path_and_decimals
async def test_a_later_write_wins_over_an_earlier_one_in_every_column(store: Store, market: Market, case: Case) -> None:
    rows = [case.row(market), case.row(market, NOON + MINUTE)]
    await case.service(store).insert(rows)
    received = NOON + timedelta(seconds=30)
    empty: dict[str, Any] = dict.fromkeys(nullable(case))
    for changed in (case.other(market, created_at=received), case.row(market, **empty)):
        assert await case.service(store).insert([changed]) == InsertResult(1, 1, 0)
        assert await case.history(store) == [case.expected(market, row) for row in (changed, rows[1])]


@every_path
async def test_a_bad_row_keeps_the_whole_batch_out(store: Store, market: Market, case: Case) -> None:
    bad = with_fields(case.row(market), timestamp=datetime(2024, 8, 8))  # noqa: DTZ001 # naive is the fault
    with pytest.raises(ValidationError) as caught:
        await case.service(store).insert([case.row(market), mapping(case.row(market, NOON + MINUTE)), bad])
    assert (caught.value.row, caught.value.field) == (2, "timestamp")
    assert await count(store, case) == 0


@every_path
async def test_a_refused_batch_leaves_the_transaction_usable(store: Store, market: Market, case: Case) -> None:
    with pytest.raises(ValidationError):
        await case.service(store).insert([case.row(market), {}])
    assert await case.service(store).insert([case.row(market)]) == InsertResult(1, 1, 0)


@every_path
async def test_a_series_that_is_not_registered_is_refused_and_nothing_written(
    store: Store, market: Market, case: Case
) -> None:
    unknown: dict[str, Any] = {"exchange_id" if case.of_exchange else "symbol_id": 32_000}
    rows = [case.row(market), case.row(market, NOON + MINUTE, **unknown)]
    with pytest.raises(UnknownExchangeError if case.of_exchange else UnknownSymbolError, match="32000"):
        async with store.session.begin_nested():
            await case.service(store).insert(rows)
    assert await count(store, case) == 0


@pytest.mark.parametrize("side", ["buy_exchange_id", "sell_exchange_id"])
async def test_an_opportunity_of_an_unknown_exchange_is_refused(store: Store, market: Market, side: str) -> None:
    row = with_fields(Case(Opportunity).row(market), **{side: 32_000})
    with pytest.raises(UnknownExchangeError, match="32000"):
        await store.opportunities.insert([row])


@every_path
async def test_an_empty_batch_is_no_error(store: Store, market: Market, case: Case) -> None:
    assert await case.service(store).insert([]) == InsertResult(0, 0, 0)
    assert await case.service(store).insert(iter(())) == InsertResult(0, 0, 0)


@every_path
async def test_created_at_is_the_servers_clock_where_it_is_not_given(store: Store, market: Market, case: Case) -> None:
    given = case.row(market)
    await case.service(store).insert([case.row(market, NOON + MINUTE, created_at=None), given])
    clock = await store.session.scalar(select(func.now()))
    assert [row.created_at for row in await case.history(store)] == [given.created_at, clock]


async def test_what_was_read_back_can_be_written_again(store: Store, market: Market) -> None:
    await store.book_tickers.insert([Case(BookTicker).row(market)])
    rows = await store.book_tickers.latest()
    assert await store.book_tickers.insert(rows) == InsertResult(1, 1, 0)
    assert await store.book_tickers.latest() == rows


async def test_names_are_normalised_before_keys_are_compared(store: Store, market: Market) -> None:
    rows = [with_fields(Case(Balance).row(market), asset_name=name) for name in ("eth", " ETH", "Eth", "USDT")]
    assert await store.balances.insert(rows) == InsertResult(4, 2, 2)


async def test_trades_of_one_instant_are_told_apart_by_their_ids(store: Store, market: Market) -> None:
    rows = [Case(Trade).row(market, trade_id=number) for number in ("9", "10", "11", "10")]
    assert await store.trades.insert(rows) == InsertResult(4, 3, 1)
    assert [trade.trade_id for trade in await Case(Trade).history(store)] == ["10", "11", "9"]  # in the order of texts


async def test_the_hour_that_clocks_repeat_loses_no_row(store: Store, market: Market) -> None:
    twice = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    rows = [Case(BookTicker).row(market, moment) for moment in (twice, twice.replace(fold=1))]
    assert await store.book_tickers.insert(rows) == InsertResult(2, 2, 0)
    assert [row.timestamp.hour for row in await Case(BookTicker).history(store)] == [0, 1]


async def test_one_instant_given_in_two_zones_is_one_row(store: Store, market: Market) -> None:
    twice = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    rows = [Case(BookTicker).row(market, moment) for moment in (twice, twice.astimezone(UTC))]
    assert await store.book_tickers.insert(rows) == InsertResult(2, 1, 1)


async def test_microseconds_are_kept(store: Store, market: Market) -> None:
    moments = [NOON + timedelta(microseconds=number) for number in range(3)]
    await store.book_tickers.insert([Case(BookTicker).row(market, moment) for moment in moments])
    assert [row.timestamp for row in await Case(BookTicker).history(store)] == moments


async def test_a_batch_larger_than_one_statement_is_counted_and_superseded_as_one(store: Store, market: Market) -> None:
    start = Case(BookTicker).row(market)
    rows: list[Any] = [with_fields(start, timestamp=NOON + timedelta(seconds=second)) for second in range(50_001)]
    rows.append(with_fields(start, bid_qty=77.0))
    assert await store.book_tickers.insert(rows) == InsertResult(50_002, 50_001, 1)
    (oldest,) = await store.book_tickers.history("BINANCE_SPOT", "BTC", "USDT", until=NOON + timedelta(seconds=1))
    assert oldest.bid_qty == 77.0
    assert await count(store, Case(BookTicker)) == 50_001


def test_results_add_up() -> None:
    assert InsertResult(3, 2, 1) + InsertResult(1, 1, 0) == InsertResult(4, 3, 1)


async def test_what_a_rolled_back_transaction_wrote_is_gone(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        market = await open_market(store)

    async def fail() -> None:
        async with committed_db.begin() as store:
            await store.collectors.insert([Case(CollectorStatus).row(market)])
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    async with committed_db.begin() as store:
        assert await store.collectors.latest() == []


async def test_rows_are_sent_in_the_order_of_their_key(store: Store, market: Market) -> None:
    moments = [NOON + MINUTE * number for number in (2, 0, 1)]
    rows = [Case(BookTicker).row(market, moment, symbol) for symbol in (market.eth, market.btc) for moment in moments]
    await store.book_tickers.insert(rows)
    # A heap that was empty keeps the order in which rows came: their place tells it.
    places = text("SELECT symbol_id, timestamp FROM book_ticker_snapshots ORDER BY tableoid, ctid")
    written = [tuple(row) for row in await store.session.execute(places)]
    assert written == sorted(written)


@pytest.mark.parametrize("field", ["symbol_id", "buy_exchange_id", "sell_exchange_id"])
async def test_what_is_missing_is_told_after_years_of_chunks_too(committed_db: Database, field: str) -> None:
    """A chunk numbers its constraints before their names, and cuts those off at 63 bytes."""
    async with committed_db.begin() as store:
        row = with_fields(Case(Opportunity).row(await open_market(store)), **{field: 32_000})
        counters = text(
            "SELECT setval(format('%I.%I', schemaname, sequencename), 1234567) FROM pg_sequences"
            " WHERE sequencename IN ('chunk_id_seq', 'chunk_constraint_name')"
        )
        await store.session.execute(counters)
        with pytest.raises(UnknownSymbolError if field == "symbol_id" else UnknownExchangeError, match="32000"):
            await store.opportunities.insert([row])
        await store.session.rollback()
