"""What every format is built from: lines and rows of files, times in UTC, and the rows that parsers return.

Nothing here knows a particular format. Those are in `formats`.
"""

from __future__ import annotations

import csv
import gzip
import lzma
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple, cast

from arbstore.errors import ArbstoreError, ConfigurationError
from arbstore.ingest.options import IngestOptions
from arbstore.ingest.symbols import OwnerName

_BOM = b"\xef\xbb\xbf"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CSV = (".csv", ".csv.gz")
JSON = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


class MalformedLineError(ArbstoreError):
    """A line of a file cannot be read.

    `line` counts from 1. It is the row in Parquet files, and None if the whole file cannot be read. `reason` says what
    is wrong.
    """

    def __init__(self, path: Path, line: int | None, reason: str, *, parameter: str | None = None) -> None:
        """Name the file, the line and the reason."""
        super().__init__(f"{path}{'' if line is None else f', line {line}'}: {reason}", parameter=parameter)
        self.path = path
        self.line = line
        self.reason = reason


class UnknownFormatError(ArbstoreError):
    """No format reads this file, or no series has these columns."""


class MissingOffsetError(ValueError):
    """A time has no zone, and the options give no offset."""

    parameter = "utc_offset"


class Row(NamedTuple):
    """A row of the series `kind`. `owners` has the name behind each column that holds an id, `values` the others."""

    kind: str
    owners: tuple[tuple[str, OwnerName], ...]
    values: dict[str, Any]
    dated_locally: bool = False


class Lines(Iterator[Any]):
    """The lines of a file, or of the only member of a zip, as bytes without line ends. Unpacks .gz and .zip.

    `number` is that of the last line, from 1. `next` raises ValueError for a bad line; the next one may be good again.
    """

    def __init__(self, path: Path) -> None:
        """Open the file. Raises ConfigurationError if that fails, MalformedLineError for a broken zip."""
        self.path = path
        self.number = 0
        self._ended = False
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
        try:
            self.member, self._stream = _decompressed(path, self._file)
        except BaseException:
            self._file.close()
            raise

    def __next__(self) -> Any:
        """Return the next line. Raises ValueError once where compressed data break off, and ends there."""
        if self._ended or self._stream.closed:
            raise StopIteration
        try:
            line = self._stream.readline()
        except (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile) as error:
            self._ended = True
            self.number += 1
            raise ValueError(f"the compressed data break off: {error}") from error
        if not line:
            self._ended = True
            raise StopIteration
        self.number += 1
        line = line.rstrip(b"\r\n")
        return line.removeprefix(_BOM) if self.number == 1 else line

    @cached_property
    def header(self) -> list[str]:
        """The names of the columns; empty if every row brings its names along."""
        return []

    @property
    def position(self) -> int:
        """How many bytes of the file are read."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self._file.close()


def _decompressed(path: Path, file: BinaryIO) -> tuple[str, BinaryIO]:
    if path.suffix.lower() == ".gz":
        # A BufferedReader around it would lose the lines that it read ahead of a break.
        return "", cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if path.suffix.lower() != ".zip":
        return "", file
    try:
        archive = zipfile.ZipFile(file)
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise UnknownFormatError(f"{path} holds {len(names)} files: a zip of market data holds one")
        return names[0], cast(BinaryIO, archive.open(names[0]))
    except (zipfile.BadZipFile, OSError, RuntimeError) as error:  # RuntimeError: encrypted, or an unknown method
        raise MalformedLineError(path, None, f"the zip cannot be read: {error}") from error


def _cells(line: bytes) -> list[str]:
    """Return the cells of one line. A quoted cell must end in its line, so that a stray quote spoils only one line."""
    try:
        return next(csv.reader([line.decode()], strict=True), [])
    except csv.Error as error:
        raise ValueError(str(error)) from error


class CsvRows(Lines):
    """The rows of a CSV file below its header, as dicts of text. A blank line is an empty dict."""

    @cached_property
    def header(self) -> list[str]:
        """The names in the first line. Raises UnknownFormatError or MalformedLineError if there are none."""
        try:
            header = [name.strip() for name in _cells(super().__next__())]
        except StopIteration:
            header = []
        except ValueError as error:
            raise MalformedLineError(self.path, 1, str(error)) from error
        if not any(header):
            raise UnknownFormatError(f"{self.path} is empty: a CSV file begins with the names of its columns")
        if len(set(header)) < len(header):
            raise UnknownFormatError(f"{self.path} has two columns of one name: {', '.join(header)}")
        return header

    def __next__(self) -> Any:
        """Return the next row."""
        header, cells = self.header, _cells(super().__next__())
        if cells and len(cells) != len(header):
            raise ValueError(f"has {len(cells)} cells, but the header has {len(header)}")
        return dict(zip(header, cells, strict=False))  # a blank line has no cells


class Format:
    """A format of files. Write a subclass that reads it, and add the subclass to `formats.FORMATS`.

    `name` is for people. `endings` are how the names of its files end, and `columns` are in the header of each. `opens`
    opens a file as lines or rows. If the files do not name their exchange, `exchange` is that of the options.
    """

    name: str
    endings: ClassVar[tuple[str, ...]] = CSV
    opens: ClassVar[type[Lines]] = CsvRows
    columns: ClassVar[frozenset[str]] = frozenset()
    names_exchange: ClassVar[bool] = False

    def __init__(self, items: Any, options: IngestOptions) -> None:
        """Take an open file. Raises ConfigurationError if an option is missing, UnknownFormatError for a wrong file."""
        self.items = items
        self.options = options
        if not self.names_exchange:
            if options.exchange is None:
                raise ConfigurationError(f"{items.path} does not name its exchange: give it", parameter="exchange")
            self.exchange = options.exchange

    @classmethod
    def fits(cls, head: list[bytes]) -> bool:
        """Return whether a file with one of the endings and these first lines is of this format."""
        with suppress(ValueError):  # a header that cannot be read has no columns
            return cls.columns.issubset(name.strip() for line in head[:1] for name in _cells(line))
        return not cls.columns

    @abstractmethod
    def read(self, item: Any) -> Row | str:
        """Return the row of an item, or why it holds no market data. Raises ValueError if it is malformed."""


def from_epoch(units: int, *, a_second: int) -> datetime:
    """Return the time so many units after 1970, cut to microseconds; `a_second` is 1_000 for milliseconds.

    Counts in integers, because floats lose microseconds. Raises ValueError beyond the year 9999.
    """
    try:
        return _EPOCH + timedelta(microseconds=units * 1_000_000 // a_second)
    except OverflowError:
        raise ValueError(f"{units // a_second} seconds after 1970 is beyond the year 9999") from None


def aware(field: str, value: object, utc_offset: timedelta | None) -> datetime:
    """Return a time in UTC. It is a datetime or a text in ISO format; without a zone, `utc_offset` is its zone.

    Raises ValueError if it is not a time, and MissingOffsetError if both zone and offset are missing.
    """
    if not isinstance(value, str | datetime):
        raise ValueError(f"{field}: {value!r} is not a time such as 2024-08-08T12:00:00Z: epochs are ambiguous")
    try:
        moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error
    if moment.utcoffset() is None:
        if utc_offset is None:
            raise MissingOffsetError(f"{field}: {value} has no time zone: say how far its clock is ahead of UTC")
        moment = moment.replace(tzinfo=timezone(utc_offset))
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{field}: {value} is beyond the years 1 to 9999 in UTC") from None
