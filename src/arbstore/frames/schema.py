"""What a frame looks like: the Arrow schema of a table, and rows in it, however they came.

Times are microseconds in UTC, prices and quantities float64, and texts that repeat (names of exchanges, symbols,
assets and collectors, timeframes, sides, states) dictionaries. `numeric` columns are decimal128 of 38 digits, exact:
18 of them after the point in balances, 24 in funding rates and their prices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped] # it has no types
import pyarrow.compute as pc  # type: ignore[import-untyped] # it has no types
from sqlalchemy import BigInteger, Column, DateTime, Double, Integer, Numeric, SmallInteger, Table

from arbstore.errors import ValidationError

_NAMES = ("exchange", "symbol_base", "symbol_quote", "exchange_symbol")
_REPEATED = {*_NAMES, "asset_name", "collector", "timeframe", "side", "status", "event_type", "use_case"}
_DIGITS = 38
_SCALES = {"balance_snapshots": 18, "funding_rate_snapshots": 24}

# The first that fits: SmallInteger and BigInteger are Integers.
_TYPES: dict[type[Any], pa.DataType] = {
    DateTime: pa.timestamp("us", tz="UTC"),
    Double: pa.float64(),
    SmallInteger: pa.int16(),
    BigInteger: pa.int64(),
    Integer: pa.int32(),
}


def schema_of(table: Table, *, exact: bool) -> pa.Schema:
    """Return the schema of a table's stored records: the names, then the columns.

    Without `exact`, `numeric` columns are float64.
    """
    names = _NAMES if "symbol_id" in table.c else _NAMES[:1]
    fields = [pa.field(name, _type_of_text(name), nullable=False) for name in names]
    return pa.schema(fields + [_field(table, column, exact=exact) for column in table.c])


def _field(table: Table, column: Column[Any], *, exact: bool) -> pa.Field:
    if isinstance(column.type, Numeric) and not isinstance(column.type, Double):
        kind = pa.decimal128(_DIGITS, _SCALES[table.name]) if exact else pa.float64()
    else:
        known = (arrow for kind, arrow in _TYPES.items() if isinstance(column.type, kind))
        kind = next(known, None) or _type_of_text(column.name)
    metadata = {"comment": column.comment} if column.comment else None
    return pa.field(column.name, kind, nullable=bool(column.nullable), metadata=metadata)


def _type_of_text(name: str) -> pa.DataType:
    return pa.dictionary(pa.int32(), pa.string()) if name in _REPEATED else pa.string()


class Shape:
    """Puts what the server sends into the schema, and beside it the values that all rows share."""

    def __init__(self, table: Table, constants: Mapping[str, Any], *, exact: bool) -> None:
        """Take the constants by the names of their columns; without `exact`, decimals are float64."""
        self.table = table.name
        self.schema = schema_of(table, exact=exact)
        self._constants = constants
        self._zeros = pa.array([], pa.int32())

    def batch(self, sent: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch in the schema; raise ValidationError for a number that its type cannot hold."""
        columns = [
            self._constant(field, len(sent)) if field.name in self._constants else _cast(sent[field.name], field)
            for field in self.schema
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def rows(self, rows: Sequence[Any]) -> pa.RecordBatch:
        """Return the records, or other objects with the fields as attributes, in the schema."""
        columns = [_cast(_values(field, [getattr(row, field.name) for row in rows]), field) for field in self.schema]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _constant(self, field: pa.Field, length: int) -> pa.Array:
        value = self._constants[field.name]
        if not pa.types.is_dictionary(field.type):
            return pa.repeat(pa.scalar(value, field.type), length)
        if len(self._zeros) < length:  # kept: batches, and their columns, share them
            self._zeros = pa.repeat(pa.scalar(0, pa.int32()), length)
        return pa.DictionaryArray.from_arrays(self._zeros.slice(0, length), pa.array([value], pa.string()))


def reversed_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with its last row first."""
    # n - 1 down to 0, without an object for each.
    return batch.take(pc.cumulative_sum(pa.repeat(pa.scalar(-1, pa.int64()), len(batch)), start=len(batch)))


def _values(field: pa.Field, values: list[Any]) -> pa.Array:
    if any(isinstance(value, Decimal) for value in values):
        return pa.array([None if value is None else format(value, "f") for value in values], pa.string())
    return pa.array(values, pa.string() if pa.types.is_dictionary(field.type) else field.type)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):  # a `numeric`, whose text is the one thing that holds them all
        column = column.storage
    if pa.types.is_dictionary(field.type):
        return column.dictionary_encode()
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except pa.ArrowInvalid as error:
        value = next(value for value in column.to_pylist() if value is not None and not _fits(value, field.type))
        raise ValidationError(
            f"{value} does not fit {field.type}: read it as records, or inexactly, as float64 (exact=False)",
            field=field.name,
        ) from error


def _fits(value: str, kind: pa.DataType) -> bool:
    try:
        pa.scalar(value).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
