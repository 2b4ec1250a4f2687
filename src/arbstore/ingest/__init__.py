"""Import files of market data: `ingest` writes their rows, and reports what became of every line."""

from arbstore.ingest.formats.platforms import read_listings
from arbstore.ingest.options import Clock, Expired, IngestOptions
from arbstore.ingest.pipeline import ingest
from arbstore.ingest.reading import MalformedLineError, UnknownFormatError
from arbstore.ingest.report import (
    BadLine,
    Counts,
    ExpiredRows,
    ExpiredRowsError,
    FileReport,
    IngestReport,
    RegisteredSymbol,
)

__all__ = [
    "BadLine",
    "Clock",
    "Counts",
    "Expired",
    "ExpiredRows",
    "ExpiredRowsError",
    "FileReport",
    "IngestOptions",
    "IngestReport",
    "MalformedLineError",
    "RegisteredSymbol",
    "UnknownFormatError",
    "ingest",
    "read_listings",
]
