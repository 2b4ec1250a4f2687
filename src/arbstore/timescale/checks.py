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
    UniqueConstraint,
    event,
)

from arbstore.timescale.errors import DeclarationError
from arbstore.timescale.hypertable import Columnstore, Hypertable, declared, hypertables


def check(metadata: MetaData) -> None:
    """Raise DeclarationError for the first table of the metadata that cannot be what it declares."""
    for table, _ in hypertables(metadata):
        check_table(table)


def check_table(table: Table) -> None:
    """Raise DeclarationError if the table cannot be the hypertable that it declares; an ordinary one always passes."""
    if (wanted := declared(table)) is None:
        return
    _check_time(table, wanted)
    if wanted.space is not None:
        _check_known(table, "space", wanted.space.column)
    _check_keys(table, wanted)
    if wanted.columnstore is not None:
        _check_columnstore(table, wanted.columnstore, wanted.time_column)


@event.listens_for(Table, "after_parent_attach")
def _when_defined(table: Table, _metadata: MetaData) -> None:
    check_table(table)


def _wrong(table: Table, what: str) -> DeclarationError:
    return DeclarationError(f"hypertable {table.key}: {what}")


def _check_known(table: Table, role: str, name: str) -> Column[Any]:
    if name not in table.c:
        raise _wrong(table, f"its {role} column {name} is not there; it has {', '.join(table.c.keys())}")
    return table.c[name]


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
        if isinstance(constraint, (PrimaryKeyConstraint, UniqueConstraint)) and len(constraint.columns):
            kind = "the primary key" if isinstance(constraint, PrimaryKeyConstraint) else "the unique constraint"
            yield kind, [column.name for column in constraint.columns]
    for index in table.indexes:
        if index.unique:
            yield f"the unique index {index.name}", [column.name for column in index.columns]


def _check_columnstore(table: Table, wanted: Columnstore, time_column: str) -> None:
    ordered = [order.column for order in wanted.ordered(time_column)]
    for name in wanted.segment_by:
        _check_known(table, "segment_by", name)
        if name in (*ordered, time_column):
            raise _wrong(table, f"{name} is in segment_by, and sorts or dates the rows: take it out of segment_by")
    for name in ordered:
        _check_known(table, "order_by", name)
