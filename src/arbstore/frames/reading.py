"""A query's result in Arrow batches, over an ADBC connection that it has to itself, read by threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped] # it has no types
from adbc_driver_manager import AdbcStatusCode, Error

from arbstore.errors import database_error
from arbstore.frames.connections import Connections

_BETWEEN_CANCELS = 0.1  # seconds; one that comes before the statement has begun does nothing


class Reading:
    """One query's result. `next` blocks and is for one thread at a time; `stop` is for another one, at any time."""

    def __init__(self, where: str, sql: str, connections: Connections) -> None:
        """Connect with the first `next`."""
        self._where = where
        self._sql = sql
        self._connections = connections
        self._connection: Any = None
        self._cursor: Any = None
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._stopped = False
        self._ended = False
        self._free = threading.Lock()  # held while a thread reads

    @property
    def is_connecting(self) -> bool:
        """Whether it is at the one thing that nothing can cut short, save `connect_timeout`."""
        return self._free.locked() and self._connection is None

    def next(self) -> pa.RecordBatch | None:
        """Return the next batch, None after the last; connects and executes first."""
        with self._free, _translated():
            if self._batches is None:
                self._start()
            batch = None if self._stopped or self._batches is None else next(self._batches, None)
            self._ended = batch is None and not self._stopped
            return batch

    def _start(self) -> None:
        if not self._stopped:
            self._connection = self._connections.connect(self._where)
        if not self._stopped:
            self._cursor = self._connection.cursor()
            self._cursor.execute(self._sql)
            # Not the public reader: its errors have lost their SQLSTATE.
            self._batches = iter(self._cursor._results.reader)

    def stop(self) -> None:
        """Cancel what the server does, wait for the thread that reads, and close the connection.

        One whose result was read to its end, and that nothing was cancelled on, is kept for another reading.
        """
        self._stopped = True
        cancelled = False
        while True:
            if (cursor := self._cursor) is not None and not self._ended:
                cancelled = True  # it may come late, and would hit the next statement
                with suppress(Error):  # a connection that is lost: there is nothing to cancel
                    cursor.adbc_cancel()
            if self._free.acquire(timeout=_BETWEEN_CANCELS):
                break
        try:
            if self._ended and not cancelled:
                with suppress(Error):  # lost: it is closed
                    self._keep()
            self._close()
        finally:
            self._free.release()

    def _keep(self) -> None:
        self._cursor.close()
        self._connections.keep(self._where, self._connection)
        self._cursor = self._connection = None

    def _close(self) -> None:
        parts = self._cursor, self._connection
        self._cursor = self._connection = self._batches = None
        for part in parts:
            if part is not None:
                with suppress(Error):  # lost, or with a cancelled result: it is closed all the same
                    part.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Error as error:
        said = {name: value.decode(errors="replace") for name, value in _details(error)}
        text = said.get("PG_DIAG_MESSAGE_PRIMARY") or str(error).strip()
        if detail := said.get("PG_DIAG_MESSAGE_DETAIL"):
            text = f"{text}: {detail}"
        lost = error.sqlstate is None and error.status_code is AdbcStatusCode.IO
        raise database_error(" ".join(text.split()), error.sqlstate or "", lost=lost) from error
    except OSError as error:  # the driver's, where it has nothing better
        raise database_error(" ".join(str(error).split()), "", lost=True) from error


def _details(error: Error) -> Iterator[tuple[str, bytes]]:
    for name, value in error.details:
        yield (name.decode() if isinstance(name, bytes) else name), value
