"""The Arrow schema of a kind, and rows in that schema.

Times are microseconds in UTC. Prices and quantities are float64. Texts that repeat (names of exchanges, symbols, assets
and collectors, timeframes, sides, states) are dictionaries. Exact decimals are decimal128 of 38 digits, with 18 digits
after the point for balances, and 24 for funding rates and their prices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped] # it has no types
import pyarrow.compute as pc  # type: ignore[import-untyped] # it has no types
from sqlalchemy import BigInteger, Boolean, Column, DateTime, Double, Integer, SmallInteger

from arbstore.errors import ValidationError
from arbstore.kinds import Kind

_NAMES = ("exchange", "symbol_base", "symbol_quote", "exchange_symbol")
_REPEATED = {*_NAMES, "asset_name", "collector", "origin", "timeframe", "side", "status", "event_type", "use_case"}
_DIGITS = 38

# The first that fits: SmallInteger and BigInteger are Integers.
_TYPES: dict[type[Any], pa.DataType] = {
    DateTime: pa.timestamp("us", tz="UTC"),
    Double: pa.float64(),
    Boolean: pa.bool_(),
    SmallInteger: pa.int16(),
    BigInteger: pa.int64(),
    Integer: pa.int32(),
}


def schema_of(kind: Kind[Any, Any], *, exact: bool) -> pa.Schema:
    """Return the schema of a kind's stored records: the names, then the columns.

    Without `exact`, columns of exact decimals are float64.
    """
    names = _NAMES if kind.of_symbols else _NAMES[:1]
    fields = [pa.field(name, _type_of_text(name), nullable=False) for name in names]
    return pa.schema(fields + [_field(kind, column, exact=exact) for column in kind.columns])


def _field(kind: Kind[Any, Any], column: Column[Any], *, exact: bool) -> pa.Field:
    if column.name in kind.decimals:
        arrow = pa.decimal128(_DIGITS, kind.scale) if exact else pa.float64()
    else:
        known = (arrow for sql, arrow in _TYPES.items() if isinstance(column.type, sql))
        arrow = next(known, None) or _type_of_text(column.name)
    metadata = {"comment": column.comment} if column.comment else None
    return pa.field(column.name, arrow, nullable=bool(column.nullable), metadata=metadata)


def _type_of_text(name: str) -> pa.DataType:
    return pa.dictionary(pa.int32(), pa.string()) if name in _REPEATED else pa.string()


class Shape:
    """Puts rows into the schema of a kind, and adds the values that all rows share."""

    def __init__(self, kind: Kind[Any, Any], constants: Mapping[str, Any], *, exact: bool) -> None:
        """Take the shared values by the names of their columns. Without `exact`, decimals are float64."""
        self.schema = schema_of(kind, exact=exact)
        self._constants = constants
        self._zeros = pa.array([], pa.int32())

    def batch(self, sent: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch that the server sent, in the schema; raise ValidationError for a number that does not fit."""
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
        if len(self._zeros) < length:  # kept, because batches and columns share them
            self._zeros = pa.repeat(pa.scalar(0, pa.int32()), length)
        return pa.DictionaryArray.from_arrays(self._zeros.slice(0, length), pa.array([value], pa.string()))


def reversed_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with its last row first."""
    # The positions from the last row to 0, made without a Python object for each.
    return batch.take(pc.cumulative_sum(pa.repeat(pa.scalar(-1, pa.int64()), len(batch)), start=len(batch)))


def _values(field: pa.Field, values: list[Any]) -> pa.Array:
    if any(isinstance(value, Decimal) for value in values):
        return pa.array([None if value is None else format(value, "f") for value in values], pa.string())
    return pa.array(values, pa.string() if pa.types.is_dictionary(field.type) else field.type)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):  # a `numeric` arrives as its text, which can hold every value
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
            f"{value} does not fit {field.type}: read records instead, or floats with exact=False",
            field=field.name,
        ) from error


def _fits(value: str, kind: pa.DataType) -> bool:
    try:
        pa.scalar(value).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
