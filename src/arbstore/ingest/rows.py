"""What every format is read into: rows of values, each with the names of what it is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

from arbstore.records import (
    Balance,
    BookTicker,
    Candle,
    CollectorStatus,
    FundingRate,
    Opportunity,
    OrderFlow,
    Snapshot,
    SymbolType,
    Tick,
    Trade,
)

# By the name of the service that writes them.
KINDS: Mapping[str, type[Snapshot]] = MappingProxyType(
    {
        "book_tickers": BookTicker,
        "trades": Trade,
        "funding_rates": FundingRate,
        "ticks": Tick,
        "candles": Candle,
        "balances": Balance,
        "opportunities": Opportunity,
        "order_flow": OrderFlow,
        "collectors": CollectorStatus,
    }
)


class ExchangeName(NamedTuple):
    """An exchange, by its enum value."""

    exchange: str


class SymbolName(NamedTuple):
    """A symbol as a file names it: by the exchange's own spelling, by its pair, or both; None is not said."""

    exchange: str
    spelling: str | None = None
    base: str | None = None
    quote: str | None = None
    symbol_type: SymbolType | None = None
    expiry: datetime | None = None


Owner: TypeAlias = ExchangeName | SymbolName


class Row(NamedTuple):
    """A row for the service `kind`: its values, and for each field that holds an id the name behind that id."""

    kind: str
    owners: tuple[tuple[str, Owner], ...]
    values: dict[str, Any]
    dated_locally: bool = False


Ignored: TypeAlias = str  # why a line is no market data; lines are counted by it


class Items(Iterator[Any], Protocol):
    """The lines or rows of an open file. `next` raises ValueError for one that cannot be read, and may go on."""

    @property
    def number(self) -> int:
        """The number of the last line, or row, from 1."""

    @property
    def position(self) -> int:
        """Bytes of the file read so far."""

    def close(self) -> None:
        """Close the file."""


class Parser(Protocol):
    """What makes a row of an item."""

    def __call__(self, item: Any, /) -> Row | Ignored:
        """Return the row, or why there is none; raise ValueError with the reason if the item is malformed."""
