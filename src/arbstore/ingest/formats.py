"""Which format a file is of, told by its name and its first lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from arbstore.ingest import funding, listings
from arbstore.ingest.binance import BinanceParser
from arbstore.ingest.files import CsvRows, Lines, ParquetRows, UnknownFormatError
from arbstore.ingest.lean import LeanParser
from arbstore.ingest.options import IngestOptions
from arbstore.ingest.rows import Items, Parser
from arbstore.ingest.tabular import NdjsonParser, TableParser

_KNOWN = (
    "recordings of Binance's websocket (.jsonl); tables of records (.csv, .ndjson, .jsonl, .parquet); funding rates and"
    " pair_tickers (.csv); Lean's market data (.zip). All but .zip and .parquet may be compressed (.gz)"
)
_SAMPLE = 20


class OpenFile(NamedTuple):
    """An open file: what it is, its lines or rows, and what reads them."""

    format: str
    items: Items
    parse: Parser


@contextmanager
def open_file(path: Path, options: IngestOptions) -> Iterator[OpenFile]:
    """Yield the open file.

    Raises UnknownFormatError that names the formats there are, MalformedLineError if not even its beginning can be
    read, ConfigurationError if it cannot be opened or an option is missing.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    ending = "".join(suffixes if suffixes[-1:] == [".gz"] else suffixes[-1:])
    if ending == ".parquet":
        with closing(ParquetRows(path)) as rows:
            yield OpenFile("Parquet", rows, TableParser(path, rows.header, options))
    elif ending in _OPENERS:
        with closing(Lines(path)) as lines:
            yield _OPENERS[ending](lines, options)
    else:
        raise UnknownFormatError(f"{path} is of no known format. Those are: {_KNOWN}")


def _csv(lines: Lines, options: IngestOptions) -> OpenFile:
    rows = CsvRows(lines)
    header = set(rows.header)
    if header >= listings.COLUMNS:
        raise UnknownFormatError(f"{lines.path} is the listing of an exchange: give it with --symbols")
    if header == funding.SETTLED_COLUMNS:
        return OpenFile("settled funding rates", rows, funding.SettledParser(options))
    if header >= funding.SNAPSHOT_COLUMNS:
        return OpenFile("funding rates of platforms", rows, funding.SnapshotParser(options))
    return OpenFile("CSV", rows, TableParser(lines.path, rows.header, options))


def _json(lines: Lines, options: IngestOptions) -> OpenFile:
    # Not the first line alone: a recording that was rotated may begin in the middle of one.
    if any(_is_recorded(line) for line in _sample(lines.path)):
        return OpenFile("Binance websocket recording", lines, BinanceParser(options))
    return OpenFile("NDJSON", lines, NdjsonParser(lines.path, options))


def _lean(lines: Lines, options: IngestOptions) -> OpenFile:
    parser = LeanParser(lines.path, lines.member or "", options)
    what = "ticks" if parser.timeframe is None else f"bars of {parser.timeframe}"
    return OpenFile(f"Lean {what}", lines, parser)


_OPENERS: Mapping[str, Callable[[Lines, IngestOptions], OpenFile]] = MappingProxyType(
    {
        ".csv": _csv,
        ".csv.gz": _csv,
        ".jsonl": _json,
        ".jsonl.gz": _json,
        ".ndjson": _json,
        ".ndjson.gz": _json,
        ".zip": _lean,
    }
)


def _sample(path: Path) -> list[bytes]:
    found: list[bytes] = []
    with closing(Lines(path)) as lines, suppress(ValueError):  # what cannot be read is told where it is read
        found.extend(islice(lines, _SAMPLE))
    return found


def _is_recorded(line: bytes) -> bool:
    clock, _, message = line.partition(b" ")
    return clock.isdigit() and message.startswith(b"{")
