"""Files of real recordings to records: `ingest` writes what they hold, and says what became of every line."""

from typing import TYPE_CHECKING

from arbstore import lazy
from arbstore.importers.files import MalformedLineError, UnknownFormatError
from arbstore.importers.listings import read_listings
from arbstore.importers.options import Clock, Expired, IngestOptions

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

if TYPE_CHECKING:
    from arbstore.importers.expiry import ExpiredRows, ExpiredRowsError
    from arbstore.importers.ingestion import ingest
    from arbstore.importers.report import BadLine, Counts, FileReport, IngestReport, RegisteredSymbol
else:
    __getattr__, __dir__ = lazy.exports(
        __name__,
        {
            "expiry": ["ExpiredRows", "ExpiredRowsError"],
            "ingestion": ["ingest"],
            "report": ["BadLine", "Counts", "FileReport", "IngestReport", "RegisteredSymbol"],
        },
    )
