"""How a model declares a hypertable, in the `info` of its table, and the checks of the declaration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.schema import ColumnCollectionConstraint

from alembic_timescaledb.names import LONGEST_NAME, TOO_LONG, DeclarationError, positive, spoken

DECLARED = "hypertable"  # the key in Table.info

_ORDERED = re.compile(r"(?P<column>.+?)(?:\s+(?P<way>ASC|DESC))?(?:\s+NULLS\s+(?P<nulls>FIRST|LAST))?\s*$", re.I)


@dataclass(frozen=True, slots=True)
class Order:
    """A column to sort by; by default nulls come last in ascending order and first in descending order."""

    column: str
    descending: bool
    nulls_first: bool

    @classmethod
    def parse(cls, words: str) -> Order:
        """Read a column's name, then optionally `ASC` or `DESC`, then optionally `NULLS FIRST` or `NULLS LAST`."""
        found = _ORDERED.match(words.strip())
        if found is None:
            raise DeclarationError(f"order_by: {words!r} names no column; write 'timestamp DESC'")
        descending = (found["way"] or "ASC").upper() == "DESC"
        nulls_first = descending if found["nulls"] is None else found["nulls"].upper() == "FIRST"
        return cls(found["column"], descending, nulls_first)

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        nulls = "" if self.nulls_first == self.descending else f" NULLS {'FIRST' if self.nulls_first else 'LAST'}"
        return f"{self.column}{' DESC' if self.descending else ''}{nulls}"


@dataclass(frozen=True, slots=True)
class Columnstore:
    """Chunks whose rows are all older than `after` are stored by column, compressed.

    Rows are grouped by the columns of `segment_by`, and sorted within a group by those of `order_by`. Each name in
    `order_by` may have `DESC`, `NULLS FIRST` or `NULLS LAST` after it. By default the newest row comes first.
    """

    after: timedelta
    segment_by: Sequence[str] = ()
    order_by: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check the length, and take a single name as a sequence of one."""
        positive(self.after, "Columnstore: after")
        for name in ("segment_by", "order_by"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))

    def ordered(self, time_column: str) -> tuple[Order, ...]:
        """Return the order of rows; without `order_by`, the newest first."""
        return tuple(map(Order.parse, self.order_by)) or (Order(time_column, descending=True, nulls_first=True),)


@dataclass(frozen=True, slots=True)
class RetentionJob:
    """A procedure of yours that removes old rows instead of TimescaleDB's own policy, run each `every`.

    Its parameters are `job_id integer, config jsonb`. The configuration names the `schema` and the `table`, and has
    `drop_after` as the text of an interval, or null to keep all rows. The job exists even then: it may do other work.
    """

    procedure: str
    every: timedelta

    def __post_init__(self) -> None:
        """Check the name and the length."""
        if not self.procedure:
            raise DeclarationError("RetentionJob: procedure is empty: give the name of the procedure to run")
        positive(self.every, "RetentionJob: every")


@dataclass(frozen=True, slots=True)
class Hypertable:
    """A table split into chunks of `chunk_interval` by `time_column`; the server may drop rows older than `retention`.

    `retention` None keeps all rows, `columnstore` None compresses none. `retention_job` removes the rows instead of the
    server's own policy. Mistakes raise DeclarationError: mistakes of lengths here, those of columns and keys when the
    table is defined.

        class Trade(Base):
            __tablename__ = "trades"
            __table_args__ = ({"info": Hypertable(timedelta(hours=1), retention=timedelta(days=7)).info},)
    """

    chunk_interval: timedelta
    retention: timedelta | None = None
    time_column: str = "timestamp"
    columnstore: Columnstore | None = field(default=None, kw_only=True)
    retention_job: RetentionJob | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check the lengths against one another."""
        positive(self.chunk_interval, "Hypertable: chunk_interval")
        check_retention(self.retention, self.columnstore, "Hypertable: ", "rows")
        if self.retention is not None and self.retention < self.chunk_interval:
            raise DeclarationError(
                f"Hypertable: rows are kept for {spoken(self.retention)}, less than one chunk"
                f" ({spoken(self.chunk_interval)}): only whole chunks are dropped; take smaller chunks"
            )

    @property
    def info(self) -> dict[str, Any]:
        """The value of `info` in `__table_args__`."""
        return {DECLARED: self}


def declared(table: sa.Table) -> Hypertable | None:
    """Return the declaration of the table; None for an ordinary table. Raises DeclarationError for a wrong type."""
    value = table.info.get(DECLARED)
    if value is None or isinstance(value, Hypertable):
        return value
    raise DeclarationError(f"table {table.key}: info[{DECLARED!r}] is {value!r}: give `Hypertable(...).info`")


def hypertables(metadata: sa.MetaData) -> Iterator[tuple[sa.Table, Hypertable]]:
    """Yield the tables that declare a hypertable, in order of dependency."""
    for table in metadata.sorted_tables:
        if (hypertable := declared(table)) is not None:
            yield table, hypertable


def check_retention(retention: timedelta | None, columnstore: Columnstore | None, place: str, rows: str) -> None:
    """Raise DeclarationError unless the columnstore takes the rows before they are dropped."""
    if retention is None:
        return
    positive(retention, f"{place}retention")
    if columnstore is not None and columnstore.after >= retention:
        raise DeclarationError(
            f"{place}{rows} would be dropped after {spoken(retention)}, before the columnstore takes them"
            f" ({spoken(columnstore.after)}); shorten `after` or lengthen `retention`"
        )


def check(metadata: sa.MetaData) -> None:
    """Raise DeclarationError for the first table of the metadata whose declaration cannot work."""
    for table, _ in hypertables(metadata):
        check_table(table)
        for key in table.foreign_key_constraints:
            if declared(key.referred_table) is not None:
                raise DeclarationError(
                    f"hypertable {table.key}: its foreign key ({', '.join(key.column_keys)}) refers to a hypertable,"
                    f" {key.referred_table.key}: TimescaleDB does not support that; leave it out"
                )


def check_table(table: sa.Table) -> None:
    """Raise DeclarationError if the table cannot be the hypertable that it declares; an ordinary table passes."""
    if (wanted := declared(table)) is not None:
        for mistake in _mistakes(table, wanted):
            raise DeclarationError(f"hypertable {table.key}: {mistake}")


sa.event.listen(sa.Table, "after_parent_attach", lambda table, _metadata: check_table(table))


def _mistakes(table: sa.Table, wanted: Hypertable) -> Iterator[str]:
    """Yield mistakes; each is looked for only if there is none before it."""
    if len(table.name.encode()) > LONGEST_NAME:
        yield TOO_LONG
    columns = {column.name: column for column in table.c}  # the server's names; SQLAlchemy's keys may differ
    store = wanted.columnstore
    segments = () if store is None else store.segment_by
    ordered = [] if store is None else [one.column for one in store.ordered(wanted.time_column)]
    named = {"time": [wanted.time_column], "segment_by": segments, "order_by": ordered}
    for role, name in ((role, name) for role, names in named.items() for name in names if name not in columns):
        yield f"it has no {role} column {name}; its columns are {', '.join(columns)}"
    time = columns[wanted.time_column]
    kind = time.type.impl if isinstance(time.type, sa.TypeDecorator) else time.type
    if not isinstance(kind, (sa.DateTime, sa.Date)):
        yield f"its time column {time.name} is {kind!r}: take DateTime(timezone=True)"
    if time.nullable:
        yield f"its time column {time.name} may be null: declare nullable=False"
    for what, names in _unique(table):
        if time.name not in names:
            yield (
                f"{what} ({', '.join(names)}) lacks {time.name}: TimescaleDB keeps keys unique within a chunk only;"
                f" add {time.name} to it"
            )
    for name in {*ordered, time.name}.intersection(segments):
        yield f"{name} is in segment_by, but it sorts the rows or is their time: take it out of segment_by"


_KINDS = {
    sa.PrimaryKeyConstraint: "the primary key",
    sa.UniqueConstraint: "the unique constraint",
    ExcludeConstraint: "the exclusion constraint",
}


def _unique(table: sa.Table) -> Iterator[tuple[str, list[str]]]:
    for constraint in table.constraints:
        if isinstance(constraint, ColumnCollectionConstraint) and constraint.columns and type(constraint) in _KINDS:
            yield _KINDS[type(constraint)], [column.name for column in constraint.columns]
    for index in table.indexes:
        if index.unique:
            # An expression may have the same value for many rows, so its columns do not count.
            parts = map(_unsorted, index.expressions)
            yield f"the unique index {index.name}", [part.name for part in parts if isinstance(part, sa.Column)]


def _unsorted(part: Any) -> Any:
    while isinstance(part, sa.UnaryExpression) and part.modifier is not None:
        part = part.element
    return part
