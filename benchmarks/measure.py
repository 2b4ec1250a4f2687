"""Contenders side by side: every round times all of them, in an order that is turned round each time."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time

import msgspec

from benchmarks.processors import busy_seconds

Work = Callable[[], Awaitable[object]]


async def nothing() -> None:
    """Need no preparation."""


@dataclass(frozen=True)
class Contender:
    """One way to do a thing: `work` is timed and does `units` of it; `prepare` comes before each run, untimed."""

    name: str
    work: Work
    units: int = 1
    prepare: Work = nothing


class Timing(msgspec.Struct, frozen=True):
    """The seconds of each round of one contender, without those of the first, which warms up.

    `client` and `machine` are seconds of processor: of this process, and of all there are.
    """

    name: str
    units: int
    seconds: list[float]
    client: list[float] = []
    machine: list[float] = []

    @property
    def per_unit(self) -> float:
        """Median seconds for one unit."""
        return median(self.seconds) / self.units


async def race(contenders: Sequence[Contender], rounds: int) -> dict[str, Timing]:
    """Return the timing of each contender, by name, over so many rounds after one that does not count.

    Garbage is collected as in any program, but not among what was there before: the rows were made by the benchmark.
    """
    timings = {each.name: Timing(each.name, each.units, [], [], []) for each in contenders}
    gc.collect()
    gc.freeze()
    try:
        for number in range(rounds + 1):
            for contender in contenders if number % 2 else reversed(contenders):
                taken, client, machine = await _timed(contender)
                if number:
                    timing = timings[contender.name]
                    timing.seconds.append(taken)
                    timing.client.append(client)
                    timing.machine.append(machine)
    finally:
        gc.unfreeze()
    return timings


async def _timed(contender: Contender) -> tuple[float, float, float]:
    await contender.prepare()
    gc.collect()
    busy, client, began = busy_seconds(), process_time(), perf_counter()
    await contender.work()
    return perf_counter() - began, process_time() - client, busy_seconds() - busy
