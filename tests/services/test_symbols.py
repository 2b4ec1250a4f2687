from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from arbstore.database import Store
from arbstore.errors import DuplicateError, UnknownExchangeError, UnknownSymbolError, ValidationError
from arbstore.records import Exchange, Listing, Symbol, SymbolType
from tests.conftest import NOON, listing
from tests.records.samples import mapping
from tests.services.cases import Market, perpetual

EXPIRY = NOON + timedelta(days=100)
FULL = Listing(
    symbol_base="DOGE",
    symbol_quote="USD",
    exchange_symbol="doge-usd_241227",
    symbol_type=SymbolType.FUTURE,
    expiry=EXPIRY,
    contract_size=10.0,
    is_active=False,
    listed_at=NOON - timedelta(days=9),
    delisted_at=NOON,
)


def names(symbols: tuple[Symbol, ...]) -> list[str]:
    return [symbol.exchange_symbol for symbol in symbols]


async def test_every_field_of_a_listing_comes_back(store: Store, exchange: Exchange) -> None:
    added = await store.symbols.add(exchange.id, FULL)
    assert {name: value for name, value in mapping(added).items() if name in mapping(FULL)} == mapping(FULL)
    assert added.exchange_id == exchange.id
    assert await store.symbols.get(added.id) == await store.symbols.get_one(added.id) == added


async def test_names_are_normalised_but_the_exchanges_own_spelling_is_kept(store: Store, exchange: Exchange) -> None:
    row = {"symbol_base": " doge", "symbol_quote": "usdt", "exchange_symbol": "dogeUsdt", "symbol_type": "Spot"}
    added = await store.symbols.add(exchange.id, row)
    assert (added.symbol_base, added.symbol_quote, added.exchange_symbol) == ("DOGE", "USDT", "dogeUsdt")
    assert added.symbol_type is SymbolType.SPOT


async def test_a_symbol_that_is_not_registered_is_none_or_an_error_that_names_it(store: Store, market: Market) -> None:
    assert await store.symbols.get(2**31 - 1) is None
    assert await store.symbols.by_pair(market.spot.id, "DOGE", "USDT") is None
    with pytest.raises(UnknownSymbolError) as by_id:
        await store.symbols.get_one(2**31 - 1)
    with pytest.raises(UnknownSymbolError, match="DOGE/USDT of BINANCE_SPOT' is not registered"):
        await store.symbols.by_pair_one(market.spot.id, "DOGE", "USDT")
    assert by_id.value.symbol == 2**31 - 1


async def test_a_symbol_that_is_not_active_is_an_error_that_names_its_id(store: Store, market: Market) -> None:
    await store.symbols.sync(market.spot.id, [listing("ETH")])
    later = await store.symbols.add(market.futures.id, perpetual("SOL", expiry=NOON, symbol_type="FUTURE"))
    for exchange, base, symbol in ((market.spot, "BTC", market.btc), (market.futures, "SOL", later)):
        with pytest.raises(
            UnknownSymbolError,
            match=f"is inactive or a dated contract: call history_by_id with one of the ids {symbol.id}",
        ) as caught:
            await store.book_tickers.history(exchange.enum_value, base, "USDT")
        assert caught.value.others == (symbol.id,)


async def test_what_was_asked_for_is_named_and_an_active_symbol_is_no_other(store: Store, market: Market) -> None:
    with pytest.raises(UnknownSymbolError, match="BTC/USDT OPTION of BINANCE_SPOT' is not registered") as caught:
        await store.symbols.by_pair_one(market.spot.id, "BTC", "USDT", SymbolType.OPTION)
    assert caught.value.others == ()
    with pytest.raises(
        UnknownSymbolError, match=f"BTC/USDT {EXPIRY} of GATEIO_FUTURES' is not registered".replace("+", r"\+")
    ):
        await store.symbols.by_pair_one(market.futures.id, "BTC", "USDT", expiry=EXPIRY)


async def test_the_ids_of_many_dated_contracts_are_not_all_said(store: Store, market: Market) -> None:
    many = [perpetual("SOL", f"S{day}", symbol_type="FUTURE", expiry=NOON + timedelta(days=day)) for day in range(9)]
    added = await store.symbols.add_many(market.futures.id, many)
    with pytest.raises(UnknownSymbolError, match=r" and more$") as caught:
        await store.symbols.by_pair_one(market.futures.id, "SOL", "USDT")
    assert caught.value.others == tuple(symbol.id for symbol in added)


async def test_an_id_that_no_symbol_can_have_is_none(store: Store) -> None:
    for number in (0, -1, 2**31, 2**63):
        assert await store.symbols.get(number) is None


async def test_the_symbols_of_an_exchange_come_by_base_quote_type_and_expiry(store: Store, exchange: Exchange) -> None:
    pairs = [("ETH", "USDT"), ("BTC", "USDT"), ("BTC", "EUR")]
    await store.symbols.add_many(exchange.id, [listing(base, quote) for base, quote in pairs])
    later = perpetual("BTC", "later", expiry=EXPIRY + timedelta(days=1), symbol_type=SymbolType.FUTURE)
    sooner = perpetual("BTC", "sooner", expiry=EXPIRY, symbol_type=SymbolType.FUTURE)
    await store.symbols.add_many(exchange.id, [perpetual("BTC"), later, sooner])
    found = names(await store.symbols.by_exchange(exchange.id))
    assert found == ["BTCEUR", "sooner", "later", "BTC_USDT", "BTCUSDT", "ETHUSDT"]


async def test_inactive_symbols_are_listed_on_request_only(store: Store, market: Market) -> None:
    await store.symbols.add(market.spot.id, FULL)
    assert names(await store.symbols.by_exchange(market.spot.id)) == ["BTCUSDT", "ETHUSDT"]
    assert len(await store.symbols.by_exchange(market.spot.id, active_only=False)) == 3


async def test_an_exchange_without_symbols_or_that_is_not_there_has_none(store: Store, exchange: Exchange) -> None:
    assert await store.symbols.by_exchange(exchange.id) == ()
    assert await store.symbols.by_exchange(32_000) == ()


async def test_a_pair_is_found_in_any_case_and_on_its_own_exchange_only(store: Store, market: Market) -> None:
    assert await store.symbols.by_pair(market.spot.id, "btc", " Usdt") == market.btc
    assert await store.symbols.by_pair_one(market.futures.id, "BTC", "USDT") == market.perpetual
    assert await store.symbols.by_pair(market.futures.id, "ETH", "USDT") is None


async def test_a_pair_without_an_expiry_is_the_undated_contract(store: Store, market: Market) -> None:
    dated = perpetual("BTC", "BTC_1227", symbol_type=SymbolType.FUTURE, expiry=EXPIRY)
    future = await store.symbols.add(market.futures.id, dated)
    find = store.symbols.by_pair
    assert await find(market.futures.id, "BTC", "USDT") == market.perpetual
    assert await find(market.futures.id, "BTC", "USDT", expiry=EXPIRY) == future
    assert await find(market.futures.id, "BTC", "USDT", SymbolType.FUTURE, EXPIRY) == future
    assert await find(market.futures.id, "BTC", "USDT", SymbolType.FUTURE) is None
    assert await find(market.futures.id, "BTC", "USDT", SymbolType.PERPETUAL, EXPIRY) is None
    assert await find(market.futures.id, "BTC", "USDT", expiry=EXPIRY + timedelta(days=1)) is None


async def test_a_pair_of_several_types_is_found_by_each(store: Store, market: Market) -> None:
    swap = await store.symbols.add(market.spot.id, perpetual("BTC", "BTC-SWAP"))
    assert await store.symbols.by_pair(market.spot.id, "BTC", "USDT", SymbolType.SPOT) == market.btc
    assert await store.symbols.by_pair(market.spot.id, "BTC", "USDT", SymbolType.PERPETUAL) == swap
    assert await store.symbols.by_pair(market.spot.id, "BTC", "USDT") in (swap, market.btc)


async def test_a_pair_without_a_type_is_the_perpetual_on_a_futures_exchange(store: Store, market: Market) -> None:
    undated = perpetual("BTC", "BTC-UNDATED", symbol_type=SymbolType.FUTURE)
    await store.symbols.add(market.futures.id, undated)
    assert await store.symbols.by_pair(market.futures.id, "BTC", "USDT") == market.perpetual


async def test_a_naive_expiry_is_refused(store: Store, market: Market) -> None:
    with pytest.raises(ValidationError) as caught:
        await store.symbols.by_pair(market.spot.id, "BTC", "USDT", expiry=EXPIRY.replace(tzinfo=None))
    assert caught.value.field == "expiry"


async def test_an_inactive_symbol_is_no_pair_but_keeps_its_id(store: Store, exchange: Exchange) -> None:
    old = await store.symbols.add(exchange.id, FULL)
    assert await store.symbols.by_pair(exchange.id, "DOGE", "USD", expiry=EXPIRY) is None
    assert await store.symbols.get(old.id) == old


async def test_many_are_added_in_the_order_given(store: Store, exchange: Exchange) -> None:
    def feed() -> Iterator[Listing]:
        for number in range(500):
            yield listing(f"COIN{number * 7919 % 500}")

    added = await store.symbols.add_many(exchange.id, feed())
    assert [symbol.symbol_base for symbol in added] == [row.symbol_base for row in feed()]


async def test_adding_none_is_no_error(store: Store, exchange: Exchange) -> None:
    assert await store.symbols.add_many(exchange.id, []) == ()


@pytest.mark.parametrize(
    ("taken", "refused"),
    [
        (listing("BTC"), "BTCUSDT"),
        (perpetual("BTC", "btc-usdt", symbol_type=SymbolType.SPOT), "btc-usdt"),  # the pair
        (perpetual("XBT", "BTCUSDT"), "BTCUSDT"),  # the name
    ],
    ids=["both", "pair", "name"],
)
async def test_a_name_or_a_pair_that_is_active_keeps_all_of_them_out(
    store: Store, market: Market, taken: Listing, refused: str
) -> None:
    with pytest.raises(DuplicateError) as caught:
        await store.symbols.add_many(market.spot.id, [listing("DOGE"), taken, listing("SOL")])
    assert f"['{refused}']" in str(caught.value)
    assert names(await store.symbols.by_exchange(market.spot.id, active_only=False)) == ["BTCUSDT", "ETHUSDT"]
    assert await store.symbols.by_pair(market.spot.id, "DOGE", "USDT") is None
    assert (await store.symbols.add(market.spot.id, listing("DOGE"))).is_active


async def test_dated_contracts_of_one_pair_are_told_apart_by_their_expiry(store: Store, exchange: Exchange) -> None:
    dates = [EXPIRY + timedelta(days=number) for number in range(3)]
    rows = [perpetual("BTC", f"BTC-{date:%m%d}", expiry=date) for date in dates]
    assert len(await store.symbols.add_many(exchange.id, rows)) == 3
    with pytest.raises(DuplicateError):
        await store.symbols.add(exchange.id, perpetual("BTC", "another", expiry=EXPIRY))


async def test_one_name_may_be_active_once_beside_its_inactive_forerunners(store: Store, exchange: Exchange) -> None:
    forerunners = [perpetual("LUNA", is_active=False), perpetual("LUNA", is_active=False)]
    active = perpetual("LUNA")
    for rows in ([active, *forerunners], [*forerunners, perpetual("SOL")], [perpetual("SUI", is_active=False)]):
        assert len(await store.symbols.add_many(exchange.id, rows)) == len(rows)
    forerunner = perpetual("APT", is_active=False)
    assert len(await store.symbols.add_many(exchange.id, [forerunner, perpetual("APT")])) == 2


@pytest.mark.parametrize(
    "again", [perpetual("DOGE"), perpetual("DOGE", "another"), perpetual("XDOGE", "DOGE_USDT")], ids=str
)
async def test_a_listing_that_names_one_twice_is_refused_by_its_row(
    store: Store, exchange: Exchange, again: Listing
) -> None:
    with pytest.raises(ValidationError) as caught:
        await store.symbols.add_many(exchange.id, [perpetual("DOGE"), perpetual("SOL"), again])
    assert caught.value.row == 2
    assert await store.symbols.by_exchange(exchange.id) == ()


async def test_one_name_may_be_on_two_exchanges(store: Store, market: Market) -> None:
    assert (await store.symbols.add(market.futures.id, listing("ETH"))).exchange_id == market.futures.id


async def test_a_symbol_of_an_unknown_exchange_is_refused(store: Store) -> None:
    with pytest.raises(UnknownExchangeError, match="32000"):
        await store.symbols.add(32_000, listing("BTC"))


async def test_an_id_that_no_exchange_can_have_is_as_unknown_as_any(store: Store) -> None:
    for number in (0, 2**15, 2**63):
        assert await store.symbols.by_exchange(number) == ()
        assert await store.symbols.by_pair(number, "BTC", "USDT") is None
        with pytest.raises(UnknownExchangeError):
            await store.symbols.sync(number, [listing("BTC")])


async def test_a_bad_listing_is_refused_by_row_and_field_and_nothing_is_written(
    store: Store, exchange: Exchange
) -> None:
    with pytest.raises(ValidationError) as caught:
        await store.symbols.add_many(exchange.id, [listing("BTC"), mapping(listing("ETH")) | {"contract_size": -1}])
    assert (caught.value.row, caught.value.field) == (1, "contract_size")
    assert await store.symbols.by_exchange(exchange.id) == ()


async def test_a_pair_without_a_type_is_the_perpetual_before_any_other(store: Store, market: Market) -> None:
    spot = await store.symbols.add(market.futures.id, perpetual("BTC", "BTC_SPOT", symbol_type=SymbolType.SPOT))
    found = await store.symbols.by_pair(market.futures.id, "BTC", "USDT")
    assert found == market.perpetual
    assert await store.symbols.by_pair(market.futures.id, "BTC", "USDT", SymbolType.SPOT) == spot
