"""Contenders timed side by side, and the figure that compares two of them."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

Work = Callable[[], Awaitable[object]]

_STAT = Path("/proc/stat")


async def nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Contender:
    """One way to do something: `work` is timed and does `units` of it. `prepare` runs before each time, untimed."""

    name: str
    work: Work
    units: int = 1
    prepare: Work = nothing


@dataclass(frozen=True)
class Timing:
    """The seconds of each round of one contender, without the first round, which warms up.

    `client` and `machine` are seconds of processor time: of this process, and of the whole machine.
    """

    name: str
    units: int
    seconds: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    machine: list[float] = field(default_factory=list)

    @property
    def per_unit(self) -> float:
        """Median seconds for one unit."""
        return median(self.seconds) / self.units


class Aspect(StrEnum):
    """Whether a ratio compares speeds (higher is better) or times (lower is better)."""

    SPEED = "speed"
    TIME = "time"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The ratio of `ours` to `theirs`; `bound` is the lowest speed or the longest time that it should keep."""

    name: str
    ours: Timing
    theirs: Timing
    bound: float | None = None
    aspect: Aspect = Aspect.SPEED
    note: str = ""

    @property
    def ratio(self) -> float:
        """The ratio of the medians."""
        return self._ratio(self.ours.per_unit, self.theirs.per_unit)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest ratio of a single round."""
        rounds = [
            self._ratio(mine / self.ours.units, other / self.theirs.units)
            for mine, other in zip(self.ours.seconds, self.theirs.seconds, strict=True)
        ]
        return min(rounds), max(rounds)

    def _ratio(self, ours: float, theirs: float) -> float:
        return theirs / ours if self.aspect is Aspect.SPEED else ours / theirs


async def race(contenders: Sequence[Contender], rounds: int) -> dict[str, Timing]:
    """Return the timing of each contender, by name. One more round comes first and does not count.

    Every round times all contenders, in the opposite order of the round before. Garbage is collected as in any
    program, except among objects that existed before: they are the benchmark's rows.
    """
    timings = {each.name: Timing(each.name, each.units) for each in contenders}
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
    busy, client, began = _busy_seconds(), process_time(), perf_counter()
    await contender.work()
    return perf_counter() - began, process_time() - client, _busy_seconds() - busy


def _busy_seconds() -> float:
    """Return the seconds that all processors together have worked, or 0 on systems other than Linux."""
    if not _STAT.exists():
        return 0.0
    # user, nice, system, idle, waiting for I/O, interrupts, soft interrupts, taken by the hypervisor: in ticks
    user, nice, system, _, _, interrupts, soft, _ = map(int, _STAT.read_text().split()[1:9])
    return float(user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")
