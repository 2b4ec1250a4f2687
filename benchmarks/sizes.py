"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

BATCH = 50_000
LONGER = 100


@dataclass(frozen=True)
class Sizes:
    """Rows, symbols and repetitions of the benchmarks, and the rounds of each."""

    rounds: int = 9
    batch: int = BATCH  # book tickers inserted at once
    listed: int = 1_000  # symbols that there are: `latest` is asked for all of them
    symbols: int = 100  # of those, that a batch is about
    small_batch: int = 1_000  # rows of a batch that is small, where it meets compressed chunks
    transactions: int = 200  # of one row, or of ten
    history: int = 1_000_000  # rows of one symbol, read at once
    short: int = 40  # rows of each listed symbol; the long history has LONGER times as many
    lookups: int = 20_000
    processes: int = 8  # concurrent writers, at most
    runs: int = 15  # of a program that starts

    @classmethod
    def of(cls, batch: int, rounds: int) -> Self:
        """Return the sizes in proportion to a batch of so many rows."""
        share = batch / BATCH

        def part(whole: int, least: int) -> int:
            return max(least, min(whole, round(whole * share)))

        return cls(
            rounds=rounds,
            batch=batch,
            small_batch=part(cls.small_batch, 2),
            transactions=part(cls.transactions, 5),
            history=max(100, round(cls.history * share)),
            listed=part(cls.listed, 4),
            short=part(cls.short, 2),
            lookups=part(cls.lookups, 1_000),
            processes=cls.processes if share >= 1 else 2,
            runs=part(cls.runs, 1),
        )

    @property
    def heavy_rounds(self) -> int:
        """Rounds of what takes seconds each."""
        return min(self.rounds, 5)
