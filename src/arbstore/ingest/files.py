"""Files line by line and row by row: plain, compressed, CSV and Parquet; what is in them is not known here."""

from __future__ import annotations

import csv
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from arbstore.errors import ArbstoreError, ConfigurationError

_BOM = b"\xef\xbb\xbf"
_ROWS_A_BATCH = 10_000


class MalformedLineError(ArbstoreError):
    """A line of a file cannot be read.

    `line` counts from 1 (in Parquet it is the row), None where it is the whole file;
    `reason` says what is wrong.
    """

    def __init__(self, path: Path, line: int | None, reason: str) -> None:
        """Name file, line and reason."""
        super().__init__(f"{path}{'' if line is None else f', line {line}'}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


class UnknownFormatError(ArbstoreError):
    """A file is of no format, or a table of no columns, that can be imported."""


class Lines:
    """The lines of a file, or of the one member of a zip, as bytes without their ends."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises ConfigurationError if that fails, MalformedLineError if it is no zip as named."""
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

    def __iter__(self) -> Lines:
        """Return itself."""
        return self

    def __next__(self) -> bytes:
        """Return the next line; raise ValueError where the compressed data break off, which is the end."""
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

    @property
    def position(self) -> int:
        """Bytes of the file read so far."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self._file.close()


def _decompressed(path: Path, file: BinaryIO) -> tuple[str | None, BinaryIO]:
    if path.suffix.lower() == ".gz":
        # Not through a BufferedReader: where the data break off it would lose the lines that it read ahead.
        return None, cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if path.suffix.lower() != ".zip":
        return None, file
    try:
        archive = zipfile.ZipFile(file)
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise UnknownFormatError(f"{path} holds {len(names)} files: a zip of market data holds one")
        return names[0], cast(BinaryIO, archive.open(names[0]))
    except (zipfile.BadZipFile, OSError, RuntimeError) as error:  # RuntimeError: it is encrypted, or its method unknown
        raise MalformedLineError(path, None, f"is no zip that can be read: {error}") from error


def _cells(line: bytes) -> list[str]:
    """Return the cells of one line: a quote that does not end in it is a fault of this line, not of all that follow."""
    return next(csv.reader([line.decode()], strict=True), [])


class CsvRows:
    """The rows of a CSV file below its header, as mappings of text."""

    def __init__(self, lines: Lines) -> None:
        """Read the header; raise UnknownFormatError without one, MalformedLineError if it cannot be read."""
        self._lines = lines
        try:
            self.header = [name.strip() for name in _cells(next(lines, b""))]
        except (ValueError, csv.Error) as error:
            raise MalformedLineError(lines.path, 1, str(error)) from error
        if not any(self.header):
            raise UnknownFormatError(f"{lines.path} is empty: a CSV file begins with the names of its columns")
        if len(set(self.header)) < len(self.header):
            raise UnknownFormatError(f"{lines.path} has two columns of one name: {', '.join(self.header)}")

    def __iter__(self) -> CsvRows:
        """Return itself."""
        return self

    def __next__(self) -> dict[str, str]:
        """Return the next row, empty for a blank line."""
        try:
            cells = _cells(next(self._lines))
        except csv.Error as error:
            raise ValueError(str(error)) from error
        if cells and len(cells) != len(self.header):
            raise ValueError(f"has {len(cells)} cells where the header has {len(self.header)}")
        return dict(zip(self.header, cells, strict=False))  # a blank line has no cells

    @property
    def number(self) -> int:
        """The line that the last row ended on."""
        return self._lines.number

    @property
    def position(self) -> int:
        """Bytes of the file read so far."""
        return self._lines.position

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


class ParquetRows:
    """The rows of a Parquet file, as mappings of Python's values."""

    def __init__(self, path: Path) -> None:
        """Open it; raise ConfigurationError without pyarrow, MalformedLineError if it is no Parquet."""
        try:
            import pyarrow  # type: ignore[import-untyped] # it has no types
            import pyarrow.parquet  # type: ignore[import-untyped] # it has no types
        except ImportError as error:
            raise ConfigurationError("Parquet files need the extra frames: pip install 'arbstore[frames]'") from error
        self._arrow: Any = pyarrow
        self._path = path
        self.number = 0
        try:
            self._size = path.stat().st_size
            self._file: Any = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise MalformedLineError(path, None, f"is no Parquet file that can be read: {error}") from error
        self.header: list[str] = self._file.schema_arrow.names
        self._rows = self._read()

    def _read(self) -> Iterator[dict[str, Any]]:
        try:
            for batch in self._file.iter_batches(batch_size=_ROWS_A_BATCH):
                yield from _in_microseconds(self._arrow, batch).to_pylist()
        except (self._arrow.ArrowException, ArithmeticError, OSError, ValueError) as error:
            # No line of it: after this none can be read.
            raise MalformedLineError(self._path, self.number + 1, f"the data cannot be read: {error}") from error

    def __iter__(self) -> ParquetRows:
        """Return itself."""
        return self

    def __next__(self) -> dict[str, Any]:
        """Return the next row; raise MalformedLineError where the data cannot be read, which is the end."""
        row = next(self._rows)
        self.number += 1
        return row

    @property
    def position(self) -> int:
        """Bytes of the file read so far, as far as the share of its rows tells."""
        return self._size * self.number // max(int(self._file.metadata.num_rows), 1)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _in_microseconds(arrow: Any, batch: Any) -> Any:
    """Cut nanoseconds off: Python's datetime has none, and pyarrow refuses to drop them by itself."""
    fields = [
        field.with_type(arrow.timestamp("us", field.type.tz)) if arrow.types.is_timestamp(field.type) else field
        for field in batch.schema
    ]
    return arrow.Table.from_batches([batch]).cast(arrow.schema(fields), safe=False)
