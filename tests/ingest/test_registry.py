from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from arbstore.database import Store
from arbstore.errors import UnknownSymbolError, ValidationError
from arbstore.ingest import read_listings
from arbstore.ingest.registry import Registry
from arbstore.ingest.report import Counts
from arbstore.ingest.symbols import SymbolName
from arbstore.records import Exchange, Listing, Symbol, SymbolType

_NOW = datetime(2024, 8, 8, tzinfo=UTC)
_NAME = SymbolName("BINANCE_FUTURES", "LUNAUSDT")


@pytest_asyncio.fixture
async def futures(store: Store) -> Exchange:
    return await store.exchanges.add("BINANCE_FUTURES")


def _listing(spelling: str, base: str = "LUNA", delisted_at: datetime | None = None) -> Listing:
    return Listing(
        symbol_base=base,
        symbol_quote="USDT",
        exchange_symbol=spelling,
        symbol_type=SymbolType.PERPETUAL,
        is_active=delisted_at is None,
        delisted_at=delisted_at,
    )


async def _id(store: Store, name: SymbolName, *listings: Listing, at: datetime = _NOW) -> int:
    found = await _registry(store, *listings).id_of(name, at)
    assert isinstance(found, int)
    return found


def _registry(store: Store, *listings: Listing, counts: Counts | None = None) -> Registry:
    return Registry(store, {"BINANCE_FUTURES": listings}, counts or Counts())


async def test_the_exchanges_own_spelling_comes_first(store: Store, futures: Exchange) -> None:
    await store.symbols.add(futures.id, _listing("1LUNAUSDT"))
    spelled = await store.symbols.add(futures.id, _listing("LUNAUSDT", base="LUNA2"))
    assert await _id(store, _NAME) == spelled.id


async def test_a_pair_under_another_spelling_is_the_same_symbol(store: Store, futures: Exchange) -> None:
    there = await store.symbols.add(futures.id, _listing("LUNA-USDT"))
    assert await _id(store, _NAME) == there.id
    assert await _id(store, SymbolName("BINANCE_FUTURES", base="LUNA", quote="USDT")) == there.id


async def test_a_spelling_is_not_the_symbol_where_the_pair_says_otherwise(store: Store, futures: Exchange) -> None:
    former = await _delisted(store, futures, "LUNAUSDT")
    name = SymbolName("BINANCE_FUTURES", "LUNAUSDT", base="LUNA2", quote="USDT")
    assert await _id(store, name, at=_NOW - timedelta(1)) != former.id


async def test_a_dated_contract_is_not_the_perpetual(store: Store, futures: Exchange) -> None:
    perpetual = await store.symbols.add(futures.id, _listing("LUNAUSDT"))
    dated = await _id(store, SymbolName("BINANCE_FUTURES", "LUNAUSDT_240927"))
    assert dated != perpetual.id
    assert (await store.symbols.get_one(dated)).expiry == datetime(2024, 9, 27, 8, tzinfo=UTC)


async def test_the_listing_is_asked_before_the_name(store: Store) -> None:
    counts = Counts()
    listed = _listing("LUNAUSDT", base="LUNA2")
    found = await _registry(store, listed, counts=counts).id_of(_NAME, _NOW)
    assert isinstance(found, int)
    assert (await store.symbols.get_one(found)).symbol_base == "LUNA2"
    assert [(one.exchange, one.symbol.id, one.derived) for one in counts.symbols] == [("BINANCE_FUTURES", found, False)]


async def test_the_listing_knows_a_pair_by_the_exchanges_spelling(store: Store) -> None:
    found = await _id(store, SymbolName("BINANCE_FUTURES", "LUNA-USDT"), _listing("LUNAUSDT"))
    assert (await store.symbols.get_one(found)).exchange_symbol == "LUNAUSDT"


async def test_what_no_listing_has_is_derived_and_said_so(store: Store) -> None:
    counts = Counts()
    await _registry(store, _listing("BTCUSDT", base="BTC"), counts=counts).id_of(_NAME, _NOW)
    assert [(one.symbol.exchange_symbol, one.derived) for one in counts.symbols] == [("LUNAUSDT", True)]
    assert counts.exchanges == ["BINANCE_FUTURES"]


async def test_the_same_listing_finds_what_it_registered(store: Store, recordings: Path) -> None:
    listed = read_listings(recordings / "symbols" / "pair_info_binance_uFuture.csv")["BINANCE_FUTURES"]
    for listing in (listed[0], listed[-1]):
        name = SymbolName("BINANCE_FUTURES", listing.exchange_symbol)
        assert await _id(store, name, *listed) == await _id(store, name, *listed)


async def test_data_from_before_a_delisting_belong_to_the_delisted_symbol(store: Store, futures: Exchange) -> None:
    former = await _delisted(store, futures, "LUNAUSDT")
    for name in (_NAME, SymbolName("BINANCE_FUTURES", base="LUNA", quote="USDT")):
        assert await _id(store, name, at=_NOW - timedelta(1)) == former.id
    assert await _id(store, _NAME, at=_NOW) != former.id


async def test_of_two_delisted_symbols_it_is_the_one_of_that_time(store: Store, futures: Exchange) -> None:
    late = await _delisted(store, futures, "LUNAUSDT", _NOW)
    early = await _delisted(store, futures, "LUNAUSDT", _NOW - timedelta(30))
    assert await _id(store, _NAME, at=_NOW - timedelta(31)) == early.id
    assert await _id(store, _NAME, at=_NOW - timedelta(29)) == late.id


async def test_what_is_of_before_a_delisting_is_not_the_successors(store: Store, futures: Exchange) -> None:
    delisted = await _delisted(store, futures, "LUNAUSDT")
    active = await store.symbols.add(futures.id, _listing("LUNAUSDT"))
    assert await _id(store, _NAME, at=_NOW - timedelta(1)) == delisted.id
    assert await _id(store, _NAME, at=_NOW) == active.id


async def _delisted(store: Store, exchange: Exchange, spelling: str, at: datetime = _NOW) -> Symbol:
    return await store.symbols.add(exchange.id, _listing(spelling, delisted_at=at))


async def test_an_unknown_exchange_is_registered_once(store: Store) -> None:
    counts = Counts()
    registry = _registry(store, counts=counts)
    first = await registry.id_of("NEW_SPOT", _NOW)
    assert first == await registry.id_of("NEW_SPOT", _NOW)
    assert (await store.exchanges.by_enum_one("NEW_SPOT")).id == first
    assert counts.exchanges == ["NEW_SPOT"]


async def test_what_is_no_exchange_has_no_id(store: Store) -> None:
    found = await _registry(store).id_of("NEW", _NOW)
    assert isinstance(found, ValidationError)
    assert found.field == "exchange"


async def test_a_name_that_tells_nothing_asks_for_the_listing(store: Store) -> None:
    with pytest.raises(UnknownSymbolError, match=r"'XBTM'.*Give a listing of BINANCE_FUTURES"):
        await _id(store, SymbolName("BINANCE_FUTURES", "XBTM"))
