"""Files of real recordings to records: `ingest` writes what they hold, and says what became of every line."""

from arbstore.importers.expiry import ExpiredRows, ExpiredRowsError
from arbstore.importers.files import MalformedLineError, UnknownFormatError
from arbstore.importers.ingest import ingest
from arbstore.importers.listings import read_listings
from arbstore.importers.options import Clock, Expired, IngestOptions
from arbstore.importers.report import BadLine, Counts, FileReport, IngestReport, RegisteredSymbol

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
