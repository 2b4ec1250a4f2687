"""Tables whose columns are the fields of a series' record: CSV, NDJSON and Parquet.

`kinds.py` describes the series. Names stand in place of ids:

- of an exchange: `exchange`, and also `buy_exchange` and `sell_exchange` where a series has those;
- of a symbol: `exchange` with `exchange_symbol`, or with `base` and `quote`; `symbol_type` and `expiry` if needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import msgspec

from arbstore.errors import ConfigurationError
from arbstore.ingest.options import IngestOptions
from arbstore.ingest.reading import JSON, Format, Lines, MalformedLineError, Row, UnknownFormatError, aware
from arbstore.ingest.symbols import OwnerName, SymbolName
from arbstore.kinds import KINDS, Kind, Owner
from arbstore.records import SymbolType
from arbstore.records.reference import enum_value

_RENAMED = {"symbol_base": "base", "symbol_quote": "quote"}  # from the names in rows that `history` returned
_SYMBOL_TEXTS = ("exchange_symbol", "base", "quote", "symbol_type")
_ROWS_A_BATCH = 10_000
_json = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)


class CsvTable(Format):
    """Rows of one series. The columns decide which, unless the options do."""

    name = "CSV"
    names_exchange = True

    def __init__(self, items: Lines, options: IngestOptions) -> None:
        """Find the series by the header. JSON has none: there, the first row decides."""
        super().__init__(items, options)
        self._kind = deduce(items.path, items.header, options) if items.header else None

    def read(self, cells: Mapping[str, Any]) -> Row | str:
        """Return the row."""
        if self._kind is None:
            self._kind = deduce(self.items.path, cells, self.options)
        values = {_RENAMED.get(name, name): value for name, value in cells.items() if value is not None and value != ""}
        return self._row(self._kind, values) if values else "blank line"

    def _row(self, kind: Kind[Any, Any], values: dict[str, Any]) -> Row | str:
        # A symbol of a series with two exchanges is one of the first.
        home = ("exchange", *_exchange_columns(kind).values())[:2]
        exchange = next((values[name] for name in home if name in values), self.options.exchange)
        if exchange is None:
            raise ValueError("exchange: is missing")
        exchange = enum_value(exchange)
        if self.options.exchange not in (None, exchange):
            return f"of {exchange}"
        values.pop("exchange", None)
        owners = tuple((column, self._owner(kind, column, exchange, values)) for column in kind.owners)
        for name in kind.times & values.keys():
            values[name] = aware(name, values[name], self.options.utc_offset)
        if self.options.timeframe is not None and "timeframe" in kind.fields:
            values.setdefault("timeframe", self.options.timeframe)
        return Row(kind.name, owners, values)

    def _owner(self, kind: Kind[Any, Any], column: str, exchange: str, values: dict[str, Any]) -> OwnerName:
        if kind.owners[column] is Owner.SYMBOL:
            return self._symbol(exchange, values)
        if (name := _exchange_columns(kind)[column]) == "exchange":
            return exchange
        if name not in values:
            raise ValueError(f"{name}: is missing")
        return enum_value(values.pop(name))

    def _symbol(self, exchange: str, values: dict[str, Any]) -> SymbolName:
        texts = [values.pop(name, None) for name in _SYMBOL_TEXTS]
        for name, text in zip(_SYMBOL_TEXTS, texts, strict=True):
            if not isinstance(text, str | None):
                raise ValueError(f"{name}: must be a text, is {text!r}")
        spelling, base, quote, kind = texts
        if spelling is None and (base is None or quote is None):
            raise ValueError("names no symbol: it needs base and quote, or exchange_symbol")
        return SymbolName(
            exchange,
            spelling,
            base and base.strip().upper(),
            quote and quote.strip().upper(),
            kind and SymbolType(kind.upper()),
            aware("expiry", values.pop("expiry"), self.options.utc_offset) if "expiry" in values else None,
        )


class JsonRows(Lines):
    """Lines that are one JSON object each, as dicts. Decimals are exact, because a float would lose digits."""

    def __next__(self) -> Any:
        """Return the next row."""
        line = super().__next__()
        return _json.decode(line) if line else {}


class JsonTable(CsvTable):
    """Lines of JSON objects."""

    name = "NDJSON"
    endings = JSON
    opens = JsonRows


@cache
def _exchange_columns(kind: Kind[Any, Any]) -> dict[str, str]:
    """Return the columns of files that name exchanges, by the columns of their ids."""
    return {name: name.removesuffix("_id") for name, owner in kind.owners.items() if owner is Owner.EXCHANGE}


def deduce(path: Path, columns: Iterable[str], options: IngestOptions) -> Kind[Any, Any]:
    """Return the series of a table's rows: the one in the options, else the only one that has these columns.

    Raises UnknownFormatError that says which columns do not fit, and ConfigurationError for an unknown kind.
    """
    have = {_RENAMED.get(name, name) for name in columns}
    if options.kind is not None and options.kind not in KINDS:
        raise ConfigurationError(f"kind {options.kind} is unknown: known are {', '.join(KINDS)}", parameter="kind")
    wanted = KINDS if options.kind is None else [options.kind]
    faults = {kind: _faults(KINDS[kind], have, options) for kind in wanted}
    fitting = [kind for kind in wanted if not faults[kind]]
    if len(fitting) == 1:
        return KINDS[fitting[0]]
    if fitting:
        reason = f"the columns fit {' and '.join(fitting)}: give the kind of the rows"
        raise UnknownFormatError(f"{path}: {reason}", parameter="kind")
    closest = min(faults, key=lambda kind: len(faults[kind]))
    listed = "; ".join(f"{name} {fault}" for name, fault in faults[closest].items())
    raise UnknownFormatError(
        f"{path}: the columns fit no kind of rows; the closest is {closest}: {listed}",
        parameter=next((name for name in ("exchange", "timeframe") if name in faults[closest]), None),
    )


def _faults(kind: Kind[Any, Any], have: set[str], options: IngestOptions) -> dict[str, str]:
    """Return what is wrong with the columns of a table, if its rows are of this kind."""
    exchanges = set(_exchange_columns(kind).values()) or {"exchange"}
    wanted = (kind.required - kind.owners.keys()) | exchanges
    wanted -= {name for name in ("exchange", "timeframe") if getattr(options, name) is not None}
    if kind.of_symbols and "exchange_symbol" not in have:
        wanted |= {"base", "quote"}
    known = {*kind.fields, *exchanges, "exchange", *((*_SYMBOL_TEXTS, "expiry") if kind.of_symbols else ())}
    unknown = dict.fromkeys(sorted(have - known), "is not a column of it")
    return unknown | dict.fromkeys(sorted(wanted - have), "is missing")


class ParquetRows(Lines):
    """The rows of a Parquet file, as dicts of Python values."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises ConfigurationError without pyarrow, MalformedLineError if it is not Parquet."""
        try:
            import pyarrow  # type: ignore[import-untyped] # it has no types
            import pyarrow.parquet  # type: ignore[import-untyped] # it has no types
        except ImportError as error:
            raise ConfigurationError("Parquet files need the extra frames: pip install 'arbstore[frames]'") from error
        super().__init__(path)
        self._arrow: Any = pyarrow
        try:
            self._size = path.stat().st_size
            self._parquet: Any = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as error:
            super().close()
            raise MalformedLineError(path, None, f"the Parquet file cannot be read: {error}") from error
        self._rows = self._read()

    @cached_property
    def header(self) -> list[str]:
        """The names of the columns."""
        return list(self._parquet.schema_arrow.names)

    def _read(self) -> Iterator[dict[str, Any]]:
        try:
            for batch in self._parquet.iter_batches(batch_size=_ROWS_A_BATCH):
                yield from _in_microseconds(self._arrow, batch).to_pylist()
        except (self._arrow.ArrowException, ArithmeticError, OSError, ValueError) as error:
            # Not a ValueError, which could be skipped: no row after this one can be read.
            raise MalformedLineError(self.path, self.number + 1, f"the data cannot be read: {error}") from error

    def __next__(self) -> dict[str, Any]:
        """Return the next row. Raises MalformedLineError where the data cannot be read, and ends there."""
        row = next(self._rows)
        self.number += 1
        return row

    @property
    def position(self) -> int:
        """How many bytes of the file are read, estimated from the number of rows."""
        return self._size * self.number // max(int(self._parquet.metadata.num_rows), 1)

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()
        super().close()


def _in_microseconds(arrow: Any, batch: Any) -> Any:
    """Cut nanoseconds off: a Python datetime has none, and pyarrow does not drop them unless told."""
    fields = [
        field.with_type(arrow.timestamp("us", field.type.tz)) if arrow.types.is_timestamp(field.type) else field
        for field in batch.schema
    ]
    return arrow.Table.from_batches([batch]).cast(arrow.schema(fields), safe=False)


class ParquetTable(CsvTable):
    """Rows of a Parquet file."""

    name = "Parquet"
    endings = (".parquet",)
    opens = ParquetRows
