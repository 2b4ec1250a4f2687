"""Tables whose columns are the fields of a record: CSV, NDJSON and Parquet.

Names stand in place of ids: `exchange` of exchange_id; `exchange`, `base` and `quote` (with `symbol_type` and `expiry`
where they are needed) or `exchange_symbol` of symbol_id; `buy_exchange` and `sell_exchange` of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from arbstore.errors import ConfigurationError
from arbstore.ingest.files import UnknownFormatError
from arbstore.ingest.options import IngestOptions
from arbstore.ingest.rows import KINDS, ExchangeName, Ignored, Owner, Row, SymbolName
from arbstore.ingest.times import aware
from arbstore.records import Snapshot, SymbolType
from arbstore.services.exchanges import enum_value

# Rows that `history` returned have the second names.
_PAIR = {"base": ("base", "symbol_base"), "quote": ("quote", "symbol_quote")}
_SYMBOL_COLUMNS = frozenset({"exchange_symbol", "symbol_type", "expiry"}.union(*_PAIR.values()))


@dataclass(frozen=True)
class Layout:
    """The columns that a table of one kind has."""

    kind: type[Snapshot]

    @cached_property
    def _fields(self) -> frozenset[str]:
        return frozenset(field.name for field in msgspec.structs.fields(self.kind))

    @cached_property
    def ids(self) -> frozenset[str]:
        """The fields that names stand for."""
        return frozenset(field for field in self._fields if field.endswith("_id") and field != "trade_id")

    @cached_property
    def times(self) -> frozenset[str]:
        """The columns that hold times."""
        hints = get_type_hints(self.kind)
        return frozenset(name for name in self._fields if datetime in (hints[name], *get_args(hints[name])))

    @cached_property
    def _required(self) -> frozenset[str]:
        fields = msgspec.structs.fields(self.kind)
        return frozenset(field.name for field in fields if field.required) - self.ids

    @cached_property
    def _accepted(self) -> frozenset[str]:
        exchanges = {name.removesuffix("_id") for name in self.ids - {"symbol_id"}}
        return self._fields | exchanges | {"exchange"} | (_SYMBOL_COLUMNS if "symbol_id" in self.ids else frozenset())

    def faults(self, columns: Iterable[str], options: IngestOptions) -> list[str]:
        """Return what keeps a table with these columns from being of this kind."""
        have = set(columns)
        missing = set(self._required - have)
        if options.timeframe is not None:
            missing.discard("timeframe")
        if "symbol_id" in self.ids and "exchange_symbol" not in have:
            missing |= {name for name, names in _PAIR.items() if have.isdisjoint(names)}
        if "buy_exchange_id" in self.ids:
            missing |= {"buy_exchange", "sell_exchange"} - have
        elif options.exchange is None and "exchange" not in have:
            missing.add("exchange (or --exchange)")
        return [
            *(f"{name} is no column of it" for name in sorted(have - self._accepted)),
            *(f"{name} is missing" for name in sorted(missing)),
        ]


LAYOUTS = {kind: Layout(record) for kind, record in KINDS.items()}


def deduce(path: Path, columns: Iterable[str], options: IngestOptions) -> str:
    """Return the kind of a table's rows: the one that is given, else the only one that has these columns.

    Raises UnknownFormatError that says what keeps the columns from it, ConfigurationError for a kind there is not.
    """
    columns = list(columns)
    if options.kind is not None and options.kind not in LAYOUTS:
        raise ConfigurationError(f"--kind {options.kind}: known are {', '.join(LAYOUTS)}")
    wanted = list(LAYOUTS) if options.kind is None else [options.kind]
    faults = {kind: LAYOUTS[kind].faults(columns, options) for kind in wanted}
    fitting = [kind for kind in wanted if not faults[kind]]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UnknownFormatError(f"{path}: the columns fit {' and '.join(fitting)}: say which with --kind")
    closest = min(faults, key=lambda kind: len(faults[kind]))
    raise UnknownFormatError(
        f"{path}: the columns are those of no kind; the closest is {closest}: {'; '.join(faults[closest])}"
    )


class TableParser:
    """Reads the rows of one kind."""

    def __init__(self, path: Path, columns: Iterable[str], options: IngestOptions) -> None:
        """Deduce the kind; raises what `deduce` does."""
        self._kind = deduce(path, columns, options)
        self._layout = LAYOUTS[self._kind]
        self._options = options

    def __call__(self, cells: Mapping[str, Any], /) -> Row | Ignored:
        """Return the row; raise ValueError with the reason if it is malformed."""
        values = {name: value for name, value in cells.items() if value is not None and value != ""}
        if not values:
            return "blank line"
        ids = self._layout.ids
        exchange = values.pop("exchange", values.get("buy_exchange", self._options.exchange))
        if exchange is None:
            raise ValueError("exchange: is missing")
        exchange = enum_value(exchange)
        if self._options.exchange not in (None, exchange):
            return f"of {exchange}"
        owners: list[tuple[str, Owner]] = []
        if "symbol_id" in ids:
            owners.append(("symbol_id", self._symbol(exchange, values)))
        for field in sorted(ids - {"symbol_id"}):
            owners.append((field, ExchangeName(_exchange(values, field, exchange))))
        return Row(self._kind, tuple(owners), self._converted(values))

    def _symbol(self, exchange: str, values: dict[str, Any]) -> SymbolName:
        pair = {name: _first(values, names) for name, names in _PAIR.items()}
        spelling, kind, expiry = (values.pop(name, None) for name in ("exchange_symbol", "symbol_type", "expiry"))
        if spelling is None and None in pair.values():
            raise ValueError("names no symbol: base and quote, or exchange_symbol, must be there")
        return SymbolName(
            exchange,
            spelling if spelling is None else _text(spelling, "exchange_symbol"),
            **pair,
            symbol_type=None if kind is None else SymbolType(_text(kind, "symbol_type").upper()),
            expiry=None if expiry is None else aware(expiry, self._options.utc_offset),
        )

    def _converted(self, values: dict[str, Any]) -> dict[str, Any]:
        for name in self._layout.times & values.keys():
            values[name] = _moment(values[name], name, self._options.utc_offset)
        if self._kind == "candles" and self._options.timeframe is not None:
            values.setdefault("timeframe", self._options.timeframe)
        return values


def _exchange(values: dict[str, Any], field: str, exchange: str) -> str:
    if field == "exchange_id":
        return exchange
    name = field.removesuffix("_id")
    if name not in values:
        raise ValueError(f"{name}: is missing")
    return enum_value(values.pop(name))


def _first(values: dict[str, Any], names: tuple[str, ...]) -> str | None:
    found = [_text(values.pop(name), name).strip().upper() for name in names if name in values]
    return found[0] if found else None


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name}: must be a text, is {value!r}")
    return value


def _moment(value: Any, name: str, utc_offset: timedelta | None) -> datetime:
    if not isinstance(value, str | datetime):
        raise ValueError(f"{name}: {value!r} is no time such as 2024-08-08T12:00:00Z: epochs are ambiguous")
    try:
        return aware(value, utc_offset)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


class NdjsonParser:
    """Reads lines that are one JSON object each; the first that can be read tells what they are."""

    def __init__(self, path: Path, options: IngestOptions) -> None:
        """Keep path and options for the table to come."""
        self._path = path
        self._options = options
        self._table: TableParser | None = None
        # As written: a float would lose digits that balances have.
        self._decoder = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)

    def __call__(self, line: bytes, /) -> Row | Ignored:
        """Return the row; raise ValueError with the reason if the line is malformed."""
        if not line:
            return "blank line"
        cells = self._decoder.decode(line)
        if self._table is None:
            self._table = TableParser(self._path, cells, self._options)
        return self._table(cells)
