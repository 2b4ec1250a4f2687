"""Record batches into a Parquet file, which is there when it is complete and not before."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from uuid import uuid4

import pyarrow as pa  # type: ignore[import-untyped] # it has no types
import pyarrow.parquet as pq  # type: ignore[import-untyped] # it has no types

Progress: TypeAlias = Callable[[int, int], None]


class Export(NamedTuple):
    """What was written: the file, its rows and its bytes."""

    path: Path
    rows: int
    bytes: int


async def write_parquet(
    path: Path,
    batches: AsyncIterator[pa.RecordBatch],
    schema: pa.Schema,
    about: Mapping[str, Any],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Write the batches, each a row group, compressed with zstd; the metadata's key `arbstore` is `about` as JSON.

    Raises FileExistsError and other OSErrors that name the path; whatever fails, nothing of it is left.
    """
    writer = _Writer(path, schema, about, overwrite=overwrite)
    try:
        async for batch in batches:
            size = await asyncio.to_thread(writer.write, batch)
            if progress is not None:
                progress(writer.rows, size)
        return await asyncio.to_thread(writer.finish)
    finally:
        # Cancelled once more, it is done all the same: nobody else would.
        await asyncio.shield(asyncio.to_thread(writer.discard))


class _Writer:
    """One file under a temporary name beside its own, for that is the same file system; all but its making blocks."""

    def __init__(self, path: Path, schema: pa.Schema, about: Mapping[str, Any], *, overwrite: bool) -> None:
        self.rows = 0
        self._path = path
        self._place = Path(os.path.realpath(path))  # a link stays one
        self._overwrite = overwrite
        self._refuse_existing()
        self._part = self._place.with_name(f".arbstore-{uuid4().hex}.part")  # a name of its own: theirs may be longest
        self._working = threading.Lock()  # a task that is cancelled leaves its thread at work
        metadata = {"arbstore": json.dumps({"version": version("arbstore"), **about})}
        texts = [field.name for field in schema if pa.types.is_dictionary(field.type)]
        with self._naming():
            self._file = self._part.open("xb")
        self._writer = pq.ParquetWriter(
            self._file, schema.with_metadata(metadata), compression="zstd", use_dictionary=texts
        )

    def write(self, batch: pa.RecordBatch) -> int:
        """Write the batch, and return how many bytes the file has."""
        with self._working, self._naming():
            self._writer.write_batch(batch)
            self.rows += len(batch)
            return self._file.tell()

    def finish(self) -> Export:
        """Give the file its name."""
        with self._working, self._naming():
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._refuse_existing()  # it may have come meanwhile
            self._part.replace(self._place)
            return Export(self._path, self.rows, self._path.stat().st_size)

    def discard(self) -> None:
        """Remove what has no name yet."""
        with self._working:
            with suppress(OSError, pa.ArrowException):  # of a full disk; what is written goes anyway
                self._writer.close()
            with suppress(OSError):
                self._file.close()
            self._part.unlink(missing_ok=True)

    def _refuse_existing(self) -> None:
        if self._place.exists() and not self._place.is_file():
            raise OSError(errno.EISDIR if self._place.is_dir() else errno.EINVAL, "it is no file", str(self._path))
        if self._place.exists() and not self._overwrite:
            raise FileExistsError(errno.EEXIST, "it exists, and is only replaced where that is asked for", self._path)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Name the file in the errors of the system: they speak of the temporary one, or of none."""
        try:
            yield
        except FileExistsError:
            raise
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(error.errno or errno.EIO, f"cannot be written: {reason}", str(self._path)) from error
