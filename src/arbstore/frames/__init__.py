"""History as Arrow tables, polars or pandas frames, record batches and Parquet files: the extra `frames`.

Frames take the same arguments as the services of a Store, and raise the same errors; `schema` describes the columns.
They are read over connections of their own, each in a transaction of its own, so they show committed rows. The
Database of a test commits nothing: there, frames are read over its one connection, which is slower.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

import pyarrow as pa  # type: ignore[import-untyped] # it has no types

from arbstore.errors import ConfigurationError, ValidationError
from arbstore.frames.connections import Connections
from arbstore.frames.parquet import Export, Progress, write_parquet
from arbstore.frames.reading import Source, stream
from arbstore.frames.schema import Shape, reversed_batch
from arbstore.kinds import Kind
from arbstore.postgres.history import HistoryQuery, Window, oldest_first, statements
from arbstore.services.store import Store

if TYPE_CHECKING:
    import polars

__all__ = ["Connections", "Export", "Frames", "Selection", "arrow_frames"]

F = TypeVar("F")

_ROWS_A_BATCH = 65_536  # of records, which are in memory anyway


class CandleWindow(Window, total=False):
    """A Window of candles; `origin` is one of Origin, by default `feed`."""

    origin: str | Enum


class Selection(CandleWindow, total=False):
    """The arguments of a read by name. With `exact=False`, exact decimals (balances, funding rates) become float64.

    `symbol_id` replaces exchange, base and quote, also for dated contracts and delisted symbols. Their candles take
    `timeframe` by name.
    """

    exact: bool
    symbol_id: int | None
    timeframe: str


class Frames(Generic[F]):
    """Reads of a Database as frames: `db.frames` gives Arrow tables, `db.frames.polars` and `.pandas` their frames.

    Reads do not block the event loop. A read that is cancelled also ends on the server. At most `pool_size` +
    `max_overflow` reads run at once, beside the pool. Another one waits, and raises PoolExhaustedError after
    `pool_timeout`. Batches count as running until their generator is closed.
    """

    def __init__(self, source: Source, connections: Connections, convert: Callable[[pa.Table], F]) -> None:
        """Read from `source`, and make a frame of each table with `convert`, in a thread."""
        self._source = source
        self._connections = connections
        self._convert = convert

    @property
    def polars(self) -> Frames[polars.DataFrame]:
        """The same reads as polars frames. Raises ConfigurationError if polars is not installed."""
        try:
            import polars
        except ModuleNotFoundError as error:
            raise ConfigurationError("polars frames need: pip install 'arbstore[frames]'") from error

        def convert(table: pa.Table) -> polars.DataFrame:
            frame = polars.from_arrow(table)
            assert isinstance(frame, polars.DataFrame)  # noqa: S101 # only an array becomes a series
            return frame

        return Frames(self._source, self._connections, convert)

    @property
    def pandas(self) -> Frames[Any]:
        """The same reads as pandas frames. Integers that may be missing are nullable, and decimals are objects.

        Raises ConfigurationError if pandas is not installed; the extra does not bring it.
        """
        try:
            import pandas  # type: ignore[import-untyped] # it has no types
        except ModuleNotFoundError as error:
            raise ConfigurationError("pandas frames need: pip install pandas") from error
        nullable = {pa.int64(): pandas.Int64Dtype()}
        return Frames(self._source, self._connections, lambda table: table.to_pandas(types_mapper=nullable.get))

    async def history(self, kind: str | Kind[Any, Any], *series: Any, **window: Unpack[Selection]) -> F:
        """Return the history of one series, oldest first: `history("book_tickers", "BINANCE_SPOT", "BTC", "USDT")`.

        `kind` is a service's name in a Store, and `series` are the first arguments of its `history`. Raises the same
        errors, ValidationError for an unknown kind or a number that its column cannot hold, and QueryTimeoutError after
        `statement_timeout`.
        """
        query, shape = await self._asked(kind, series, window)
        if self._needs_records(query):
            return await self._frame(shape, map(shape.rows, [await self._records(query)]))
        timeout = self._source.settings.statement_timeout
        batches: list[pa.RecordBatch] = []
        for statement in statements(query):
            streamed = stream(self._source, self._connections, statement, shape, server_timeout=timeout)
            async with aclosing(streamed):
                batches = [batch async for batch in streamed]
            if sum(map(len, batches)) == query.limit:
                break
        newest_first = query.limit is not None
        return await self._frame(shape, map(reversed_batch, reversed(batches)) if newest_first else batches)

    async def candles(
        self, exchange: str | Enum, base: str, quote: str, timeframe: str, **window: Unpack[CandleWindow]
    ) -> F:
        """Return the history of the pair's candles: `history` of `"candles"`."""
        return await self.history("candles", exchange, base, quote, timeframe, **window)

    async def latest(self, kind: str | Kind[Any, Any], *filters: Any, exact: bool = True, **more: Any) -> F:
        """Return the newest row of each series that the filters leave, in the service's order.

        `kind` is a service's name in a Store, and the filters are the arguments of its `latest`. These rows are few, so
        they are read over the pool's connections.
        """
        async with self._source.session() as session:
            service = Store(session, self._source.cache).series(kind)
            rows = await service.latest(*filters, **more)
        shape = Shape(service.kind, {}, exact=exact)
        return await self._frame(shape, map(shape.rows, [rows]))

    async def batches(
        self, kind: str | Kind[Any, Any], *series: Any, **window: Unpack[Selection]
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """Yield what `history` returns, in record batches, while only a few of them are in memory.

        The server waits for the reader. `statement_timeout` limits the wait for each batch. With a `limit` the server
        sorts before it sends the first batch. To stop early, close the generator (`contextlib.aclosing`): this also
        stops the server.
        """
        async with aclosing(self._batches(*await self._asked(kind, series, window))) as batches:
            async for batch in batches:
                yield batch

    async def _batches(self, query: HistoryQuery, shape: Shape) -> AsyncGenerator[pa.RecordBatch, None]:
        if self._needs_records(query):
            whole = await asyncio.to_thread(shape.rows, await self._records(query))
            for start in range(0, len(whole), _ROWS_A_BATCH):
                yield whole.slice(start, _ROWS_A_BATCH)
            return
        timeout = self._source.settings.statement_timeout
        streamed = stream(self._source, self._connections, oldest_first(query), shape, batch_timeout=timeout)
        async with aclosing(streamed):
            async for batch in streamed:
                yield batch

    async def export(
        self,
        path: Path | str,
        kind: str | Kind[Any, Any],
        *series: Any,
        overwrite: bool = False,
        progress: Progress | None = None,
        **window: Unpack[Selection],
    ) -> Export:
        """Write what `batches` yields into a Parquet file, and return the number of its rows and bytes.

        The file appears when it is complete. If `path` is a symbolic link, its target is written. Raises
        FileExistsError if the file exists, unless `overwrite` is given, and OSError if it cannot be written. Both are
        raised before anything is read, where possible. `progress` is called with the rows and bytes written so far.
        """
        query, shape = await self._asked(kind, series, window)
        shared = {name: value for name, value in query.constants.items() if isinstance(value, str | int)}
        about = {"kind": query.kind.name, "table": query.kind.table.name, "series": shared}
        async with aclosing(self._batches(query, shape)) as batches:
            return await write_parquet(Path(path), batches, shape.schema, about, overwrite=overwrite, progress=progress)

    async def _asked(
        self, kind: str | Kind[Any, Any], series: Sequence[Any], window: Selection
    ) -> tuple[HistoryQuery, Shape]:
        """Return the query, and the shape of its rows."""
        options: dict[str, Any] = dict(window)
        exact, symbol_id = options.pop("exact", True), options.pop("symbol_id", None)
        if symbol_id is not None and series:
            raise ValidationError("replaces exchange, base and quote: give one or the other", field="symbol_id")
        async with self._source.session() as session:
            service = Store(session, self._source.cache).series(kind)
            by_id = None if symbol_id is None else service.query_by_id(symbol_id, **options)
            query = await (by_id or service.query(*series, **options))
        return query, Shape(query.kind, {} if self._needs_records(query) else query.constants, exact=exact)

    async def _records(self, query: HistoryQuery) -> list[Any]:
        async with self._source.session() as session:
            return await Store(session, self._source.cache).series(query.kind).fetch(query)

    def _needs_records(self, query: HistoryQuery) -> bool:
        """Whether the rows come from the service: made candles, and rows that other connections cannot see."""
        return query.computed or self._source.is_borrowed

    async def _frame(self, shape: Shape, batches: Iterable[pa.RecordBatch]) -> F:
        """Return the frame of the batches. If they are an iterator, its work is done in the thread too."""
        return await asyncio.to_thread(lambda: self._convert(pa.Table.from_batches(batches, schema=shape.schema)))


def arrow_frames(source: Source, connections: Connections) -> Frames[pa.Table]:
    """Return the reads of `source` as Arrow tables."""
    return Frames(source, connections, partial(pa.Table.unify_dictionaries))
