from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import pytest
from sqlalchemy import update

from alembic_timescaledb.declare import declared
from arbstore.database import Store
from arbstore.errors import UnknownExchangeError, ValidationError
from arbstore.models import Base
from arbstore.records import Balance, BookTicker, Opportunity
from tests.conftest import NOON
from tests.services.cases import (
    Case,
    Market,
    every_path,
    every_path_of_symbols,
    every_series_with_parts,
    perpetual,
)

MINUTE = timedelta(minutes=1)
FILTERS = {
    "asset_name": "asset",
    "collector": "collector",
    "timeframe": "timeframe",
    "window_seconds": "window_seconds",
}


class Venue(Enum):
    SPOT = "binance_spot"
    UNKNOWN = "KRAKEN_SPOT"


def owners(rows: list[Any]) -> list[tuple[str, str]]:
    return [(row.exchange, getattr(row, "symbol_base", "")) for row in rows]


async def fill(store: Store, market: Market, case: Case, at: datetime = NOON) -> None:
    """Write two rows for each symbol, or for each exchange where that is the owner."""
    symbols = (market.btc, market.perpetual) if case.of_exchange else (market.btc, market.eth, market.perpetual)
    rows = [case.row(market, moment, symbol) for symbol in symbols for moment in (at - MINUTE, at)]
    await case.service(store).insert(rows)


async def deactivate(store: Store, table: str, row_id: int) -> None:
    target = Base.metadata.tables[table]
    await store.session.execute(update(target).where(target.c.id == row_id).values(is_active=False))


@every_path
async def test_the_newest_row_of_each_series_in_the_order_of_their_names(
    store: Store, market: Market, case: Case
) -> None:
    await fill(store, market, case)
    found = await case.latest(store)
    both = [("BINANCE_SPOT", "BTC"), ("BINANCE_SPOT", "ETH"), ("GATEIO_FUTURES", "BTC")]
    assert owners(found) == ([("BINANCE_SPOT", ""), ("GATEIO_FUTURES", "")] if case.of_exchange else both)
    assert {row.timestamp for row in found} == {NOON}


@every_path
async def test_series_whose_newest_rows_lie_far_apart_are_all_found(store: Store, market: Market, case: Case) -> None:
    """Some in the last chunks, some where is looked next, some in none of those."""
    now = datetime.now(UTC).replace(microsecond=0)  # candles begin with a second
    interval = declared(case.service(store).table)
    assert interval is not None
    newest = {
        symbol.id: now - chunks * interval.chunk_interval
        for symbol, chunks in ((market.btc, 40), (market.eth, 10), (market.perpetual, 0))
    }
    symbols = (market.btc, market.perpetual) if case.of_exchange else (market.btc, market.eth, market.perpetual)
    rows = [case.row(market, newest[symbol.id] - number * MINUTE, symbol) for symbol in symbols for number in (0, 1)]
    await case.service(store).insert(rows)
    for max_age in (None, timedelta(days=900)):
        found = await case.latest(store, max_age=max_age)
        assert [row.timestamp for row in found] == [newest[symbol.id] for symbol in symbols]
        assert owners(found) == sorted(owners(found))


@every_path
async def test_newest_is_by_the_exchanges_clock_not_by_the_order_of_writes(
    store: Store, market: Market, case: Case
) -> None:
    newest = case.row(market, NOON)
    for row in (case.row(market, NOON - MINUTE), newest, case.row(market, NOON - 2 * MINUTE)):
        await case.service(store).insert([row])
    assert await case.latest(store) == [case.expected(market, newest)]


@every_path
async def test_nothing_stored_is_no_error(store: Store, market: Market, case: Case) -> None:
    assert await case.latest(store) == []
    assert await case.latest(store, market.spot.enum_value) == []


@every_path
async def test_one_exchange_by_text_or_enum_in_any_case(store: Store, market: Market, case: Case) -> None:
    await fill(store, market, case)
    for exchange in ("BINANCE_SPOT", "binance_spot", " Binance_Spot ", Venue.SPOT):
        found = await case.latest(store, exchange)
        assert {row.exchange for row in found} == {"BINANCE_SPOT"}
        assert len(found) == (1 if case.of_exchange else 2)


@every_path
async def test_an_unknown_exchange_is_an_error_and_no_empty_answer(store: Store, market: Market, case: Case) -> None:
    for exchange in ("KRAKEN_SPOT", Venue.UNKNOWN, "", "no exchange"):
        with pytest.raises(UnknownExchangeError):
            await case.latest(store, exchange)


@every_path_of_symbols
async def test_any_of_exchange_base_and_quote_filters(store: Store, market: Market, case: Case) -> None:
    await fill(store, market, case)
    spot, ether, futures = ("BINANCE_SPOT", "BTC"), ("BINANCE_SPOT", "ETH"), ("GATEIO_FUTURES", "BTC")
    filters: dict[tuple[str | None, str | None, str | None], list[tuple[str, str]]] = {
        (None, "btc", None): [spot, futures],
        (None, None, "Usdt"): [spot, ether, futures],
        (None, "ETH", " usdt"): [ether],
        ("gateio_futures", "BTC", None): [futures],
        ("gateio_futures", None, "USDT"): [futures],
        ("BINANCE_SPOT", "BTC", "USDT"): [spot],
        ("GATEIO_FUTURES", "ETH", "USDT"): [],
        (None, "BTC", "EUR"): [],
        (None, "", None): [],
    }
    for given, expected in filters.items():
        assert owners(await case.latest(store, *given)) == expected, given


@every_path_of_symbols
async def test_inactive_symbols_are_left_out(store: Store, market: Market, case: Case) -> None:
    await fill(store, market, case)
    await deactivate(store, "symbols", market.btc.id)
    assert owners(await case.latest(store)) == [("BINANCE_SPOT", "ETH"), ("GATEIO_FUTURES", "BTC")]
    assert await case.latest(store, "BINANCE_SPOT", "BTC", "USDT") == []


@every_path
async def test_inactive_exchanges_are_left_out(store: Store, market: Market, case: Case) -> None:
    await fill(store, market, case)
    await deactivate(store, "exchanges", market.spot.id)
    assert {row.exchange for row in await case.latest(store)} == {"GATEIO_FUTURES"}
    assert await case.latest(store, "BINANCE_SPOT") == []


@every_path
async def test_what_is_older_than_max_age_is_left_out(store: Store, market: Market, case: Case) -> None:
    now = datetime.now(UTC).replace(microsecond=0)  # candles begin with a second
    fresh, stale = case.row(market, now - MINUTE), case.row(market, now - 2 * MINUTE, market.perpetual)
    await case.service(store).insert([fresh, stale, case.row(market, now - 10 * MINUTE)])
    assert len(await case.latest(store, max_age=3 * MINUTE)) == 2
    assert await case.latest(store, max_age=1.5 * MINUTE) == [case.expected(market, fresh)]
    assert await case.latest(store, max_age=timedelta(seconds=30)) == []


@every_path
async def test_a_clock_that_is_ahead_is_not_stale(store: Store, market: Market, case: Case) -> None:
    ahead = case.row(market, datetime.now(UTC).replace(microsecond=0) + MINUTE)
    await case.service(store).insert([ahead])
    assert await case.latest(store, max_age=timedelta(microseconds=1)) == [case.expected(market, ahead)]


@every_path
async def test_a_max_age_that_is_no_age_is_refused(store: Store, market: Market, case: Case) -> None:
    for age in (timedelta(0), timedelta(seconds=-1), 5):
        with pytest.raises(ValidationError) as caught:
            await case.latest(store, max_age=age)
        assert caught.value.field == "max_age"


@every_series_with_parts
async def test_every_part_of_a_series_has_its_latest(store: Store, market: Market, case: Case) -> None:
    assert case.part is not None
    name, first, second = case.part
    rows = [
        case.row(market, moment, symbol, **{name: part})
        for symbol in (market.btc, market.perpetual)
        for part in (second, first)
        for moment in (NOON, NOON - MINUTE)
    ]
    await case.service(store).insert(rows)
    found = await case.latest(store)
    assert [(row.exchange, getattr(row, name), row.timestamp) for row in found] == [
        (exchange, part, NOON) for exchange in ("BINANCE_SPOT", "GATEIO_FUTURES") for part in sorted((first, second))
    ]
    assert [getattr(row, name) for row in await case.latest(store, **{FILTERS[name]: second})] == [second, second]
    assert [row.exchange for row in await case.latest(store, "gateio_futures", **{FILTERS[name]: first})] == [
        "GATEIO_FUTURES"
    ]


@every_series_with_parts
async def test_the_latest_of_a_part_that_nobody_wrote_is_nothing(store: Store, market: Market, case: Case) -> None:
    assert case.part is not None
    name, _, other = case.part
    await fill(store, market, case)
    assert await case.latest(store, **{FILTERS[name]: other}) == []


async def test_an_asset_is_asked_for_in_any_case(store: Store, market: Market) -> None:
    await store.balances.insert([Case(Balance).row(market, asset_name="eth")])
    for found in (await store.balances.latest(asset=" Eth"), await store.balances.history(Venue.SPOT, "eth ")):
        assert [(row.exchange, row.asset_name) for row in found] == [("BINANCE_SPOT", "ETH")]


async def test_each_selling_exchange_has_its_latest_opportunity(store: Store, market: Market) -> None:
    rows = [
        Case(Opportunity).row(market, moment, sell_exchange_id=exchange.id)
        for exchange in (market.spot, market.futures)
        for moment in (NOON, NOON - MINUTE)
    ]
    await store.opportunities.insert(rows)
    found = await store.opportunities.latest("BINANCE_SPOT", "BTC", "USDT")
    assert [(row.sell_exchange_id, row.timestamp) for row in found] == [
        (market.spot.id, NOON),
        (market.futures.id, NOON),
    ]
    (sold,) = await store.opportunities.history("BINANCE_SPOT", "BTC", "USDT", "binance_spot", since=NOON)
    assert sold.sell_exchange_id == market.spot.id


async def test_two_contracts_of_one_pair_are_two_series(store: Store, market: Market) -> None:
    dated = await store.symbols.add(market.futures.id, perpetual("BTC", "BTC_1227", expiry=NOON + timedelta(days=100)))
    case = Case(BookTicker)
    await store.book_tickers.insert([case.row(market, NOON, symbol) for symbol in (market.perpetual, dated)])
    found = await store.book_tickers.latest("GATEIO_FUTURES", "BTC", "USDT")
    assert [row.exchange_symbol for row in found] == ["BTC_1227", "BTC_USDT"]
