"""One row for each time series: everything that services, ingest, frames and the command line must know about it.

To add a series, write its record, its model with a revision, and a row here. This module does not import SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cached_property
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_type_hints

import msgspec

from arbstore import records
from arbstore.records import Origin, Snapshot

if TYPE_CHECKING:
    from sqlalchemy import Column, Table

In = TypeVar("In", bound=Snapshot)
Out = TypeVar("Out", bound=Snapshot)


class Owner(Enum):
    """The reference table that a column of ids points to."""

    SYMBOL = "symbols"
    EXCHANGE = "exchanges"


@dataclass(frozen=True)
class Part:
    """A column of a key between owner and time, such as `timeframe`; `argument` is its name in calls.

    A part with a `default` need not be given, and is given by name only.
    """

    column: str
    argument: str
    default: Any = None


@dataclass(frozen=True, eq=False)
class Kind(Generic[In, Out]):
    """One time series table. Its `name` is that of its service in a Store and of its rows in files.

    `model` is the table's class as "package.module:Class". A key is an owner, parts where the table has some, and
    `timestamp`. If two rows have the same key, the one with the greater `newer` is the newer one. A row in whose column
    `final` is false never replaces one that is final. `scale` is how many digits after the point an exact decimal keeps
    in a frame. `makes` is the origin of the candles that are made of its rows.
    """

    name: str
    record: type[In]
    stored: type[Out]
    model: str
    parts: tuple[Part, ...] = ()
    newer: str = "created_at"
    final: str | None = None
    scale: int = 0
    makes: Origin | None = None

    @cached_property
    def table(self) -> Table:
        """The table."""
        found: Table = resolve_name(self.model).__table__
        return found

    @cached_property
    def columns(self) -> tuple[Column[Any], ...]:
        """The columns of the table that are fields of the record, in the order of the table."""
        return tuple(column for column in self.table.c if column.name in self.fields)

    @cached_property
    def fields(self) -> Mapping[str, Any]:
        """The types of the record's fields, by name."""
        hints = get_type_hints(self.record)
        return MappingProxyType({field.name: hints[field.name] for field in msgspec.structs.fields(self.record)})

    @cached_property
    def required(self) -> frozenset[str]:
        """The fields that have no default."""
        return frozenset(field.name for field in msgspec.structs.fields(self.record) if field.required)

    @cached_property
    def owners(self) -> Mapping[str, Owner]:
        """The columns that hold ids, with the table that each points to. The key begins with the first one."""
        found = {name: Owner.SYMBOL for name in self.fields if name == "symbol_id"}
        found |= {name: Owner.EXCHANGE for name in self.fields if name.endswith("exchange_id")}
        return MappingProxyType(found)

    @property
    def owner(self) -> str:
        """The first column of the key."""
        return next(iter(self.owners))

    @property
    def of_symbols(self) -> bool:
        """Whether the series belong to symbols, not to exchanges."""
        return self.owners[self.owner] is Owner.SYMBOL

    @property
    def arguments(self) -> tuple[str, ...]:
        """What names one series in calls: `history` takes these first, in this order."""
        owner = ("exchange", "base", "quote") if self.of_symbols else ("exchange",)
        return (*owner, *(part.argument for part in self.parts if part.default is None))

    @property
    def options(self) -> tuple[str, ...]:
        """What calls may add by name to `arguments`."""
        return tuple(part.argument for part in self.parts if part.default is not None)

    @cached_property
    def times(self) -> frozenset[str]:
        """The columns that hold times."""
        return self._of_type(datetime)

    @cached_property
    def decimals(self) -> frozenset[str]:
        """The columns that hold exact decimals."""
        return self._of_type(Decimal)

    def _of_type(self, kind: type) -> frozenset[str]:
        return frozenset(name for name, hint in self.fields.items() if kind in (hint, *get_args(hint)))


BOOK_TICKERS = Kind(
    "book_tickers",
    records.BookTicker,
    records.StoredBookTicker,
    "arbstore.models:BookTickerSnapshot",
    makes=Origin.QUOTES,
)
TRADES = Kind("trades", records.Trade, records.StoredTrade, "arbstore.models:TradeSnapshot", makes=Origin.TRADES)
FUNDING_RATES = Kind(
    "funding_rates", records.FundingRate, records.StoredFundingRate, "arbstore.models:FundingRateSnapshot", scale=24
)
BALANCES = Kind(
    "balances",
    records.Balance,
    records.StoredBalance,
    "arbstore.models:BalanceSnapshot",
    parts=(Part("asset_name", "asset"),),
    scale=18,
)
TICKS = Kind("ticks", records.Tick, records.StoredTick, "arbstore.models:Tick")
CANDLES = Kind(
    "candles",
    records.Candle,
    records.StoredCandle,
    "arbstore.models:Candle",
    parts=(Part("origin", "origin", default=Origin.FEED), Part("timeframe", "timeframe")),
    final="is_closed",
)
OPPORTUNITIES = Kind(
    "opportunities",
    records.Opportunity,
    records.StoredOpportunity,
    "arbstore.models:ArbitrageOpportunity",
    parts=(Part("sell_exchange_id", "sell_exchange"),),
)
ORDER_FLOW = Kind(
    "order_flow",
    records.OrderFlow,
    records.StoredOrderFlow,
    "arbstore.models:OrderFlowMetrics",
    parts=(Part("window_seconds", "window_seconds"),),
)
COLLECTORS = Kind(
    "collectors",
    records.CollectorStatus,
    records.StoredCollectorStatus,
    "arbstore.models:CollectorStatus",
    parts=(Part("collector", "collector"),),
)

# Every row of this module, by its name.
KINDS: Mapping[str, Kind[Any, Any]] = MappingProxyType(
    {row.name: row for row in tuple(globals().values()) if isinstance(row, Kind)}
)
