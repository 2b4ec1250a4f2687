from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event

from alembic_timescaledb.declare import declared
from arbstore.database import Database, Store
from arbstore.errors import UnknownExchangeError, UnknownSymbolError, ValidationError
from arbstore.records import BookTicker, Candle, Opportunity, Trade
from tests.conftest import NOON
from tests.records.samples import with_fields
from tests.services.cases import (
    Case,
    Market,
    every_path,
    every_path_of_symbols,
    every_series_with_parts,
    open_market,
    perpetual,
)

MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)
WINDOWS: list[tuple[datetime | None, datetime | None, list[int]]] = [
    (NOON + MINUTE, None, [1, 2, 3, 4]),
    (NOON + MINUTE + TICK, None, [2, 3, 4]),
    (None, NOON + 3 * MINUTE, [0, 1, 2]),
    (None, NOON + 3 * MINUTE + TICK, [0, 1, 2, 3]),
    (NOON + MINUTE, NOON + 3 * MINUTE, [1, 2]),
    (NOON + MINUTE, NOON + MINUTE + TICK, [1]),
    (NOON + MINUTE, NOON + MINUTE, []),
    (NOON + timedelta(days=1), None, []),
    (None, NOON, []),
]
NO_WINDOWS: list[tuple[str, dict[str, Any]]] = [
    ("since", {"since": NOON.replace(tzinfo=None)}),
    ("until", {"until": NOON.replace(tzinfo=None)}),
    ("since", {"since": NOON + TICK, "until": NOON}),
    ("limit", {"limit": 0}),
    ("limit", {"limit": -1}),
    ("since", {"since": "2024-01-01"}),
    ("until", {"until": NOON.date()}),
    ("limit", {"limit": "5"}),
    ("limit", {"limit": 2.5}),
    ("limit", {"limit": 2**63}),
]


async def fill(store: Store, market: Market, case: Case, count: int = 5) -> None:
    """Write a row a minute from NOON on, out of order, and another symbol's beside them."""
    moments = [NOON + MINUTE * number for number in range(count)]
    rows = [case.row(market, moment) for moment in reversed(moments)]
    await case.service(store).insert([*rows, *(case.row(market, moment, market.perpetual) for moment in moments)])


def minutes(rows: list[Any]) -> list[int]:
    return [round((row.timestamp - NOON) / MINUTE) for row in rows]


@every_path
async def test_a_limit_is_filled_however_far_the_newest_rows_lie_apart(
    store: Store, market: Market, case: Case
) -> None:
    """Two in the last chunks, two where is looked next, two in none of those."""
    hypertable = declared(case.service(store).table)
    assert hypertable is not None
    now = datetime.now(UTC).replace(microsecond=0)  # candles begin with a second
    back = [0, 1, 10, 11, 50, 51]
    moments = [now - chunks * hypertable.chunk_interval for chunks in reversed(back)]
    await case.service(store).insert([case.row(market, moment) for moment in moments])
    windows: list[tuple[dict[str, datetime], list[datetime]]] = [
        ({}, moments),
        ({"until": now + TICK}, moments),
        ({"since": moments[1]}, moments[1:]),
        ({"until": moments[4]}, moments[:4]),
    ]
    for limit in range(1, len(moments) + 2):
        for window, expected in windows:
            found = await case.history(store, **window, limit=limit)
            assert [row.timestamp for row in found] == expected[-limit:], (window, limit)


@every_path
async def test_history_is_one_series_oldest_first(store: Store, market: Market, case: Case) -> None:
    await fill(store, market, case)
    found = await case.history(store)
    assert minutes(found) == [0, 1, 2, 3, 4]
    assert {row.exchange for row in found} == {"BINANCE_SPOT"}


@every_path
async def test_a_window_holds_its_beginning_and_not_its_end(store: Store, market: Market, case: Case) -> None:
    await fill(store, market, case)
    for since, until, expected in WINDOWS:
        found = await case.history(store, since=since, until=until)
        assert minutes(found) == expected, f"[{since}, {until})"


@every_path
async def test_a_limit_takes_the_newest_of_the_window_and_keeps_them_ascending(
    store: Store, market: Market, case: Case
) -> None:
    await fill(store, market, case)
    assert minutes(await case.history(store, limit=2)) == [3, 4]
    assert minutes(await case.history(store, until=NOON + 3 * MINUTE, limit=2)) == [1, 2]
    assert minutes(await case.history(store, since=NOON + 3 * MINUTE, limit=9)) == [3, 4]
    assert minutes(await case.history(store, since=NOON + 3 * MINUTE, limit=2**63 - 1)) == [3, 4]


@every_path
async def test_a_window_that_is_none_is_refused(store: Store, market: Market, case: Case) -> None:
    for field, window in NO_WINDOWS:
        with pytest.raises(ValidationError) as caught:
            await case.history(store, **window)
        assert (caught.value.field, caught.value.row) == (field, None)


@every_path
async def test_an_unknown_exchange_is_an_error(store: Store, market: Market, case: Case) -> None:
    with pytest.raises(UnknownExchangeError) as caught:
        await case.history(store, "kraken_spot", *case.series[1:])
    assert caught.value.exchange == "KRAKEN_SPOT"


@every_path_of_symbols
async def test_an_unknown_pair_is_an_error(store: Store, market: Market, case: Case) -> None:
    with pytest.raises(UnknownSymbolError, match="DOGE/USDT"):
        await case.history(store, "BINANCE_SPOT", "DOGE", *case.series[2:])


@every_path_of_symbols
async def test_names_are_asked_for_in_any_case(store: Store, market: Market, case: Case) -> None:
    await fill(store, market, case)
    rest = [part.lower() if isinstance(part, str) else part for part in case.series[3:]]
    assert len(await case.history(store, "binance_Spot", "btc", " Usdt", *rest)) == 5


async def test_a_window_is_told_by_instants_where_a_wall_clock_repeats_itself(store: Store, market: Market) -> None:
    twice = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    row = with_fields(Case(BookTicker).row(market), timestamp="2024-10-27T01:00:00Z")
    await store.book_tickers.insert([row])
    since, until = twice, twice.replace(minute=10, fold=1)  # 00:30 and 01:10 in UTC
    assert len(await store.book_tickers.history("BINANCE_SPOT", "BTC", "USDT", since=since, until=until)) == 1


@every_series_with_parts
async def test_history_is_of_one_part(store: Store, market: Market, case: Case) -> None:
    assert case.part is not None
    name, first, second = case.part
    parts: list[dict[str, Any]] = [{name: first}, {name: second}]
    await case.service(store).insert([case.row(market, **part) for part in parts])
    for part in (first, second):
        (found,) = await case.history(store, *case.series[:-1], part)
        assert getattr(found, name) == part


async def test_history_of_opportunities_is_of_one_selling_exchange(store: Store, market: Market) -> None:
    exchanges = (market.spot, market.futures)
    rows = [Case(Opportunity).row(market, sell_exchange_id=exchange.id) for exchange in exchanges]
    await store.opportunities.insert(rows)
    for exchange in exchanges:
        (found,) = await store.opportunities.history("BINANCE_SPOT", "BTC", "USDT", exchange.enum_value)
        assert found.sell_exchange_id == exchange.id
    with pytest.raises(UnknownExchangeError):
        await store.opportunities.history("BINANCE_SPOT", "BTC", "USDT", "KRAKEN_SPOT")


@every_path_of_symbols
async def test_a_dated_contract_has_its_history_by_id(store: Store, market: Market, case: Case) -> None:
    dated = await store.symbols.add(market.spot.id, perpetual("BTC", "BTC-1227", expiry=NOON + timedelta(days=100)))
    row = case.row(market, NOON, dated)
    await case.service(store).insert([row, case.row(market)])
    service: Any = case.service(store)
    assert await service.history_by_id(dated.id) == [case.expected(market, row, dated)]
    assert {found.exchange_symbol for found in await case.history(store)} == {"BTCUSDT"}


@every_path_of_symbols
async def test_history_by_id_takes_a_window_and_a_limit(store: Store, market: Market, case: Case) -> None:
    await fill(store, market, case)
    service: Any = case.service(store)
    assert minutes(await service.history_by_id(market.btc.id, since=NOON + MINUTE, until=NOON + 3 * MINUTE)) == [1, 2]
    assert minutes(await service.history_by_id(market.btc.id, limit=2)) == [3, 4]
    with pytest.raises(ValidationError):
        await service.history_by_id(market.btc.id, limit=0)


@every_path_of_symbols
async def test_history_by_the_id_of_no_symbol_is_an_error(store: Store, market: Market, case: Case) -> None:
    service: Any = case.service(store)
    with pytest.raises(UnknownSymbolError) as caught:
        await service.history_by_id(2**31 - 1)
    assert caught.value.symbol == 2**31 - 1


@every_path_of_symbols
async def test_a_reused_ticker_starts_anew_and_the_old_coin_keeps_its_history(
    store: Store, market: Market, case: Case
) -> None:
    old = case.row(market, NOON)
    await case.service(store).insert([old])
    await store.symbols.sync(market.spot.id, [perpetual("ETH", "ETHUSDT")])  # BTC is delisted
    with pytest.raises(UnknownSymbolError):
        await case.history(store)
    synced = await store.symbols.sync(market.spot.id, [perpetual("ETH", "ETHUSDT"), perpetual("BTC", "BTCUSDT")])
    (listed,) = synced.added
    assert listed.id != market.btc.id
    new = case.row(market, NOON + MINUTE, listed)
    await case.service(store).insert([new])
    service: Any = case.service(store)
    assert await case.history(store) == [case.expected(market, new, listed)]
    assert await service.history_by_id(market.btc.id) == [case.expected(market, old)]
    assert await case.latest(store, "BINANCE_SPOT", "BTC") == [case.expected(market, new, listed)]


async def test_what_belongs_to_an_exchange_has_no_history_by_the_id_of_a_symbol(store: Store, market: Market) -> None:
    for kind in ("balances", "collectors"):
        with pytest.raises(ValidationError, match=f"symbol_id: is not possible for {kind}"):
            await store.series(kind).history_by_id(market.btc.id)


async def test_trades_of_one_instant_are_limited_by_the_order_of_their_ids(store: Store, market: Market) -> None:
    rows = [Case(Trade).row(market, trade_id=f"{number:03}") for number in range(100)]
    await store.trades.insert(reversed(rows))
    found = await store.trades.history("BINANCE_SPOT", "BTC", "USDT", limit=3)
    assert [trade.trade_id for trade in found] == ["097", "098", "099"]


async def test_all_parts_of_a_symbol_come_in_one_order_where_they_share_an_instant(
    store: Store, market: Market
) -> None:
    units = [f"{count}{unit}" for count in (1, 2, 3, 5, 15, 30) for unit in "smhd"]
    moments = [NOON - timedelta(hours=12), NOON + timedelta(hours=12)]
    await store.candles.insert(
        [Case(Candle).row(market, moment, timeframe=unit) for moment in moments for unit in units]
    )
    found = await store.candles.history_by_id(market.btc.id)
    expected = [(moment, unit) for moment in moments for unit in sorted(units)]
    assert [(row.timestamp, row.timeframe) for row in found] == expected
    newest = await store.candles.history_by_id(market.btc.id, limit=5)
    assert [(row.timestamp, row.timeframe) for row in newest] == expected[-5:]


async def test_history_by_pair_costs_one_statement_warm_and_three_cold(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        market = await open_market(store)
        await store.book_tickers.insert([Case(BookTicker).row(market)])
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        sent.append(statement)

    event.listen(committed_db.engine.sync_engine, "before_cursor_execute", note)
    for most in (3, 1):
        sent.clear()
        async with committed_db.begin() as store:
            assert len(await store.book_tickers.history("BINANCE_SPOT", "BTC", "USDT")) == 1
        assert len(sent) == most, sent


async def test_a_name_that_is_not_a_text_and_a_query_of_another_kind_are_refused(store: Store, market: Market) -> None:
    for read in (store.book_tickers.history, store.book_tickers.latest):
        with pytest.raises(ValidationError, match="base: must be a text such as BTC, is 5"):
            await read("BINANCE_SPOT", 5, "USDT")  # type: ignore[arg-type] # callers without a type checker
    query = await store.book_tickers.query("BINANCE_SPOT", "BTC", "USDT")
    with pytest.raises(ValidationError, match="query: is for book_tickers, not for trades"):
        await store.trades.fetch(query)
