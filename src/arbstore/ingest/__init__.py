"""Files of real recordings to records: `ingest` writes what they hold, and says what became of every line."""

from typing import TYPE_CHECKING

from arbstore import lazy
from arbstore.ingest.files import MalformedLineError, UnknownFormatError
from arbstore.ingest.listings import read_listings
from arbstore.ingest.options import Clock, Expired, IngestOptions

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
    from arbstore.ingest.expiry import ExpiredRows, ExpiredRowsError
    from arbstore.ingest.ingestion import ingest
    from arbstore.ingest.report import BadLine, Counts, FileReport, IngestReport, RegisteredSymbol
else:
    __getattr__, __dir__ = lazy.exports(
        __name__,
        {
            "expiry": ["ExpiredRows", "ExpiredRowsError"],
            "ingestion": ["ingest"],
            "report": ["BadLine", "Counts", "FileReport", "IngestReport", "RegisteredSymbol"],
        },
    )
