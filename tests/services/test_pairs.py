"""What pairs are named, and the keys that the cache keeps symbols under."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from arbstore import cache
from arbstore.database import Store
from arbstore.records import Exchange, Listing, SymbolType

QUARTER = datetime(2024, 9, 27, 8, tzinfo=UTC)


def test_a_pair_is_the_same_however_it_is_written() -> None:
    assert cache.pair_of(1, " btc", "Usdt ", "spot", None) == cache.pair_of(1, "BTC", "USDT", SymbolType.SPOT, None)


@pytest.mark.parametrize(
    "other",
    [
        (2, "BTC", "USDT", "FUTURE", QUARTER),
        (1, "ETH", "USDT", "FUTURE", QUARTER),
        (1, "BTC", "USDC", "FUTURE", QUARTER),
        (1, "BTC", "USDT", "PERPETUAL", QUARTER),
        (1, "BTC", "USDT", None, QUARTER),
        (1, "BTC", "USDT", "FUTURE", QUARTER + timedelta(microseconds=1)),
        (1, "BTC", "USDT", "FUTURE", None),
        (11, "BTC", "USDT", "FUTURE", QUARTER),
    ],
)
def test_whatever_differs_makes_another_key(other: tuple[int, str, str, str | None, datetime | None]) -> None:
    assert cache.pair_of(*other).key != cache.pair_of(1, "BTC", "USDT", "FUTURE", QUARTER).key


def test_a_type_that_is_none_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="SWAP"):
            cache.pair_of(1, "BTC", "USDT", "swap", None)


async def test_the_keys_of_a_symbol_are_those_it_is_looked_up_by(store: Store, exchange: Exchange) -> None:
    dated = Listing(
        symbol_base="BTC",
        symbol_quote="USDT",
        exchange_symbol="BTCUSDT_240927",
        symbol_type=SymbolType.FUTURE,
        # As an exchange far from Greenwich may list it; the server gives it back in UTC.
        expiry=QUARTER.astimezone(timezone(timedelta(hours=9))),
    )
    symbol = await store.symbols.add(exchange.id, dated)
    assert set(cache.keys_of(symbol)) == {
        symbol.id,
        cache.pair_of(exchange.id, "btc", "usdt", None, QUARTER).key,
        cache.pair_of(exchange.id, "btc", "usdt", "future", QUARTER).key,
    }
