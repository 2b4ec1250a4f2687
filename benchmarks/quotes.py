"""Invented book tickers: random walks of many symbols, in the order of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from arbstore.records import BookTicker

COLUMNS = ("symbol_id", "timestamp", "bid_price", "bid_qty", "ask_price", "ask_qty")
_STEP = timedelta(milliseconds=10)
_CHUNK = timedelta(minutes=30)


@dataclass(frozen=True)
class Batch:
    """The same rows in all the forms that contenders take."""

    records: list[BookTicker]

    @property
    def tuples(self) -> list[tuple[Any, ...]]:
        """The rows sorted by key, which is the fastest order for COPY."""
        return sorted(self.arriving)

    @property
    def arriving(self) -> list[tuple[Any, ...]]:
        """The rows in the order of the records."""
        return [tuple(getattr(record, name) for name in COLUMNS) for record in self.records]

    @property
    def mappings(self) -> list[dict[str, Any]]:
        """The rows by column, in the order of the records."""
        return [dict(zip(COLUMNS, row, strict=True)) for row in self.arriving]

    def part(self, rows: int) -> Batch:
        """Return the first rows."""
        return Batch(self.records[:rows])

    def halves(self) -> tuple[Batch, Batch]:
        """Return two batches: every second row, and the others."""
        return Batch(self.records[::2]), Batch(self.records[1::2])

    def split(self, rows: int) -> list[list[BookTicker]]:
        """Return the records in batches of so many rows."""
        return [self.records[start : start + rows] for start in range(0, len(self.records), rows)]


def recent(rows: int, symbols: Sequence[int], seed: int = 1) -> Batch:
    """Return quotes of the last hours, each at a time of its own; the first is at the start of a chunk."""
    random = Random(seed)  # noqa: S311 # prices are not secrets
    mids = {symbol: 10 ** random.uniform(-1, 4.5) for symbol in symbols}
    now = datetime.now(UTC)
    # Start with a chunk, so that a small batch has rows in one chunk only.
    moment = datetime.min.replace(tzinfo=UTC) + ((now - datetime.min.replace(tzinfo=UTC)) // _CHUNK) * _CHUNK
    moment -= rows * _STEP // _CHUNK * _CHUNK + _CHUNK
    records = []
    for number in range(rows):
        symbol = random.choice(symbols)
        mids[symbol] *= 1 + random.gauss(0, 1e-4)
        records.append(_quote(symbol, moment + number * _STEP, mids[symbol], random))
    return Batch(records)


def _quote(symbol: int, moment: datetime, mid: float, random: Random) -> BookTicker:
    half = mid * random.uniform(0.2e-4, 2e-4)
    return BookTicker(
        symbol_id=symbol,
        timestamp=moment + timedelta(microseconds=random.randrange(10_000)),
        bid_price=float(f"{mid - half:.6g}"),
        bid_qty=round(random.expovariate(0.5), 4),
        ask_price=float(f"{mid + half:.6g}"),
        ask_qty=round(random.expovariate(0.5), 4),
    )
