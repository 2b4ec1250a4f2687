"""What an import did, or why it refused a file. Every line that was read is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from arbstore.errors import ArbstoreError
from arbstore.records import Symbol

if TYPE_CHECKING:  # the report itself does not need SQLAlchemy
    from arbstore.postgres.upsert import InsertResult
    from arbstore.services.retention import Retention

_SHOWN_BAD_LINES = 5


class BadLine(NamedTuple):
    """A malformed line that was skipped; `line` counts from 1."""

    line: int
    reason: str


class RegisteredSymbol(NamedTuple):
    """A symbol that the import registered. `derived` says that it comes from its name, not from a listing."""

    exchange: str
    symbol: Symbol
    derived: bool


@dataclass(slots=True, kw_only=True)
class Counts:
    """Counts of one file or of several.

    `lines` were read, rows of tables included: each was stored, `ignored` or `bad`. `results` has the counts of each
    series. Its `superseded` rows are those whose key came again within 50,000 lines. `ignored` has the lines without
    market data, by reason. `first_bad` has the first few malformed lines. `dated_locally` are book tickers with the
    local clock's time, because their message has none. `expired` has, by table, the rows that were written although
    they are older than its retention. `lifted` are the tables whose retention the import lifted for such rows.
    `exchanges` and `symbols` were registered.
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
        self.results[kind] = self.results[kind] + result if kind in self.results else result

    def add_bad(self, line: int, reason: str) -> None:
        """Count a malformed line."""
        self.bad += 1
        if len(self.first_bad) < _SHOWN_BAD_LINES:
            self.first_bad.append(BadLine(line, reason))

    def add(self, other: Counts) -> None:
        """Add the counts of another file, without its `first_bad`: their line numbers belong to that file."""
        for kind, result in other.results.items():
            self.add_result(kind, result)
        for name in ("lines", "ignored", "bad", "dated_locally", "expired", "lifted", "exchanges", "symbols"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True, kw_only=True)
class FileReport(Counts):
    """The counts of one file. `format` is the name of its format."""

    path: Path
    format: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """The reports of all files, in the order they were given."""

    files: tuple[FileReport, ...]

    @property
    def total(self) -> Counts:
        """The counts of all files together."""
        total = Counts()
        for report in self.files:
            total.add(report)
        return total


class ExpiredRows(NamedTuple):
    """Rows of a batch that are older than their table's retention: their number, the oldest time, and its line."""

    retention: Retention
    rows: int
    oldest: datetime
    line: int

    def __str__(self) -> str:
        """Say which line is how old, how long the table keeps rows, and what removes them."""
        table, kept = self.retention.table, str(self.retention.keep_for).removesuffix(", 0:00:00")
        return f"line {self.line} is of {_shown(self.oldest)}, but {table} keeps {kept}, and {_fate(self.retention)}"


class ExpiredRowsError(ArbstoreError):
    """A file holds rows that are older than the retention of their table, so nothing of it was written.

    `tables` has the old rows of the first batch that had any, by table.
    """

    def __init__(self, path: Path, tables: tuple[ExpiredRows, ...]) -> None:
        """Say which rows are too old, and how to write them all the same."""
        super().__init__(
            f"{path}, {'; '.join(map(str, tables))}. Nothing of the file was written. Expired.KEEP writes it and"
            " lifts the retention for good; Expired.ANYWAY writes it and leaves the retention as it is",
            parameter="expired",
        )
        self.path = path
        self.tables = tables


def _fate(retention: Retention) -> str:
    if not retention.policy:
        return "the next cleanup removes it"
    when = "" if retention.next_run is None else f", {_shown(retention.next_run)}"
    return f"the server's policy drops it at its next run{when}"


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
