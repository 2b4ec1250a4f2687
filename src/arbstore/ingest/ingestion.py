"""Files into the database: each in one transaction, whole or not at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from arbstore.database import Database, Store
from arbstore.errors import ConfigurationError, ValidationError
from arbstore.ingest.expiry import ExpiredRowsError, Expiry
from arbstore.ingest.files import MalformedLineError
from arbstore.ingest.formats import OpenFile, open_file
from arbstore.ingest.listings import Catalogue, read_listings
from arbstore.ingest.options import Expired, IngestOptions
from arbstore.ingest.registry import Registry
from arbstore.ingest.report import FileReport, IngestReport
from arbstore.ingest.rollups import RollUps
from arbstore.ingest.rows import KINDS, Row
from arbstore.postgres.upsert import InsertResult
from arbstore.records import columns
from arbstore.services.exchanges import enum_value

# Bounds the memory: as many rows are some 40 MB.
_ROWS_A_BATCH = 50_000

Progress: TypeAlias = Callable[[Path, int, int], None]


async def ingest(
    db: Database, files: Sequence[Path], options: IngestOptions, *, progress: Progress | None = None
) -> IngestReport:
    """Write what the files hold, and return what became of every line.

    A file is one transaction: it goes in whole or not at all, and those before it stay. A file that is ingested again
    leaves the same rows. Candles of trades and quotes that are too old for the server to make them are rolled up in
    the same transaction. `progress` is told the file, the bytes of it that were read, and how many there are. Raises
    MalformedLineError, unless `skip_bad`; ExpiredRowsError for rows older than what their table keeps, unless `expired`
    says otherwise; UnknownFormatError; UnknownSymbolError for a symbol that neither a listing nor its own name tells
    of; ConfigurationError for files and options that are missing or contradict one another.
    """
    if options.exchange is not None:
        options = replace(options, exchange=enum_value(options.exchange))
    sizes = await asyncio.to_thread(_sizes, files)
    catalogue = await asyncio.to_thread(_catalogue, options)
    work = _Import(db, options, catalogue, progress or (lambda path, read, size: None))
    return IngestReport(tuple([await work.run(path, sizes[path]) for path in files]))


def _sizes(files: Sequence[Path]) -> dict[Path, int]:
    for path in files:
        if not path.is_file():
            raise ConfigurationError(f"{path} is no file")
    return {path: path.stat().st_size for path in files}


def _catalogue(options: IngestOptions) -> Catalogue:
    if options.symbols is None:
        return Catalogue({})
    catalogue = Catalogue(read_listings(options.symbols))
    if options.exchange is not None and options.exchange not in catalogue.exchanges:
        listed = ", ".join(catalogue.exchanges) or "nothing"
        raise ConfigurationError(f"{options.symbols} lists {listed}, not {options.exchange}")
    return catalogue


@dataclass(frozen=True)
class _Import:
    """What the files of one call have in common."""

    db: Database
    options: IngestOptions
    catalogue: Catalogue
    progress: Progress

    async def run(self, path: Path, size: int) -> FileReport:
        lifted: list[str] = []
        while True:
            try:
                report = await self._write(path, size)
            except ExpiredRowsError as error:
                if self.options.expired is not Expired.KEEP:
                    raise
                # By itself, and before the rows: whoever cleans meanwhile sees it, and other imports need not wait.
                lifted += await self._lift(error)
            else:
                report.lifted += lifted
                return report

    async def _lift(self, error: ExpiredRowsError) -> list[str]:
        async with self.db.begin() as store:
            return [
                (await store.maintenance.set_retention(found.retention.table, None)).table for found in error.tables
            ]

    async def _write(self, path: Path, size: int) -> FileReport:
        with open_file(path, self.options) as file:
            report = FileReport(path=path, format=file.format)
            reader = _Reader(file, report, skip_bad=self.options.skip_bad)
            async with self.db.begin() as store:
                writer = _Writer(store, self.catalogue, reader, self.options.expired)
                if self.options.exchange is not None:
                    await writer.registry.exchange(self.options.exchange)
                # Reading blocks: to unpack and decode 50,000 lines takes a tenth of a second and more.
                while batch := await _uninterrupted(reader):
                    await writer.write(batch)
                    self.progress(path, file.items.position, size)
                await writer.finish()
        self.progress(path, size, size)
        return report


async def _uninterrupted(reader: _Reader) -> list[tuple[int, Row]]:
    """Return the next batch, read in a thread; if this is cancelled, the thread ends before the file is closed."""
    reading = asyncio.ensure_future(asyncio.to_thread(reader.batch))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        reader.stopped = True
        await asyncio.wait([reading])
        raise


class _Reader:
    """The rows of an open file, each with its line."""

    def __init__(self, file: OpenFile, report: FileReport, *, skip_bad: bool) -> None:
        self.report = report
        self.stopped = False
        self._file = file
        self._skip_bad = skip_bad
        self._rows = self._read()

    def batch(self) -> list[tuple[int, Row]]:
        """Return the next rows; none at the end."""
        return list(islice(self._rows, _ROWS_A_BATCH))

    def refuse(self, line: int, error: Exception) -> None:
        """Count a malformed line, or raise MalformedLineError."""
        reason = f"{error.field}: {error.reason}" if isinstance(error, ValidationError) else str(error)
        if not self._skip_bad:
            raise MalformedLineError(self.report.path, line, reason) from error
        self.report.add_bad(line, reason)

    def _read(self) -> Iterator[tuple[int, Row]]:
        items, parse = self._file.items, self._file.parse
        while not self.stopped:
            try:
                found = parse(next(items))
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


class _Writer:
    """Writes batches in one transaction."""

    def __init__(self, store: Store, catalogue: Catalogue, reader: _Reader, expired: Expired) -> None:
        self.registry = Registry(store, catalogue, reader.report)
        self._store = store
        self._reader = reader
        self._expired = expired
        self._expiry = Expiry(store)
        self._roll_ups = RollUps(store)

    async def write(self, batch: list[tuple[int, Row]]) -> None:
        kinds: dict[str, list[tuple[int, Row]]] = {}
        for line, row in batch:
            if await self._identify(line, row):
                kinds.setdefault(row.kind, []).append((line, row))
        if self._expired is not Expired.ANYWAY and (found := await self._expiry.find(kinds)):
            raise ExpiredRowsError(self._reader.report.path, found)
        for kind, rows in kinds.items():
            self._reader.report.add_result(kind, await self._insert(kind, rows))

    async def finish(self) -> None:
        """Make the candles that the server will not."""
        await self._roll_ups.finish()

    async def _identify(self, line: int, row: Row) -> bool:
        for field, owner in row.owners:
            found = await self.registry.id_of(owner, row.values.get("timestamp"))
            if isinstance(found, ValidationError):
                self._reader.refuse(line, found)
                return False
            row.values[field] = found
        return True

    async def _insert(self, kind: str, rows: list[tuple[int, Row]]) -> InsertResult:
        service: Any = getattr(self._store, kind)
        try:
            result: InsertResult = await service.insert([row.values for _, row in rows])
        except ValidationError as error:
            if error.row is None:
                raise
            rows = self._sound(kind, rows)
            result = await service.insert([row.values for _, row in rows])
        self._roll_ups.add(kind, (row.values["timestamp"] for _, row in rows))
        report = self._reader.report
        report.dated_locally += sum(row.dated_locally for _, row in rows)
        table, expired = await self._expiry.count(kind, rows)
        report.expired += Counter({table: expired})  # of none of them nothing is kept
        return result

    def _sound(self, kind: str, rows: list[tuple[int, Row]]) -> list[tuple[int, Row]]:
        """Return the rows that can be stored, refusing the others."""
        sound = []
        for line, row in rows:
            try:
                columns(KINDS[kind], [row.values])
                sound.append((line, row))
            except ValidationError as error:
                self._reader.refuse(line, error)
        return sound
