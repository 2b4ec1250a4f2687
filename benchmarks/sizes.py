"""The numbers of rows, symbols and rounds that a run measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

BATCH = 50_000
LONGER = 100


@dataclass(frozen=True)
class Sizes:
    """The sizes of all benchmarks, and their rounds."""

    rounds: int = 9
    batch: int = BATCH  # book tickers inserted at once
    listed: int = 1_000  # registered symbols, which `latest` returns
    symbols: int = 100  # symbols in a batch
    small_batch: int = 1_000  # rows of a small batch into compressed chunks
    transactions: int = 200  # transactions of one row, or of ten
    history: int = 1_000_000  # rows of one symbol in a long history
    short: int = 40  # rows of each symbol in a short history; the long one has LONGER times as many
    lookups: int = 20_000
    processes: int = 8  # concurrent writers, at most
    runs: int = 15  # starts of each program

    @classmethod
    def of(cls, batch: int, rounds: int) -> Self:
        """Return sizes in proportion to a large batch of so many rows."""
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
            processes=cls.processes if share >= 1 else 1,
            runs=part(cls.runs, 1),
        )

    @property
    def heavy_rounds(self) -> int:
        """Rounds of work that takes seconds."""
        return min(self.rounds, 5)
