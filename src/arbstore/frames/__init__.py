"""History as Arrow tables, polars or pandas frames, record batches and Parquet files: the extra `frames`.

What is asked for, and what is refused, is as in the services of a Store; `schema` says what the columns are. The
history comes over connections of the frames' own, each call's in a transaction of its own: it is what has been
committed. (On a database of tests, which commits nothing, it comes through its one connection, slower.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, Unpack

import pyarrow as pa  # type: ignore[import-untyped] # it has no types

from arbstore.database import Database, Store
from arbstore.errors import ConfigurationError, ValidationError
from arbstore.frames.parquet import Export, Progress, write_parquet
from arbstore.frames.schema import Shape, reversed_batch
from arbstore.frames.stream import stream
from arbstore.services.query import Query
from arbstore.services.series import Series, SymbolSeries

if TYPE_CHECKING:
    import polars

F = TypeVar("F")

_ROWS_A_BATCH = 65_536  # of what is in memory anyway


class Window(TypedDict, total=False):
    """Which rows of a series: those of [since, until), with `limit` the newest that many of them.

    `source`, of candles, is `feed`, `trades` or `quotes`. Without `exact`, `numeric` columns (balances, funding rates)
    are float64 instead of decimals.
    """

    since: datetime | None
    until: datetime | None
    limit: int | None
    source: str | Enum
    exact: bool


class Selection(Window, total=False):
    """Which series, too: `symbol_id` stands in place of exchange, base and quote.

    Dated contracts and delisted symbols have only this way, and their candles then take their `timeframe` by name.
    """

    symbol_id: int | None
    timeframe: str


class Frames(Generic[F]):
    """Reads of a Database as frames of one kind: `db.frames` gives Arrow tables, `.polars` and `.pandas` theirs.

    Reads do not hold up the event loop; where one is cancelled, so is what the server does for it. At once there may
    be `pool_size` + `max_overflow` of them, beside the pool; one more waits for its turn, and raises PoolExhaustedError
    after `pool_timeout`. Batches that are not read to their end keep their turn until the generator is closed. Of the
    connections `pool_size` are kept for the next reads, until the Database is closed.
    """

    def __init__(self, database: Database, convert: Callable[[pa.Table], F]) -> None:
        """Read from `database`, and make a frame of each table with `convert`, in a thread."""
        self._database = database
        self._convert = convert

    @property
    def polars(self) -> Frames[polars.DataFrame]:
        """The same reads as polars frames. Raises ConfigurationError where it is not installed."""
        try:
            import polars
        except ModuleNotFoundError as error:
            raise ConfigurationError("polars frames need: pip install 'arbstore[frames]'") from error

        def convert(table: pa.Table) -> polars.DataFrame:
            frame = polars.from_arrow(table)
            assert isinstance(frame, polars.DataFrame)  # noqa: S101 # of an array it would be a series
            return frame

        return Frames(self._database, convert)

    @property
    def pandas(self) -> Frames[Any]:
        """The same reads as pandas frames; integers that may be missing are nullable ones, decimals objects.

        Raises ConfigurationError where it is not installed: it is no part of the extra.
        """
        try:
            import pandas  # type: ignore[import-untyped] # it has no types
        except ModuleNotFoundError as error:
            raise ConfigurationError("pandas frames need: pip install pandas") from error
        nullable = {pa.int64(): pandas.Int64Dtype()}
        return Frames(self._database, lambda table: table.to_pandas(types_mapper=nullable.get))

    async def history(self, kind: str, *series: Any, **window: Unpack[Selection]) -> F:
        """Return the history of one series, oldest first: `history("book_tickers", "BINANCE_SPOT", "BTC", "USDT")`.

        `kind` is the service's name in a Store, and `series` what its `history` takes (an exchange and an asset for
        balances, a timeframe after the pair for candles). Raises what that raises, ValidationError for a kind there is
        not, or a number that its column cannot hold, and QueryTimeoutError after `statement_timeout`.
        """
        shape, query = await self._asked(kind, series, window)
        timeout = self._database.settings.statement_timeout
        if query is None or self._database.is_borrowed:
            return await self._frame(shape, map(shape.rows, [await self._records(kind, series, window)]))
        batches: list[pa.RecordBatch] = []
        for statement in query.from_each_start():
            async with aclosing(stream(self._database, statement, shape, server_timeout=timeout)) as streamed:
                batches = [batch async for batch in streamed]
            if sum(map(len, batches)) == query.limit:
                break
        return await self._frame(shape, map(reversed_batch, reversed(batches)) if query.newest_first else batches)

    async def candles(self, exchange: str | Enum, base: str, quote: str, timeframe: str, **window: Unpack[Window]) -> F:
        """Return the history of the pair's candles: `history` of `"candles"`."""
        return await self.history("candles", exchange, base, quote, timeframe, **window)

    async def latest(self, kind: str, *filters: Any, exact: bool = True, **more: Any) -> F:
        """Return the newest row of each series that the filters leave, in the order that the service gives them.

        `kind` is the service's name in a Store, and the filters are what its `latest` takes, `max_age` among them.
        These are few: they come over the pool's connections.
        """
        async with self._database.session() as session:
            service: Any = _service(Store(session, self._database.cache), kind)
            rows = await service.latest(*filters, **more)
        shape = Shape(service.table, {}, exact=exact)
        return await self._frame(shape, map(shape.rows, [rows]))

    async def batches(
        self, kind: str, *series: Any, **window: Unpack[Selection]
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """Yield what `history` returns, in record batches, without ever holding more than a few of them.

        The server waits for whoever reads them. `statement_timeout` limits the wait for each batch, not the whole; with
        a `limit` the server sorts before it sends the first. A reader who leaves early closes the generator
        (`contextlib.aclosing`), and with it what the server does.
        """
        shape, query = await self._asked(kind, series, window)
        if query is None or self._database.is_borrowed:
            whole = await asyncio.to_thread(shape.rows, await self._records(kind, series, window))
            for start in range(0, len(whole), _ROWS_A_BATCH):
                yield whole.slice(start, _ROWS_A_BATCH)
            return
        timeout = self._database.settings.statement_timeout
        async with aclosing(stream(self._database, query.oldest_first(), shape, batch_timeout=timeout)) as batches:
            async for batch in batches:
                yield batch

    async def export(
        self,
        path: Path | str,
        kind: str,
        *series: Any,
        overwrite: bool = False,
        progress: Progress | None = None,
        **window: Unpack[Selection],
    ) -> Export:
        """Write what `batches` yields into a Parquet file, and return how many rows and bytes it has.

        The file appears when it is complete; of a symbolic link it is the target. Raises FileExistsError where there
        is one, unless `overwrite` is given, and OSError where it cannot be written, before anything is read if that is
        known by then. `progress` is told the rows and bytes written so far.
        """
        shape, query = await self._asked(kind, series, window)
        constants = {} if query is None else query.constants
        shared = {name: value for name, value in constants.items() if isinstance(value, str | int)}
        async with aclosing(self.batches(kind, *series, **window)) as batches:
            about = {"kind": kind, "table": shape.table, "series": shared}
            return await write_parquet(Path(path), batches, shape.schema, about, overwrite=overwrite, progress=progress)

    async def _asked(self, kind: str, series: Sequence[Any], window: Selection) -> tuple[Shape, Query | None]:
        """Return what the rows look like, and the query for them; None where it takes more than one."""
        async with self._database.session() as session:
            service = _service(Store(session, self._database.cache), kind)
            read, given, options, exact = _call(service, series, window)
            query = await service.query(read, *given, **options)
        return Shape(service.table, {} if query is None else query.constants, exact=exact), query

    async def _records(self, kind: str, series: Sequence[Any], window: Selection) -> list[Any]:
        async with self._database.session() as session:
            service = _service(Store(session, self._database.cache), kind)
            read, given, options, _ = _call(service, series, window)
            found: list[Any] = await getattr(service, read)(*given, **options)
            return found

    async def _frame(self, shape: Shape, batches: Iterable[pa.RecordBatch]) -> F:
        """Return the frame of the batches; what is still to be done for each, an iterator does in the thread."""
        return await asyncio.to_thread(lambda: self._convert(pa.Table.from_batches(batches, schema=shape.schema)))


def _call(
    service: Series[Any, Any], series: Sequence[Any], window: Selection
) -> tuple[str, Sequence[Any], dict[str, Any], bool]:
    """Return the read's name, what it is given by place and by name, and whether decimals are wanted."""
    options: dict[str, Any] = dict(window)
    exact, symbol_id = options.pop("exact", True), options.pop("symbol_id", None)
    if symbol_id is None:
        return "history", series, options, exact
    if series or not isinstance(service, SymbolSeries):
        raise ValidationError("stands in place of the exchange and the pair", field="symbol_id")
    return "history_by_id", (symbol_id,), options, exact


def _service(store: Store, kind: str) -> Series[Any, Any]:
    kinds = [name for name, part in vars(Store).items() if hasattr(part, "attrname")]
    found = {name: service for name in kinds if isinstance(service := getattr(store, name), Series)}
    if kind not in found:
        raise ValidationError(f"must be one of {', '.join(found)}, is {kind!r}", field="kind")
    return found[kind]


def arrow_frames(database: Database) -> Frames[pa.Table]:
    """Return the reads of `database` as Arrow tables."""
    return Frames(database, partial(pa.Table.unify_dictionaries))
