"""What an import did: nothing that was read disappears uncounted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from arbstore.postgres.upsert import InsertResult
from arbstore.records import Symbol

_SHOWN_BAD_LINES = 5


class BadLine(NamedTuple):
    """A malformed line that was skipped; `line` counts from 1."""

    line: int
    reason: str


class RegisteredSymbol(NamedTuple):
    """A symbol that the import registered: from the listing that was given, or `derived` from its name."""

    exchange: str
    symbol: Symbol
    derived: bool


@dataclass(slots=True, kw_only=True)
class Counts:
    """Counts of one file or of several.

    `lines` are the lines, or rows of a table without its header, that were read: each was stored, `ignored` or `bad`.
    `results` has the counts of each service, such as trades; `superseded` are rows whose key came again within
    the same batch of 50,000 lines. `ignored` has, by reason, the lines that are no market data; `first_bad` the first
    few malformed ones. `dated_locally` are book tickers that have the local clock's time as their message has none.
    `expired` has, by table, the rows that were written though they are older than what it keeps; `lifted` the tables
    whose retention the import lifted for such rows.
    """

    lines: int = 0
    results: dict[str, InsertResult] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    bad: int = 0
    first_bad: list[BadLine] = field(default_factory=list)
    dated_locally: int = 0
    expired: Counter[str] = field(default_factory=Counter)
    lifted: list[str] = field(default_factory=list)
    exchanges: list[str] = field(default_factory=list)
    symbols: list[RegisteredSymbol] = field(default_factory=list)

    def add_result(self, kind: str, result: InsertResult) -> None:
        """Count a batch that was written."""
        self.results[kind] = self.results.get(kind, InsertResult(0, 0, 0)) + result

    def add_bad(self, line: int, reason: str) -> None:
        """Count a malformed line."""
        self.bad += 1
        if len(self.first_bad) < _SHOWN_BAD_LINES:
            self.first_bad.append(BadLine(line, reason))

    def add(self, other: Counts) -> None:
        """Count what `other` counted, save its `first_bad`: their numbers are of its file."""
        for kind, result in other.results.items():
            self.add_result(kind, result)
        self.lines += other.lines
        self.ignored += other.ignored
        self.bad += other.bad
        self.dated_locally += other.dated_locally
        self.expired += other.expired
        self.lifted += other.lifted
        self.exchanges += other.exchanges
        self.symbols += other.symbols


@dataclass(slots=True, kw_only=True)
class FileReport(Counts):
    """What became of one file; `format` is what it was read as."""

    path: Path
    format: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of all files, in the order they were given."""

    files: tuple[FileReport, ...]

    @property
    def total(self) -> Counts:
        """The counts of all files together."""
        total = Counts()
        for report in self.files:
            total.add(report)
        return total
