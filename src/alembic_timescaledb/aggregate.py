"""How a model declares a continuous aggregate: a query over a hypertable or another aggregate, known to MetaData."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, InitVar, dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import Column, ColumnElement, MetaData, SelectBase, Table, literal_column
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import Function

from alembic_timescaledb.declare import Columnstore, check_retention, declared
from alembic_timescaledb.names import LONGEST_NAME, TOO_LONG, DeclarationError, interval, positive, spoken

AGGREGATES = "continuous_aggregates"  # the key in MetaData.info
AGGREGATE = "continuous_aggregate"  # the key in the info of an aggregate's table


class TimeBucket(Function[Any]):
    """`time_bucket(width, column)`: the start of the bucket that the column's time falls into."""

    inherit_cache = True

    def __init__(self, width: timedelta, column: ColumnElement[Any]) -> None:
        """Keep the width for the checks of the aggregate."""
        super().__init__("time_bucket", literal_column(interval(width)), column, type_=column.type)
        self.width = width
        self.column = column


def time_bucket(width: timedelta, column: Any) -> TimeBucket:
    """Return SQL for the start of the bucket of `width` that the column's time falls into.

    `column` is a column of a table or an attribute of a model. Buckets of a week begin on Mondays.
    """
    positive(width, "time_bucket: width")
    return TimeBucket(width, column.__clause_element__() if hasattr(column, "__clause_element__") else column)


@dataclass(frozen=True, slots=True)
class Refresh:
    """A policy that computes an aggregate anew each `every`, from `start_offset` to `end_offset` before now.

    `start_offset` None begins with the oldest row. `end_offset` keeps the refresh off the bucket that still fills.
    """

    start_offset: timedelta | None
    end_offset: timedelta
    every: timedelta

    def __post_init__(self) -> None:
        """Check the lengths."""
        positive(self.every, "Refresh: every")
        if not isinstance(self.end_offset, timedelta):
            raise DeclarationError(f"Refresh: end_offset must be a timedelta, is {self.end_offset!r}")
        if self.end_offset < timedelta(0):
            raise DeclarationError(f"Refresh: end_offset must not be below zero, is {self.end_offset}")
        if self.start_offset is not None:
            positive(self.start_offset, "Refresh: start_offset")


@dataclass(eq=False, repr=False)
class ContinuousAggregate:
    """A view that TimescaleDB keeps computed: `query` groups one table by a `time_bucket`.

    The table is a hypertable or, to stack aggregates, the `table` of another one. Mistakes raise DeclarationError.

    `refresh` is the policy; without it you refresh the aggregate yourself. `retention` drops old buckets; without it
    they stay when their rows are dropped. `chunk_interval` None is ten times that of the hypertable under the stack.
    `materialized_only` shows only computed buckets; otherwise reading the view adds newer rows.
    """

    name: str
    metadata: InitVar[MetaData]
    query: SelectBase
    _: KW_ONLY
    refresh: Refresh | None = None
    retention: timedelta | None = None
    columnstore: Columnstore | None = None
    chunk_interval: timedelta | None = None
    materialized_only: bool = False
    schema: str | None = None

    def __post_init__(self, metadata: MetaData) -> None:
        """Check the declaration and add it to the metadata."""
        if len(self.name.encode()) > LONGEST_NAME:
            raise self._wrong(TOO_LONG)
        if self.schema is None:
            self.schema = metadata.schema
        bucket, self.time_column = self._find_bucket()
        self.bucket = bucket.width
        self.source = self._find_source(bucket)
        self.table = Table(
            self.name,
            MetaData(),  # its own, as Alembic would create a table of the models' metadata
            *(Column(key, column.type) for key, column in self.query.selected_columns.items()),
            schema=self.schema,
            info={AGGREGATE: self},
        )
        check_retention(self.retention, self.columnstore, f"continuous aggregate {self.name}: ", "its buckets")
        if self.chunk_interval is not None:
            positive(self.chunk_interval, f"continuous aggregate {self.name}: chunk_interval")
        known = metadata.info.setdefault(AGGREGATES, {})
        for mistake in self._mistakes(bucket.column, {*known, *metadata.tables}):
            raise self._wrong(mistake)
        known[self.table.key] = self

    def __repr__(self) -> str:
        """Show its name, its source and its bucket."""
        return f"<ContinuousAggregate {self.name} over {self.source.name} by {spoken(self.bucket)}>"

    @property
    def over(self) -> ContinuousAggregate | None:
        """The aggregate that it is stacked on; None if it reads a hypertable."""
        return cast("ContinuousAggregate | None", self.source.info.get(AGGREGATE))

    @property
    def root(self) -> Table:
        """The hypertable at the bottom of the stack."""
        return self.source if self.over is None else self.over.root

    @property
    def sql(self) -> str:
        """The query as PostgreSQL reads it, values written out."""
        dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call] # untyped in SQLAlchemy
        return str(self.query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))

    def _find_bucket(self) -> tuple[TimeBucket, str]:
        found = [
            (part, key)
            for key, column in self.query.selected_columns.items()
            for part in visitors.iterate(column)
            if isinstance(part, TimeBucket)
        ]
        if len(found) != 1:
            raise self._wrong(f"it selects {len(found)} time buckets: select one, `time_bucket(width, column)`")
        return found[0]

    def _find_source(self, bucket: TimeBucket) -> Table:
        tables = {part for part in visitors.iterate(self.query) if isinstance(part, Table)}
        source = getattr(bucket.column, "table", None)
        if not isinstance(source, Table) or source not in tables:
            raise self._wrong("its time bucket is not of a column of the table that it reads")
        return source

    def _mistakes(self, time: ColumnElement[Any], taken: set[str]) -> Iterator[str]:
        """Yield mistakes; each is looked for only if there is none before it."""
        if (base := declared(self.source) or self.over) is None:
            yield f"{self.source.name} is neither a hypertable nor an aggregate: declare its `Hypertable`"
            return
        if (name := getattr(time, "name", None)) != base.time_column:
            yield f"its time bucket is of {name}: take {base.time_column}, the time"
        if isinstance(base, ContinuousAggregate) and (self.bucket % base.bucket or self.bucket <= base.bucket):
            width, below = spoken(self.bucket), spoken(base.bucket)
            yield f"its bucket ({width}) must be a multiple of that of {base.name} ({below})"
        if self.refresh is not None:
            yield from self._mistakes_of_refresh(self.refresh, base.retention)
        if (store := self.columnstore) is not None:
            for name in (*store.segment_by, *(part.column for part in store.ordered(self.time_column))):
                if name not in self.table.c:
                    yield f"its columnstore names {name}: it selects no such column"
        if self.table.key in taken:
            yield "there is a table or an aggregate of that name; take another name"

    def _mistakes_of_refresh(self, window: Refresh, kept: timedelta | None) -> Iterator[str]:
        start = window.start_offset
        if start is not None and start < window.end_offset + 2 * self.bucket:
            yield (
                f"its refresh window, from {spoken(start)} to {spoken(window.end_offset)} ago, may hold no whole bucket"
                f" of {spoken(self.bucket)}; start it at least two buckets before its end"
            )
        if kept is not None and (start is None or start > kept):
            begin = "the beginning" if start is None else f"{spoken(start)} ago"
            yield (
                f"its refresh begins at {begin}, where {self.source.name} keeps rows for {spoken(kept)}: it would erase"
                " the buckets of the dropped rows; shorten start_offset"
            )
        if self.columnstore is not None and (start is None or self.columnstore.after < start):
            yield (
                f"its columnstore takes buckets after {spoken(self.columnstore.after)}, while they are still refreshed;"
                " let `after` be no less than start_offset"
            )

    def _wrong(self, what: str) -> DeclarationError:
        return DeclarationError(f"continuous aggregate {self.name}: {what}")


def aggregates(metadata: MetaData) -> Iterator[ContinuousAggregate]:
    """Yield the declared aggregates; each comes after the one that it is stacked on."""
    yield from metadata.info.get(AGGREGATES, {}).values()
