"""A statement's rows as an async stream of record batches: each is awaited from a thread, and all can be cancelled.

A stream has threads of its own. In the loop's, which all share, streams that wait for the server would keep out what
is to stop them, and everybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped] # it has no types
from sqlalchemy import Select

from arbstore.database import Database
from arbstore.errors import QueryTimeoutError, translated
from arbstore.frames.connections import Connections, conninfo
from arbstore.frames.reading import Reading
from arbstore.frames.schema import Shape

_THREADS = 2  # one that reads, and one that stops it


async def stream(
    database: Database, statement: Select[Any], shape: Shape, *, server_timeout: float = 0, batch_timeout: float = 0
) -> AsyncGenerator[pa.RecordBatch, None]:
    """Yield the rows in the schema of `shape`; cancelled or closed, cancel the statement.

    The timeouts, 0 for none, are of the whole statement, kept by the server, and of the wait for each batch. As many
    streams of a Database run at once as its pool may have connections; others wait, at most `pool_timeout`.
    """
    engine = database.engine
    # Literals: the driver could send parameters, but no COPY has them. The dialect knows how this server quotes.
    sql = str(statement.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True}))
    address = None if engine.url.host or engine.url.query.get("host") else await _address(database)
    given: Mapping[str, Any] = engine.dialect.create_connect_args(engine.url)[1]
    where = conninfo(given, database.settings, statement_timeout=server_timeout, address=address)
    connections = Connections.of(database)
    await connections.begin()
    reading, threads = Reading(where, sql, connections), ThreadPoolExecutor(_THREADS, "arbstore-frames")
    try:
        while (batch := await _next(reading, threads, shape, batch_timeout)) is not None:
            yield batch
    finally:
        await _stop(reading, threads, connections)


async def _address(database: Database) -> Any:
    """Return where the pool is connected to; what asyncpg tries where nothing says it is its own affair."""
    with translated():
        async with database.engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            return driver._addr  # it has no public name


async def _next(reading: Reading, threads: ThreadPoolExecutor, shape: Shape, patience: float) -> pa.RecordBatch | None:
    def work() -> pa.RecordBatch | None:
        sent = reading.next()
        return None if sent is None else shape.batch(sent)

    try:
        async with asyncio.timeout(patience or None):
            thread = asyncio.get_running_loop().run_in_executor(threads, work)
            thread.add_done_callback(_forget)  # cancelled, nobody awaits it
            return await asyncio.shield(thread)
    except TimeoutError as error:
        raise QueryTimeoutError(f"the server has sent nothing for {patience:g} seconds (statement_timeout)") from error


async def _stop(reading: Reading, threads: ThreadPoolExecutor, connections: Connections) -> None:
    """Stop it in a thread, for it may have to wait; nothing waits for a connection that is still being made.

    Its turn is over when the connection is free or closed, whether that is waited for or not.
    """
    stopping = asyncio.get_running_loop().run_in_executor(threads, reading.stop)
    stopping.add_done_callback(_forget)
    stopping.add_done_callback(lambda _: connections.end())
    threads.shutdown(wait=False)  # when they have done this
    if not reading.is_connecting:
        await asyncio.shield(stopping)


def _forget(thread: asyncio.Future[Any]) -> None:
    if not thread.cancelled():
        thread.exception()
