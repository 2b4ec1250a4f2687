"""Writes record batches into a Parquet file, which appears only when it is complete."""

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
    """The file that was written, with the number of its rows and bytes."""

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
    """Write each batch as a row group, compressed with zstd. The metadata has `about` as JSON, under `arbstore`.

    Raises FileExistsError and other OSErrors, which name the path. After an error no file is left.
    """
    writer = _Writer(path, schema, about, overwrite=overwrite)
    try:
        async for batch in batches:
            size = await asyncio.to_thread(writer.write, batch)
            if progress is not None:
                progress(writer.rows, size)
        return await asyncio.to_thread(writer.finish)
    finally:
        # Shielded, so that a second cancel does not leave the file behind.
        await asyncio.shield(asyncio.to_thread(writer.discard))


class _Writer:
    """One file with a temporary name, in the folder of its final name. All methods but the constructor block."""

    def __init__(self, path: Path, schema: pa.Schema, about: Mapping[str, Any], *, overwrite: bool) -> None:
        self.rows = 0
        self._path = path
        self._place = Path(os.path.realpath(path))  # a symbolic link stays, and its target is replaced
        self._overwrite = overwrite
        self._refuse_existing()
        # The final name may be as long as the system allows, so this one does not contain it.
        self._part = self._place.with_name(f".arbstore-{uuid4().hex}.part")
        self._working = threading.Lock()  # a cancelled task leaves its thread running
        metadata = {"arbstore": json.dumps({"version": version("arbstore"), **about})}
        texts = [field.name for field in schema if pa.types.is_dictionary(field.type)]
        with self._naming():
            self._file = self._part.open("xb")
        self._writer = pq.ParquetWriter(
            self._file, schema.with_metadata(metadata), compression="zstd", use_dictionary=texts
        )

    def write(self, batch: pa.RecordBatch) -> int:
        """Write the batch, and return the size of the file in bytes."""
        with self._working, self._naming():
            self._writer.write_batch(batch)
            self.rows += len(batch)
            return self._file.tell()

    def finish(self) -> Export:
        """Give the file its final name."""
        with self._working, self._naming():
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._refuse_existing()  # it may have appeared meanwhile
            self._part.replace(self._place)
            return Export(self._path, self.rows, self._path.stat().st_size)

    def discard(self) -> None:
        """Remove the file if it still has its temporary name."""
        with self._working:
            with suppress(OSError, pa.ArrowException):  # the disk may be full; the file is removed anyway
                self._writer.close()
            with suppress(OSError):
                self._file.close()
            self._part.unlink(missing_ok=True)

    def _refuse_existing(self) -> None:
        if self._place.exists() and not self._place.is_file():
            raise OSError(errno.EISDIR if self._place.is_dir() else errno.EINVAL, "is not a file", str(self._path))
        if self._place.exists() and not self._overwrite:
            raise FileExistsError(errno.EEXIST, "exists already; pass overwrite=True to replace it", self._path)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Name the final file in errors of the system, which name the temporary file or none."""
        try:
            yield
        except FileExistsError:
            raise
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(error.errno or errno.EIO, f"cannot be written: {reason}", str(self._path)) from error
