"""The table of formats, and how a file's format is found. Each format is a module of its own beside this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from arbstore.ingest.formats import binance, funding, lean, platforms, tables
from arbstore.ingest.options import IngestOptions
from arbstore.ingest.reading import Format, Head, UnknownFormatError

# The first that fits reads the file. Tables come last, because they accept any content.
FORMATS: tuple[type[Format], ...] = (
    binance.Recording,
    platforms.ListingFile,
    platforms.Snapshot,
    funding.SettledRates,
    lean.LeanZip,
    tables.CsvTable,
    tables.JsonTable,
    tables.ParquetTable,
)


@contextmanager
def open_file(path: Path, options: IngestOptions) -> Iterator[Format]:
    """Yield the open file.

    Raises UnknownFormatError if no format fits, MalformedLineError if the beginning of the file cannot be read, and
    ConfigurationError if the file cannot be opened or an option is missing.
    """
    found = _format_of(path)
    with closing(found.opens(path)) as items:
        yield found(items, options)


def _format_of(path: Path) -> type[Format]:
    head = Head(path)
    for known in FORMATS:
        if path.name.lower().endswith(known.endings) and known.fits(head):
            return known
    listed = "; ".join(f"{known.name} ({', '.join(known.endings)})" for known in FORMATS)
    raise UnknownFormatError(f"{path} is of no known format. Known are: {listed}")
