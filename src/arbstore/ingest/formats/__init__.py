"""The table of formats, and how a file's format is found. Each format is a module of its own beside this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path

from arbstore.ingest.formats import binance, funding, lean, platforms, tables
from arbstore.ingest.options import IngestOptions
from arbstore.ingest.reading import Format, Lines, UnknownFormatError

_HEAD = 20  # lines
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

    Raises UnknownFormatError if no format fits, and MalformedLineError if the beginning cannot be read. Raises
    ConfigurationError if the file cannot be opened or an option is missing.
    """
    named = [known for known in FORMATS if path.name.lower().endswith(known.endings)]
    head = _head(path) if len(named) > 1 else []
    found = next((known for known in named if known.fits(head)), None)
    if found is None:
        listed = "; ".join(f"{known.name} ({', '.join(known.endings)})" for known in FORMATS)
        raise UnknownFormatError(f"{path} is of no known format. Known are: {listed}")
    with closing(found.opens(path)) as items:
        yield found(items, options)


def _head(path: Path) -> list[bytes]:
    found: list[bytes] = []
    with closing(Lines(path)) as lines, suppress(ValueError):  # the format reports what cannot be read
        found.extend(islice(lines, _HEAD))
    return found
