from __future__ import annotations

import asyncio
from enum import Enum
from itertools import product
from typing import Any

import pytest

from arbstore.database import Database, Store
from arbstore.errors import DuplicateError, UnknownExchangeError, ValidationError
from arbstore.records import Exchange, MarketType


class Venue(Enum):
    SPOT = "binance_spot"
    COIN_M = "BINANCE_COINM_FUTURES"


class OldVenue(str, Enum):  # noqa: UP042 # the old way to write it is what many applications have
    SPOT = "Binance_Spot"


class Number(Enum):
    ONE = 1


MALFORMED = ["", "BINANCE", "_SPOT", "BINANCE_", "BINANCE_SWAP", "BINANCE SPOT", "BINANCE-SPOT", "BI NANCE_SPOT"]
MALFORMED += ["BÖRSE_SPOT", "A__SPOT", "_A_SPOT", "A__B_SPOT", "BINANCE_SPOT_", "币安_SPOT", "A\x00B_SPOT", "A;B_SPOT"]


async def enums(store: Store, *, active_only: bool = False) -> list[str]:
    return [exchange.enum_value for exchange in await store.exchanges.all(active_only=active_only)]


@pytest.mark.parametrize("given", ["BINANCE_SPOT", "binance_spot", " Binance_Spot\n", Venue.SPOT, OldVenue.SPOT])
async def test_an_exchange_is_added_and_found_by_text_or_enum_in_any_case(store: Store, given: str | Enum) -> None:
    added = await store.exchanges.add(given)
    assert (added.enum_value, added.exchange_name, added.market_type) == ("BINANCE_SPOT", "BINANCE", MarketType.SPOT)
    assert added.is_active
    for wanted in ("BINANCE_SPOT", "binance_spot", Venue.SPOT, OldVenue.SPOT):
        assert await store.exchanges.by_enum(wanted) == added
        assert await store.exchanges.by_enum_one(wanted) == added
    assert await store.exchanges.get(added.id) == await store.exchanges.get_one(added.id) == added


async def test_an_exchange_may_be_of_every_market_type(store: Store) -> None:
    for market_type in MarketType:
        added = await store.exchanges.add(f"GATE_IO2_{market_type}")
        assert (added.exchange_name, added.market_type) == ("GATE_IO2", market_type)


async def test_the_market_type_is_the_last_word(store: Store) -> None:
    added = await store.exchanges.add(Venue.COIN_M)
    assert (added.exchange_name, added.market_type) == ("BINANCE_COINM", MarketType.FUTURES)


async def test_a_malformed_enum_value_is_refused_and_the_transaction_goes_on(store: Store) -> None:
    for malformed in MALFORMED:
        with pytest.raises(ValidationError) as caught:
            await store.exchanges.add(malformed)
        assert caught.value.field == "exchange"
        with pytest.raises(ValidationError):
            await store.exchanges.sync(["MEXC_SPOT", malformed])
    assert await enums(store) == []


async def test_what_is_no_text_is_refused(store: Store) -> None:
    values: list[Any] = [Number.ONE, 1, None, b"BINANCE_SPOT"]
    for method, given in product((store.exchanges.add, store.exchanges.by_enum, store.exchanges.by_enum_one), values):
        with pytest.raises(ValidationError) as caught:
            await method(given)
        assert caught.value.field == "exchange"


async def test_what_is_not_registered_is_none_or_an_error_that_names_it(store: Store) -> None:
    assert await store.exchanges.get(32_000) is None
    assert await store.exchanges.by_enum("KRAKEN_SPOT") is None
    with pytest.raises(UnknownExchangeError, match="32000") as by_id:
        await store.exchanges.get_one(32_000)
    with pytest.raises(UnknownExchangeError, match="KRAKEN_SPOT") as by_enum:
        await store.exchanges.by_enum_one("kraken_spot")
    assert (by_id.value.exchange, by_enum.value.exchange) == (32_000, "KRAKEN_SPOT")


async def test_an_id_that_no_exchange_can_have_is_none(store: Store) -> None:
    for number in (0, -1, 2**15, 2**31, 2**63):
        assert await store.exchanges.get(number) is None


async def test_a_duplicate_is_an_error_that_does_not_end_the_transaction(store: Store) -> None:
    await store.exchanges.add("BINANCE_SPOT")
    with pytest.raises(DuplicateError, match="BINANCE_SPOT") as caught:
        await store.exchanges.add("binance_spot")
    assert caught.value.constraint == "uq_exchanges_enum_value"
    await store.exchanges.add("MEXC_SPOT")
    assert await enums(store) == ["BINANCE_SPOT", "MEXC_SPOT"]


async def test_all_exchanges_come_by_enum_value_and_the_active_ones_on_request(store: Store) -> None:
    for exchange in ("MEXC_SPOT", "BINANCE_SPOT", "GATEIO_FUTURES"):
        await store.exchanges.add(exchange)
    await store.exchanges.sync(["MEXC_SPOT", "BINANCE_SPOT"])
    assert await enums(store) == ["BINANCE_SPOT", "GATEIO_FUTURES", "MEXC_SPOT"]
    assert await enums(store, active_only=True) == ["BINANCE_SPOT", "MEXC_SPOT"]


def named(exchanges: tuple[Exchange, ...]) -> list[str]:
    return sorted(exchange.enum_value for exchange in exchanges)


async def test_a_sync_adds_reactivates_and_deactivates_and_says_so(store: Store) -> None:
    listed: list[str | Enum] = ["binance_spot", Venue.SPOT, Venue.COIN_M, "MEXC_SPOT"]
    first = await store.exchanges.sync(iter(listed))
    assert named(first.added) == ["BINANCE_COINM_FUTURES", "BINANCE_SPOT", "MEXC_SPOT"]
    assert (first.updated, first.deactivated, first.unchanged) == ((), (), 0)

    second = await store.exchanges.sync(["MEXC_SPOT", "KRAKEN_SPOT"])
    assert (named(second.added), second.updated, second.unchanged) == (["KRAKEN_SPOT"], (), 1)
    assert named(second.deactivated) == ["BINANCE_COINM_FUTURES", "BINANCE_SPOT"]
    assert not any(exchange.is_active for exchange in second.deactivated)

    third = await store.exchanges.sync(["mexc_spot", "BINANCE_SPOT"])
    assert (third.added, named(third.updated), third.unchanged) == ((), ["BINANCE_SPOT"], 1)
    assert named(third.deactivated) == ["KRAKEN_SPOT"]
    assert third.updated == (await store.exchanges.by_enum("BINANCE_SPOT"),)


async def test_a_sync_deletes_nothing_and_keeps_ids(store: Store) -> None:
    added = await store.exchanges.add("BINANCE_SPOT")
    await store.exchanges.sync(["MEXC_SPOT"])
    await store.exchanges.sync(["BINANCE_SPOT"])
    assert await store.exchanges.by_enum("BINANCE_SPOT") == added
    assert await enums(store) == ["BINANCE_SPOT", "MEXC_SPOT"]


async def test_a_sync_that_changes_nothing_says_so(store: Store) -> None:
    await store.exchanges.sync(["BINANCE_SPOT", "MEXC_SPOT"])
    assert await store.exchanges.sync(["MEXC_SPOT", "BINANCE_SPOT"]) == ((), (), (), 2)


async def test_a_sync_with_nothing_is_refused(store: Store) -> None:
    await store.exchanges.add("BINANCE_SPOT")
    with pytest.raises(ValidationError) as caught:
        await store.exchanges.sync([])
    assert caught.value.field == "exchanges"
    assert await enums(store, active_only=True) == ["BINANCE_SPOT"]


async def test_two_syncs_at_once_do_not_collide(committed_db: Database) -> None:
    async def sync(*exchanges: str) -> None:
        async with committed_db.begin() as store:
            await store.exchanges.sync(exchanges)

    wanted = [f"VENUE{number}_SPOT" for number in range(20)]
    await asyncio.gather(*(sync(*wanted[::step]) for step in (1, -1, 1, -1)))
    async with committed_db.begin() as store:
        assert await enums(store, active_only=True) == sorted(wanted)


async def test_syncs_at_once_leave_what_the_last_of_them_wanted(committed_db: Database) -> None:
    async def sync(name: str) -> None:
        async with committed_db.begin() as store:
            await store.exchanges.sync([name])

    await asyncio.gather(*(sync(f"NUMBER{number}_SPOT") for number in range(6)))
    async with committed_db.begin() as store:
        assert len(await store.exchanges.all(active_only=True)) == 1
