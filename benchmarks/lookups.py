"""Cached lookups: what the coroutine around the cache costs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from cachetools import TTLCache

from arbstore.database import Store
from benchmarks.figures import Aspect, Figure
from benchmarks.measure import Contender, Work, race
from benchmarks.server import EXCHANGES, Server, base
from benchmarks.sizes import Sizes

Lookup = Callable[[], Awaitable[object]]


def _lookups(store: Store, exchange: int, symbol: int) -> Mapping[str, Callable[[int], Work]]:
    """Return what makes a loop over each kind of lookup, of so many; the loops are written out: a call costs too."""
    exchanges, symbols = store.exchanges, store.symbols

    def by_enum(count: int) -> Work:
        async def work() -> None:
            for _ in range(count):
                await exchanges.by_enum("BINANCE_SPOT")

        return work

    def get(count: int) -> Work:
        async def work() -> None:
            for _ in range(count):
                await symbols.get(symbol)

        return work

    def by_pair(count: int) -> Work:
        async def work() -> None:
            for _ in range(count):
                await symbols.by_pair(exchange, "COIN0000", "USDT")

        return work

    return {"by_enum": by_enum, "get": get, "by_pair": by_pair}


def _bare(count: int) -> Work:
    cache: TTLCache[tuple[str, str], object] = TTLCache(1_000, 300)
    cache["enum", "BINANCE_SPOT"] = object()
    key = ("enum", "BINANCE_SPOT")

    async def work() -> None:
        for _ in range(count):
            cache[key]

    return work


async def cached_lookups(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure lookups whose answers are kept against the dictionary that keeps them."""
    async with server.stand(len(EXCHANGES)) as stand, stand.db.begin() as store:
        exchange = await store.exchanges.by_enum_one(EXCHANGES[0])
        symbol = await store.symbols.by_pair_one(exchange.id, base(0), "USDT")
        loops = _lookups(store, exchange.id, symbol.id)
        contenders = [Contender(name, loop(sizes.lookups), sizes.lookups) for name, loop in loops.items()]
        times = await race([*contenders, Contender("TTLCache[key]", _bare(sizes.lookups), sizes.lookups)], sizes.rounds)
    return [
        Figure(
            name=f"cached {name}",
            ours=times[name],
            theirs=times["TTLCache[key]"],
            bound=2.5,
            aspect=Aspect.TIME,
        )
        for name in loops
    ]
