"""The import of files: each is written in one transaction, either whole or not at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from arbstore.errors import ConfigurationError, ValidationError
from arbstore.ingest.formats import open_file
from arbstore.ingest.formats.platforms import read_listings
from arbstore.ingest.options import Expired, IngestOptions
from arbstore.ingest.reading import Format, MalformedLineError, Row
from arbstore.ingest.registry import Registry
from arbstore.ingest.report import ExpiredRows, ExpiredRowsError, FileReport, IngestReport
from arbstore.kinds import KINDS
from arbstore.records import Listing, columns
from arbstore.records.reference import enum_value

if TYPE_CHECKING:  # the command line imports this module for its help, and must not wait for SQLAlchemy
    from arbstore.database import Database, Store
    from arbstore.postgres.upsert import InsertResult
    from arbstore.services.retention import Retention

_ROWS_A_BATCH = 50_000  # bounds the memory to some 40 MB

Progress: TypeAlias = Callable[[Path, int, int], None]
Numbered: TypeAlias = tuple[int, Row]  # a row and its line


async def ingest(
    db: Database, files: Sequence[Path], options: IngestOptions, *, progress: Progress | None = None
) -> IngestReport:
    """Write the rows of the files, and return what became of every line.

    Each file is one transaction: if it fails, nothing of it is written, but the files before it stay. Ingesting a file
    again leaves the same rows. `progress` gets the file, how many of its bytes are read, and its size.

    Raises MalformedLineError unless `skip_bad` is set, and ExpiredRowsError for rows that are older than the retention
    of their table unless `expired` allows them. Raises UnknownFormatError; UnknownSymbolError for a symbol that is in
    no listing and has an ambiguous name; ConfigurationError for missing files and missing or contradicting options.
    """
    if options.exchange is not None:
        options = replace(options, exchange=enum_value(options.exchange))
    listings = await asyncio.to_thread(_listings, files, options)
    work = _Import(db, options, listings, progress or (lambda path, read, size: None))
    return IngestReport(tuple([await work.run(path) for path in files]))


def _listings(files: Sequence[Path], options: IngestOptions) -> Mapping[str, tuple[Listing, ...]]:
    for path in files:
        if not path.is_file():
            raise ConfigurationError(f"{path} is not a file")
    if options.symbols is None:
        return {}
    listings = read_listings(options.symbols)
    if options.exchange is not None and options.exchange not in listings:
        listed = ", ".join(listings) or "nothing"
        raise ConfigurationError(f"{options.symbols} lists {listed}, not {options.exchange}", parameter="symbols")
    return listings


@dataclass(frozen=True)
class _Import:
    """What the files of one call have in common."""

    db: Database
    options: IngestOptions
    listings: Mapping[str, tuple[Listing, ...]]
    progress: Progress

    async def run(self, path: Path) -> FileReport:
        try:
            return await self._write(path)
        except ExpiredRowsError as error:
            if self.options.expired is not Expired.KEEP:
                raise
            # Committed before the rows are written: a cleanup sees it, and other imports need not wait.
            async with self.db.begin() as store:
                lifts = [await store.maintenance.set_retention(one.retention.table, None) for one in error.tables]
        report = await self.run(path)  # a later batch may need other tables
        report.lifted[:0] = [lift.table for lift in lifts]
        return report

    async def _write(self, path: Path) -> FileReport:
        size = (await asyncio.to_thread(path.stat)).st_size
        with open_file(path, self.options) as file:
            report = FileReport(path=path, format=file.name)
            reader = _Reader(file, report, skip_bad=self.options.skip_bad)
            async with self.db.begin() as store:
                registry = Registry(store, self.listings, report)
                if self.options.exchange is not None:
                    await registry.exchange(self.options.exchange)
                retention = {found.table: found for found in await store.maintenance.retention()}
                writer = _Writer(store, registry, reader, self.options.expired, retention)
                # In a thread, because unpacking and decoding 50,000 lines takes a tenth of a second or more.
                while batch := await _uninterrupted(reader):
                    await writer.write(batch)
                    self.progress(path, file.items.position, size)
        self.progress(path, size, size)
        return report


async def _uninterrupted(reader: _Reader) -> list[Numbered]:
    """Return the next batch. If this is cancelled, wait for the thread's end before the file is closed."""
    reading = asyncio.ensure_future(asyncio.to_thread(reader.batch))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        reader.stopped = True
        await asyncio.wait([reading])
        raise


class _Reader:
    """The rows of an open file, each with its line. Counts the other lines."""

    def __init__(self, file: Format, report: FileReport, *, skip_bad: bool) -> None:
        self.report = report
        self.stopped = False
        self._file = file
        self._skip_bad = skip_bad
        self._rows = self._read()

    def batch(self) -> list[Numbered]:
        return list(islice(self._rows, _ROWS_A_BATCH))

    def refuse(self, line: int, error: Exception) -> None:
        """Count a malformed line, or raise MalformedLineError."""
        reason = f"{error.field}: {error.reason}" if isinstance(error, ValidationError) else str(error)
        if not self._skip_bad:
            parameter = getattr(error, "parameter", None)
            raise MalformedLineError(self.report.path, line, reason, parameter=parameter) from error
        self.report.add_bad(line, reason)

    def _read(self) -> Iterator[Numbered]:
        items = self._file.items
        while not self.stopped:
            try:
                item = next(items)
                found = self._file.read(item) if item else "blank line"
            except StopIteration:
                return
            except (ValueError, ArithmeticError, RecursionError) as error:
                self.report.lines += 1
                self.refuse(items.number, error)
                continue
            self.report.lines += 1
            if isinstance(found, Row):
                yield items.number, found
            else:
                self.report.ignored[found] += 1


@dataclass
class _Writer:
    """Writes batches of one file in one transaction. `retention` is by table."""

    store: Store
    registry: Registry
    reader: _Reader
    expired: Expired
    retention: Mapping[str, Retention]

    async def write(self, batch: list[Numbered]) -> None:
        kinds: dict[str, list[Numbered]] = {}
        for line, row in batch:
            if await self._identify(line, row):
                kinds.setdefault(row.kind, []).append((line, row))
        if self.expired is not Expired.ANYWAY and (found := tuple(self._expired(kinds))):
            raise ExpiredRowsError(self.reader.report.path, found)
        for kind, rows in kinds.items():
            self.reader.report.add_result(kind, await self._insert(kind, rows))

    async def _identify(self, line: int, row: Row) -> bool:
        for column, owner in row.owners:
            found = await self.registry.id_of(owner, row.values.get("timestamp"))
            if isinstance(found, ValidationError):
                self.reader.refuse(line, found)
                return False
            row.values[column] = found
        return True

    def _expired(self, kinds: Mapping[str, list[Numbered]]) -> Iterator[ExpiredRows]:
        """Yield the old rows of each table, without those that cannot be stored anyway."""
        for kind, rows in kinds.items():
            old = [(row.values["timestamp"], line) for line, row in self._old(kind, rows) if _fault(row) is None]
            if old:
                yield ExpiredRows(self.retention[KINDS[kind].table.name], len(old), *min(old))

    def _old(self, kind: str, rows: list[Numbered]) -> Iterator[Numbered]:
        if (cutoff := self.retention[KINDS[kind].table.name].cutoff) is None:
            return
        for line, row in rows:
            at = row.values.get("timestamp")
            # A timestamp that is not an aware time is refused by the service.
            if isinstance(at, datetime) and at.utcoffset() is not None and at < cutoff:
                yield line, row

    async def _insert(self, kind: str, rows: list[Numbered]) -> InsertResult:
        service: Any = getattr(self.store, kind)
        try:
            result: InsertResult = await service.insert([row.values for _, row in rows])
        except ValidationError as error:
            if error.row is None:
                raise
            rows = list(self._sound(rows))
            result = await service.insert([row.values for _, row in rows])
        report = self.reader.report
        report.dated_locally += sum(row.dated_locally for _, row in rows)
        report.expired += Counter(KINDS[kind].table.name for _ in self._old(kind, rows))
        return result

    def _sound(self, rows: list[Numbered]) -> Iterator[Numbered]:
        """Yield the rows that can be stored, and refuse the others."""
        for line, row in rows:
            if (fault := _fault(row)) is None:
                yield line, row
            else:
                self.reader.refuse(line, fault)


def _fault(row: Row) -> ValidationError | None:
    """Return why the row cannot be stored."""
    try:
        columns(KINDS[row.kind].record, [row.values])
    except ValidationError as error:
        return error
    return None
