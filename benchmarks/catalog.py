"""The benchmarks there are, by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from benchmarks import compressed, growth, history, latest, lookups, small_writes, startup, writes
from benchmarks.figures import Figure
from benchmarks.server import Server
from benchmarks.sizes import Sizes

Benchmark = Callable[[Server, Sizes], Awaitable[list[Figure]]]

BENCHMARKS: Mapping[str, Benchmark] = {
    "insert": writes.insert_new,
    "insert-few": small_writes.insert_few,
    "compressed": compressed.compressed,
    "latest": latest.latest,
    "history": history.history,
    "lookups": lookups.cached_lookups,
    "startup": startup.startup,
    "growth": growth.growth,
}
