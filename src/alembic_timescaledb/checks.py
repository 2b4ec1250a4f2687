"""What TimescaleDB will not take of a table, found when the table is defined and again when a revision is generated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    Column,
    Date,
    DateTime,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    TypeDecorator,
    UnaryExpression,
    UniqueConstraint,
    event,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from alembic_timescaledb.errors import DeclarationError
from alembic_timescaledb.hypertable import Columnstore, Hypertable, declared, hypertables
from alembic_timescaledb.naming import LONGEST_NAME

_KINDS = {
    PrimaryKeyConstraint: "the primary key",
    UniqueConstraint: "the unique constraint",
    ExcludeConstraint: "the exclusion constraint",
}


def check(metadata: MetaData) -> None:
    """Raise DeclarationError for the first table of the metadata that cannot be what it declares."""
    for table, _ in hypertables(metadata):
        check_table(table)
    check_references(metadata)


def check_table(table: Table) -> None:
    """Raise DeclarationError if the table cannot be the hypertable that it declares; an ordinary one always passes."""
    if (wanted := declared(table)) is None:
        return
    if len(table.name.encode()) > LONGEST_NAME:
        raise _wrong(table, f"its name is longer than {LONGEST_NAME} bytes, where PostgreSQL cuts it: shorten it")
    _check_time(table, wanted)
    if wanted.space is not None:
        _check_known(table, "space", wanted.space.column)
        if wanted.space.column == wanted.time_column:
            raise _wrong(table, f"its space column is {wanted.time_column}, its time: take another")
    _check_keys(table, wanted)
    if wanted.columnstore is not None:
        _check_columnstore(table, wanted.columnstore, wanted.time_column)


@event.listens_for(Table, "after_parent_attach")
def _when_defined(table: Table, _metadata: MetaData) -> None:
    check_table(table)


def check_references(metadata: MetaData) -> None:
    """Raise DeclarationError for the first hypertable with a foreign key to another: TimescaleDB has no such."""
    for table, _ in hypertables(metadata):
        for key in table.foreign_key_constraints:
            if declared(key.referred_table) is not None:
                raise _wrong(
                    table,
                    f"its foreign key ({', '.join(key.column_keys)}) is to a hypertable, {key.referred_table.key}:"
                    " TimescaleDB has none from one to another; leave it out",
                )


def _wrong(table: Table, what: str) -> DeclarationError:
    return DeclarationError(f"hypertable {table.key}: {what}")


def _check_known(table: Table, role: str, name: str) -> Column[Any]:
    columns = {column.name: column for column in table.c}  # by which the server knows them; keys may be others
    if name not in columns:
        raise _wrong(table, f"its {role} column {name} is not there; it has {', '.join(columns)}")
    return columns[name]


def _check_time(table: Table, wanted: Hypertable) -> None:
    column = _check_known(table, "time", wanted.time_column)
    kind = column.type.impl if isinstance(column.type, TypeDecorator) else column.type
    if not isinstance(kind, (DateTime, Date)):
        raise _wrong(table, f"its time column {column.name} is {kind!r}: take DateTime(timezone=True)")
    if column.nullable:
        raise _wrong(table, f"its time column {column.name} may be null: declare nullable=False")


def _check_keys(table: Table, wanted: Hypertable) -> None:
    needed = [wanted.time_column, *([wanted.space.column] if wanted.space else [])]
    for what, columns in _unique(table):
        for name in needed:
            if name not in columns:
                raise _wrong(
                    table,
                    f"{what} ({', '.join(columns)}) lacks {name}: TimescaleDB keeps keys unique within a chunk only;"
                    f" add {name} to it",
                )


def _unique(table: Table) -> Iterator[tuple[str, list[str]]]:
    for constraint in table.constraints:
        if isinstance(constraint, (PrimaryKeyConstraint, UniqueConstraint, ExcludeConstraint)) and constraint.columns:
            yield _KINDS[type(constraint)], [column.name for column in constraint.columns]
    for index in table.indexes:
        if index.unique:
            # Of an expression the columns do not count: it may be the same for many of their values.
            parts = map(_unsorted, index.expressions)
            yield f"the unique index {index.name}", [part.name for part in parts if isinstance(part, Column)]


def _unsorted(part: Any) -> Any:
    while isinstance(part, UnaryExpression) and part.modifier is not None:
        part = part.element
    return part


def _check_columnstore(table: Table, wanted: Columnstore, time_column: str) -> None:
    ordered = [order.column for order in wanted.ordered(time_column)]
    for name in wanted.segment_by:
        _check_known(table, "segment_by", name)
        if name in (*ordered, time_column):
            raise _wrong(table, f"{name} is in segment_by, and sorts or dates the rows: take it out of segment_by")
    for name in ordered:
        _check_known(table, "order_by", name)
