"""Costs without a query: cached lookups, and the start of a program that imports arbstore."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from cachetools import TTLCache

from arbstore.database import Store
from benchmarks.measure import Aspect, Contender, Figure, Work, race
from benchmarks.server import EXCHANGES, Server, base
from benchmarks.sizes import Sizes


def _loops(store: Store, exchange: int, symbol: int, count: int) -> Mapping[str, Work]:
    """Return a loop over each kind of lookup. They are written out because another call would cost time too."""
    exchanges, symbols = store.exchanges, store.symbols

    async def by_enum() -> None:
        for _ in range(count):
            await exchanges.by_enum("BINANCE_SPOT")

    async def get() -> None:
        for _ in range(count):
            await symbols.get(symbol)

    async def by_pair() -> None:
        for _ in range(count):
            await symbols.by_pair(exchange, "COIN0000", "USDT")

    return {"by_enum": by_enum, "get": get, "by_pair": by_pair}


def _bare(count: int) -> Work:
    cache: TTLCache[tuple[str, str], object] = TTLCache(1_000, 300)
    key = ("enum", "BINANCE_SPOT")
    cache[key] = object()

    async def work() -> None:
        for _ in range(count):
            cache[key]

    return work


async def cached_lookups(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure lookups that the cache answers, against a look into the dictionary that keeps the answers."""
    async with server.sandbox(len(EXCHANGES)) as sandbox, sandbox.db.begin() as store:
        exchange = await store.exchanges.by_enum_one(EXCHANGES[0])
        symbol = await store.symbols.by_pair_one(exchange.id, base(0), "USDT")
        loops = {**_loops(store, exchange.id, symbol.id, sizes.lookups), "TTLCache[key]": _bare(sizes.lookups)}
        times = await race([Contender(name, loop, sizes.lookups) for name, loop in loops.items()], sizes.rounds)
    theirs = times.pop("TTLCache[key]")
    return [
        Figure(name=f"cached {name}", ours=ours, theirs=theirs, bound=2.5, aspect=Aspect.TIME)
        for name, ours in times.items()
    ]


def _program(*command: str) -> Work:
    async def work() -> None:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        if status := await process.wait():
            raise RuntimeError(f"{command} ended with status {status}")

    return work


async def startup(_: Server, sizes: Sizes) -> list[Figure]:
    """Measure new processes, from the start of the interpreter to their end."""
    programs = {
        "from arbstore import Database": _program(sys.executable, "-c", "from arbstore import Database"),
        "arbstore --help": _program(str(Path(sys.executable).parent / "arbstore"), "--help"),
        "import sqlalchemy": _program(sys.executable, "-c", "import sqlalchemy"),
    }
    times = await race([Contender(name, program) for name, program in programs.items()], sizes.runs)
    bounds = {"from arbstore import Database": 3, "arbstore --help": 2}
    return [
        Figure(name=name, ours=times[name], theirs=times["import sqlalchemy"], bound=bound, aspect=Aspect.TIME)
        for name, bound in bounds.items()
    ]
