from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from arbstore.database import Database, Store
from arbstore.errors import UnknownExchangeError, ValidationError
from arbstore.models import Base
from arbstore.records import Exchange, Symbol, SymbolType
from tests.conftest import NOON, listing
from tests.records.samples import mapping
from tests.services.cases import Market, perpetual

SYMBOLS = Base.metadata.tables["symbols"]
YEAR = timedelta(days=365)


def names(symbols: tuple[Symbol, ...]) -> list[str]:
    return sorted(symbol.exchange_symbol for symbol in symbols)


async def active(store: Store, exchange: Exchange) -> dict[str, int]:
    return {symbol.exchange_symbol: symbol.id for symbol in await store.symbols.by_exchange(exchange.id)}


async def count(store: Store) -> int:
    return int((await store.session.execute(select(func.count()).select_from(SYMBOLS))).scalar_one())


async def test_a_sync_adds_updates_and_deactivates_and_counts_the_rest(store: Store, exchange: Exchange) -> None:
    first = await store.symbols.sync(exchange.id, (perpetual(base) for base in ("BTC", "ETH", "SOL")))
    assert (names(first.added), first[1:]) == (["BTC_USDT", "ETH_USDT", "SOL_USDT"], ((), (), 0))
    ids = await active(store, exchange)

    rows: list[Any] = [perpetual("BTC"), mapping(perpetual("ETH", contract_size=0.01)), perpetual("DOGE")]
    second = await store.symbols.sync(exchange.id, rows)
    assert (names(second.added), names(second.deactivated), second.unchanged) == (["DOGE_USDT"], ["SOL_USDT"], 1)
    (updated,) = second.updated
    assert (updated.id, updated.contract_size) == (ids["ETH_USDT"], 0.01)
    (gone,) = second.deactivated
    assert (gone.id, gone.is_active) == (ids["SOL_USDT"], False)
    assert gone.delisted_at is not None
    assert list(await active(store, exchange)) == ["BTC_USDT", "DOGE_USDT", "ETH_USDT"]


async def test_a_sync_that_changes_nothing_says_so(store: Store, exchange: Exchange) -> None:
    rows = [perpetual(base, contract_size=0.1, listed_at=NOON) for base in ("BTC", "ETH")]
    await store.symbols.sync(exchange.id, rows)
    before = await store.symbols.by_exchange(exchange.id, active_only=False)
    assert await store.symbols.sync(exchange.id, reversed(rows)) == ((), (), (), 2)
    assert await store.symbols.by_exchange(exchange.id, active_only=False) == before


async def test_what_is_returned_is_what_is_stored(store: Store, exchange: Exchange) -> None:
    await store.symbols.sync(exchange.id, [perpetual("BTC"), perpetual("ETH")])
    synced = await store.symbols.sync(exchange.id, [perpetual("BTC", contract_size=1.0), perpetual("SOL")])
    for symbol in (*synced.added, *synced.updated, *synced.deactivated):
        assert await store.symbols.get(symbol.id) == symbol


async def test_a_sync_touches_its_own_exchange_only(store: Store, market: Market) -> None:
    before = await store.symbols.by_exchange(market.spot.id, active_only=False)
    await store.symbols.sync(market.futures.id, [perpetual("ETH")])
    assert await store.symbols.by_exchange(market.spot.id, active_only=False) == before


async def test_what_a_listing_leaves_out_stays(store: Store, exchange: Exchange) -> None:
    await store.symbols.sync(exchange.id, [perpetual("BTC", contract_size=0.1, listed_at=NOON)])
    assert (await store.symbols.sync(exchange.id, [perpetual("BTC")])).unchanged == 1
    (symbol,) = await store.symbols.by_exchange(exchange.id)
    assert (symbol.contract_size, symbol.listed_at) == (0.1, NOON)


async def test_a_new_name_of_a_pair_is_the_same_symbol(store: Store, exchange: Exchange) -> None:
    await store.symbols.sync(exchange.id, [perpetual("BTC"), perpetual("ETH")])
    ids = await active(store, exchange)
    synced = await store.symbols.sync(exchange.id, [perpetual("BTC", "BTC-USDT"), perpetual("ETH")])
    assert (synced.added, names(synced.updated), synced.deactivated) == ((), ["BTC-USDT"], ())
    assert await active(store, exchange) == {"BTC-USDT": ids["BTC_USDT"], "ETH_USDT": ids["ETH_USDT"]}
    assert await store.symbols.by_pair(exchange.id, "BTC", "USDT") == synced.updated[0]


@pytest.mark.parametrize(
    "changes",
    [{"base": "XBT"}, {"symbol_quote": "USDC"}, {"symbol_type": SymbolType.SPOT}, {"expiry": NOON + YEAR}],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_name_that_stands_for_another_pair_is_another_symbol(
    store: Store, exchange: Exchange, changes: dict[str, Any]
) -> None:
    await store.symbols.sync(exchange.id, [perpetual("BTC", "reused")])
    (old,) = await store.symbols.by_exchange(exchange.id)
    synced = await store.symbols.sync(exchange.id, [perpetual(**{"base": "BTC", "name": "reused"} | changes)])
    assert (names(synced.added), names(synced.deactivated), synced.updated) == (["reused"], ["reused"], ())
    assert synced.added[0].id != old.id
    assert synced.deactivated[0].id == old.id
    assert (await store.symbols.get_one(old.id)).symbol_base == "BTC"


async def test_two_pairs_that_swap_their_names_are_two_new_symbols(store: Store, exchange: Exchange) -> None:
    await store.symbols.sync(exchange.id, [perpetual("BTC", "one"), perpetual("ETH", "two")])
    old = await active(store, exchange)
    synced = await store.symbols.sync(exchange.id, [perpetual("BTC", "two"), perpetual("ETH", "one")])
    assert (names(synced.added), names(synced.deactivated), synced.updated) == (["one", "two"], ["one", "two"], ())
    assert not set(old.values()) & set((await active(store, exchange)).values())
    btc, eth = [await store.symbols.by_pair_one(exchange.id, base, "USDT") for base in ("BTC", "ETH")]
    assert (btc.exchange_symbol, eth.exchange_symbol) == ("two", "one")


async def test_a_name_that_another_pair_takes_over_leaves_its_symbol_behind(store: Store, exchange: Exchange) -> None:
    await store.symbols.sync(exchange.id, [perpetual("BTC", "one")])
    old = (await active(store, exchange))["one"]
    synced = await store.symbols.sync(exchange.id, [perpetual("BTC", "two"), perpetual("ETH", "one")])
    assert (names(synced.added), synced.updated) == (["one", "two"], ())
    assert [symbol.id for symbol in synced.deactivated] == [old]
    assert (await store.symbols.get_one(old)).exchange_symbol == "one"


async def test_names_that_move_up_a_chain_leave_each_pair_with_one_active_symbol(
    store: Store, exchange: Exchange
) -> None:
    await store.symbols.sync(exchange.id, [perpetual("BTC", "one"), perpetual("ETH", "two")])
    await store.symbols.sync(exchange.id, [perpetual("BTC", "two"), perpetual("ETH", "three")])
    btc, eth = [await store.symbols.by_pair_one(exchange.id, base, "USDT") for base in ("BTC", "ETH")]
    assert (btc.exchange_symbol, eth.exchange_symbol) == ("two", "three")
    assert set(await active(store, exchange)) == {"two", "three"}


@pytest.mark.parametrize(("before", "after"), [(None, None), (NOON, None), (None, NOON), (NOON, NOON + YEAR)])
async def test_a_name_that_comes_back_is_another_symbol(
    store: Store, exchange: Exchange, before: Any, after: Any
) -> None:
    await store.symbols.sync(exchange.id, [perpetual("LUNA", listed_at=before), perpetual("BTC")])
    old = (await active(store, exchange))["LUNA_USDT"]
    await store.symbols.sync(exchange.id, [perpetual("BTC")])
    synced = await store.symbols.sync(exchange.id, [perpetual("LUNA", listed_at=after), perpetual("BTC")])
    assert (names(synced.added), synced.updated, synced.unchanged) == (["LUNA_USDT"], (), 1)
    assert synced.added[0].id != old
    assert not (await store.symbols.get_one(old)).is_active


async def test_a_name_that_comes_back_with_its_listing_date_is_the_same_symbol(
    store: Store, exchange: Exchange
) -> None:
    rows = [perpetual("BTC"), perpetual("LUNA", listed_at=NOON)]
    await store.symbols.sync(exchange.id, rows)
    old = (await active(store, exchange))["LUNA_USDT"]
    for _ in range(2):  # a listing that was short by mistake, and then again
        await store.symbols.sync(exchange.id, rows[:1])
        synced = await store.symbols.sync(exchange.id, rows)
        (back,) = synced.updated
        assert (back.id, back.is_active, back.delisted_at, synced.added) == (old, True, None, ())
    assert await count(store) == 2


async def test_inactive_listings_are_as_good_as_missing(store: Store, exchange: Exchange) -> None:
    await store.symbols.sync(exchange.id, [perpetual("BTC"), perpetual("ETH")])
    rows = [perpetual("BTC"), perpetual("ETH", is_active=False), perpetual("DOGE", is_active=False)]
    synced = await store.symbols.sync(exchange.id, rows)
    assert (synced.added, names(synced.deactivated), synced.unchanged) == ((), ["ETH_USDT"], 1)
    assert await count(store) == 2


async def test_a_name_may_be_listed_inactive_beside_its_successor(store: Store, exchange: Exchange) -> None:
    rows = [perpetual("LUNA", is_active=False), perpetual("LUNA"), perpetual("LUNA", is_active=False)]
    assert names((await store.symbols.sync(exchange.id, rows)).added) == ["LUNA_USDT"]


@pytest.mark.parametrize("rows", [[], [perpetual("BTC", is_active=False)]], ids=["empty", "all inactive"])
async def test_a_listing_with_nothing_active_is_refused(store: Store, market: Market, rows: list[Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        await store.symbols.sync(market.futures.id, rows)
    assert caught.value.field == "listings"
    assert len(await store.symbols.by_exchange(market.futures.id)) == 1


async def test_a_bad_or_doubled_listing_changes_nothing(store: Store, market: Market) -> None:
    bad = mapping(perpetual("SOL")) | {"symbol_type": "SWAP"}
    for second in (bad, perpetual("ETH")):
        with pytest.raises(ValidationError) as caught:
            await store.symbols.sync(market.futures.id, [perpetual("ETH"), second])
        assert caught.value.row == 1
    assert await store.symbols.by_exchange(market.futures.id, active_only=False) == (market.perpetual,)


async def test_a_sync_of_an_unknown_exchange_is_an_error(store: Store) -> None:
    with pytest.raises(UnknownExchangeError) as caught:
        await store.symbols.sync(32_000, [perpetual("BTC")])
    assert caught.value.exchange == 32_000


async def test_a_sync_deletes_nothing(store: Store, exchange: Exchange) -> None:
    for base in ("BTC", "ETH", "BTC", "SOL"):
        await store.symbols.sync(exchange.id, [perpetual(base, "reused")])
    symbols = await store.symbols.by_exchange(exchange.id, active_only=False)
    in_order = sorted(symbols, key=lambda symbol: symbol.id)
    assert [symbol.symbol_base for symbol in in_order] == ["BTC", "ETH", "BTC", "SOL"]


async def test_a_listing_of_more_symbols_than_a_statement_has_parameters(store: Store, exchange: Exchange) -> None:
    many = [listing(f"C{number}") for number in range(33_000)]
    assert len((await store.symbols.sync(exchange.id, many)).added) == 33_000
    synced = await store.symbols.sync(exchange.id, [listing("BTC")])
    assert (len(synced.deactivated), names(synced.added)) == (33_000, ["BTCUSDT"])


async def test_two_syncs_of_one_exchange_take_turns(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        exchange = await store.exchanges.add("MEXC_SPOT")

    async def sync(*bases: str) -> int:
        async with committed_db.begin() as store:
            return len((await store.symbols.sync(exchange.id, [perpetual(base) for base in bases])).added)

    added = await asyncio.gather(*(sync("BTC", "ETH", "SOL") for _ in range(4)))
    assert sorted(added) == [0, 0, 0, 3]
    await asyncio.gather(sync("BTC", "ADA"), sync("ADA", "ETH"))
    async with committed_db.begin() as store:
        assert set(await active(store, exchange)) in ({"BTC_USDT", "ADA_USDT"}, {"ADA_USDT", "ETH_USDT"})


async def test_market_data_is_written_while_a_sync_is_under_way(committed_db: Database) -> None:
    async with committed_db.begin() as store:
        exchange = await store.exchanges.add("MEXC_SPOT")
        symbol = await store.symbols.add(exchange.id, perpetual("BTC"))
        # A hypertable's new chunk waits for whoever writes symbols; it is there before.
        await store.ticks.insert([{"symbol_id": symbol.id, "timestamp": NOON, "bid": 1.0, "ask": 2.0}])
    async with committed_db.begin() as syncing:
        await syncing.symbols.sync(exchange.id, [perpetual("BTC", contract_size=1.0), perpetual("ETH")])
        async with asyncio.timeout(10), committed_db.begin() as writing:
            row = {"symbol_id": symbol.id, "timestamp": NOON + timedelta(seconds=1), "bid": 1.0, "ask": 2.0}
            assert (await writing.ticks.insert([row])).written == 1
