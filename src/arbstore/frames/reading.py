"""A statement's rows as an async stream of Arrow batches, over an ADBC connection that is read in threads.

Each stream has two threads of its own: one reads, one can stop it. In the event loop's shared threads, streams that
wait for their server would keep out the threads that must stop them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import pyarrow as pa  # type: ignore[import-untyped] # it has no types
from adbc_driver_manager import AdbcStatusCode, Error
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from arbstore.cache import ReferenceCache
from arbstore.errors import QueryTimeoutError, database_error, translated
from arbstore.frames.connections import Connections, conninfo
from arbstore.frames.schema import Shape
from arbstore.settings import Settings

_THREADS = 2
_BETWEEN_CANCELS = 0.1  # seconds; a cancel that comes before the statement has begun does nothing


class Source(Protocol):
    """The parts of a Database that frames read from."""

    settings: Settings
    cache: ReferenceCache

    @property
    def engine(self) -> AsyncEngine:
        """Its engine."""

    @property
    def is_borrowed(self) -> bool:
        """Whether other connections cannot see its rows."""

    def session(self) -> AsyncSession:
        """Return a new session."""


async def stream(
    source: Source,
    connections: Connections,
    statement: Select[Any],
    shape: Shape,
    *,
    server_timeout: float = 0,
    batch_timeout: float = 0,
) -> AsyncGenerator[pa.RecordBatch, None]:
    """Yield the rows in the schema of `shape`. If the stream is cancelled or closed, so is the statement.

    Timeouts are in seconds, 0 for none: `server_timeout` is for the whole statement, `batch_timeout` for each batch.
    """
    engine = source.engine
    # Values are written into the text, because a COPY takes no parameters. The dialect quotes as this server wants.
    sql = str(statement.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True}))
    address = None if engine.url.host or engine.url.query.get("host") else await _address(engine)
    given: Mapping[str, Any] = engine.dialect.create_connect_args(engine.url)[1]
    where = conninfo(given, source.settings, statement_timeout=server_timeout, address=address)
    await connections.acquire()
    reading, threads = Reading(where, sql, connections), ThreadPoolExecutor(_THREADS, "arbstore-frames")
    try:
        while (batch := await _next(reading, threads, shape, batch_timeout)) is not None:
            yield batch
    finally:
        await _stop(reading, threads, connections)


async def _address(engine: AsyncEngine) -> Any:
    """Return the address that the pool is connected to: only asyncpg knows where it looks when none is given."""
    with translated():
        async with engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            return driver._addr  # it has no public name


async def _next(reading: Reading, threads: ThreadPoolExecutor, shape: Shape, patience: float) -> pa.RecordBatch | None:
    def work() -> pa.RecordBatch | None:
        sent = reading.next()
        return None if sent is None else shape.batch(sent)

    try:
        async with asyncio.timeout(patience or None):
            thread = asyncio.get_running_loop().run_in_executor(threads, work)
            thread.add_done_callback(_ignore)  # after a cancel nobody awaits it
            return await asyncio.shield(thread)
    except TimeoutError as error:
        raise QueryTimeoutError(f"the server sent nothing for {patience:g} seconds (statement_timeout)") from error


async def _stop(reading: Reading, threads: ThreadPoolExecutor, connections: Connections) -> None:
    """Stop the reading in a thread. A connection that is still being made is not waited for.

    The next read may begin when the connection is free or closed, even if this is cancelled before.
    """
    stopping = asyncio.get_running_loop().run_in_executor(threads, reading.stop)
    stopping.add_done_callback(_ignore)
    stopping.add_done_callback(lambda _: connections.release())
    threads.shutdown(wait=False)  # the threads end when their work is done
    if not reading.is_connecting:
        await asyncio.shield(stopping)


def _ignore(thread: asyncio.Future[Any]) -> None:
    if not thread.cancelled():
        thread.exception()


class Reading:
    """One statement's result. `next` blocks, and is for one thread at a time; any other thread may call `stop`."""

    def __init__(self, where: str, sql: str, connections: Connections) -> None:
        """Prepare; the first `next` connects."""
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
        """Whether it is connecting now, which only `connect_timeout` can cut short."""
        return self._free.locked() and self._connection is None

    def next(self) -> pa.RecordBatch | None:
        """Return the next batch, or None after the last one. The first call connects and executes."""
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
            # The public reader's errors have lost their SQLSTATE.
            self._batches = iter(self._cursor._results.reader)

    def stop(self) -> None:
        """Cancel the statement, wait for the thread that reads, and close the connection.

        A connection is kept for other reads if its result was read to the end and no cancel was sent.
        """
        self._stopped = True
        cancelled = False
        while True:
            if (cursor := self._cursor) is not None and not self._ended:
                cancelled = True  # the cancel may arrive late, and would hit the next statement
                with suppress(Error):  # the connection is lost, so there is nothing to cancel
                    cursor.adbc_cancel()
            if self._free.acquire(timeout=_BETWEEN_CANCELS):
                break
        try:
            if self._ended and not cancelled:
                with suppress(Error):  # the connection is lost, and is closed below
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
                with suppress(Error):  # of a lost connection or a cancelled result: it is closed all the same
                    part.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Error as error:
        details = {name: value.decode(errors="replace") for name, value in _details(error)}
        text = details.get("PG_DIAG_MESSAGE_PRIMARY") or str(error).strip()
        if detail := details.get("PG_DIAG_MESSAGE_DETAIL"):
            text = f"{text}: {detail}"
        lost = error.sqlstate is None and error.status_code is AdbcStatusCode.IO
        raise database_error(" ".join(text.split()), error.sqlstate or "", lost=lost) from error
    except OSError as error:  # the driver raises it when it has no better error
        raise database_error(" ".join(str(error).split()), "", lost=True) from error


def _details(error: Error) -> Iterator[tuple[str, bytes]]:
    for name, value in error.details:
        yield (name.decode() if isinstance(name, bytes) else name), value
