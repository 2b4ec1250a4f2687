"""How these tests read and write files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from arbstore.database import Database
from arbstore.ingest import Expired, FileReport, IngestOptions, ingest
from arbstore.ingest.formats import open_file
from arbstore.ingest.reading import Row

TICKS = (
    ("BINANCE_SPOT", "binance_spot__*", "USDT"),
    ("BINANCE_FUTURES", "binance_usdm__*", "USDT"),
    ("BINANCE_COINM_FUTURES", "binance_coinm__*", "USD"),
)
BOOK_TICKER = {"s": "BTCUSDT", "b": "100.5", "B": "1", "a": "100.6", "A": "2", "T": 1723161501274}
TRADE = {"s": "BTCUSDT", "t": 7, "p": "100.5", "q": "0.1", "m": True, "T": 1723161501274, "X": "MARKET"}


def message(event: str, data: dict[str, Any], *, at: int = 1_723_161_500_003_145_516, **changes: Any) -> str:
    """Return a recorded line; a change to None takes the field away."""
    changed = {name: value for name, value in (data | changes).items() if value is not None}
    return f"{at} {json.dumps({'stream': f'btcusdt@{event}', 'data': changed})}"


def book_ticker(**changes: Any) -> str:
    return message("bookTicker", BOOK_TICKER, **changes)


def trade(**changes: Any) -> str:
    return message("trade", TRADE, **changes)


def write(path: Path, *lines: str) -> Path:
    text = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def excerpt(path: Path, folder: Path, *words: str) -> Path:
    """Return a copy of a CSV file with its header and the lines that hold one of the words."""
    header, *lines = path.read_text().splitlines()
    return write(folder / path.name, header, *(line for line in lines if any(word in line for word in words)))


def parsed(path: Path, **options: Any) -> list[Row | str]:
    """Return what each line of the file is, without a database."""
    with open_file(path, IngestOptions(**options)) as file:
        return [file.read(item) if item else "blank line" for item in file.items]


def rows(path: Path, **options: Any) -> list[Row]:
    return [found for found in parsed(path, **options) if isinstance(found, Row)]


def historic(**options: Any) -> IngestOptions:
    """Return the options for recordings, which are older than what most tables keep."""
    return IngestOptions(**{"expired": Expired.ANYWAY} | options)


async def ingested(db: Database, path: Path, **options: Any) -> FileReport:
    report = await ingest(db, [path], historic(**options))
    (file,) = report.files
    return file


def recorded(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return local clock and data of each line of a recording, by nothing of what is tested."""
    with gzip.open(path, "rt") as file:
        lines = [line.split(" ", 1) for line in file]
    return [(int(clock), json.loads(content)["data"]) for clock, content in lines]
