"""Concurrent writers, each a process of its own as collectors are: their rate, and what limits it."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median

from arbstore.database import Database
from arbstore.settings import Settings
from benchmarks.measure import Contender, Figure, Timing, Work, race
from benchmarks.quotes import recent
from benchmarks.server import Sandbox, Server
from benchmarks.sizes import Sizes

_BATCHES = 10  # transactions of a run
_WRITERS = (1, 2, 4, 8)
_SATURATED = 0.9


def _write(url: str, symbols: Sequence[int], rows: int, pipe: Connection) -> None:
    """For each message insert the batches and answer with the processor time; return when the pipe is closed."""
    asyncio.run(_writing(url, symbols, rows, pipe))


async def _writing(url: str, symbols: Sequence[int], rows: int, pipe: Connection) -> None:
    batches = recent(rows, symbols).split(rows // _BATCHES)
    async with Database(url, settings=Settings.load(statement_timeout=0)) as db:
        pipe.send(0.0)
        while _is_asked(pipe):
            began = time.process_time()
            for records in batches:
                async with db.begin() as store:
                    await store.book_tickers.insert(records)
            pipe.send(time.process_time() - began)


def _is_asked(pipe: Connection) -> bool:
    try:
        pipe.recv()
    except EOFError:
        return False
    return True


@contextmanager
def _writers(sandbox: Sandbox, count: int, rows: int) -> Iterator[list[Connection]]:
    """Yield the pipes of so many writers, which have made their rows, each for symbols of its own."""
    spawn = get_context("spawn")
    pipes, processes = [], []
    for number in range(count):
        pipe, theirs = spawn.Pipe()
        arguments = (sandbox.url, sandbox.symbols[number::count], rows, theirs)
        process = spawn.Process(target=_write, args=arguments, daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends with the writer
        pipes.append(pipe)
        processes.append(process)
    try:
        for pipe in pipes:
            pipe.recv()
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join()


def _run(pipes: Sequence[Connection], spent: list[float]) -> Work:
    async def work() -> None:
        for pipe in pipes:
            pipe.send(None)
        spent.append(sum(pipe.recv() for pipe in pipes))

    return work


def _limit(timing: Timing, spent: Sequence[float]) -> str:
    """Return how busy the processors were; the server and the system used all that the writers did not."""
    cores = os.cpu_count() or 1
    writers, machine = (
        median(each / taken for each, taken in zip(seconds[-len(timing.seconds) :], timing.seconds, strict=True))
        for seconds in (spent, timing.machine)
    )
    rest = max(0.0, machine - writers)
    used = f"cores busy: {writers:.1f} with the writers, {rest:.1f} with the server, of {cores}"
    if machine >= _SATURATED * cores:
        return f"limit: all cores; {used}"
    return used


async def growth(server: Server, sizes: Sizes) -> list[Figure]:
    """Measure the rate of several writers against the rate of one."""
    counts = [count for count in _WRITERS if count <= sizes.processes]
    rows = max(_BATCHES, sizes.batch // _BATCHES * _BATCHES)
    spent: dict[int, list[float]] = defaultdict(list)
    async with server.sandbox(sizes.listed) as sandbox:
        with _writers(sandbox, max(counts), rows) as pipes:
            contenders = [
                Contender(_name(count), _run(pipes[:count], spent[count]), count * rows, sandbox.empty)
                for count in counts
            ]
            times = await race(contenders, sizes.heavy_rounds)
    return [
        Figure(
            name=f"{_name(count)}, {rows // _BATCHES:,} rows a transaction",
            ours=times[_name(count)],
            theirs=times[_name(1)],
            note=_limit(times[_name(count)], spent[count]),
        )
        for count in counts
    ]


def _name(writers: int) -> str:
    return "one writer" if writers == 1 else f"{writers} concurrent writers"
