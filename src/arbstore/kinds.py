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
from arbstore.records import Snapshot

if TYPE_CHECKING:
    from sqlalchemy import Table

In = TypeVar("In", bound=Snapshot)
Out = TypeVar("Out", bound=Snapshot)


class Owner(Enum):
    """The reference table that a column of ids points to."""

    SYMBOL = "symbols"
    EXCHANGE = "exchanges"


@dataclass(frozen=True)
class Part:
    """The column of a key between owner and time, such as `timeframe`; `argument` is its name in calls."""

    column: str
    argument: str


@dataclass(frozen=True, eq=False)
class Kind(Generic[In, Out]):
    """One time series table. Its `name` is that of its service in a Store and of its rows in files.

    `model` is the table's class as "package.module:Class". A key is an owner, a part where the table has one, and
    `timestamp`. If two rows have the same key, the one with the greater `newer` is the newer one. `scale` is how many
    digits after the point an exact decimal keeps in a frame.
    """

    name: str
    record: type[In]
    stored: type[Out]
    model: str
    part: Part | None = None
    newer: str = "created_at"
    scale: int = 0

    @cached_property
    def table(self) -> Table:
        """The table."""
        found: Table = resolve_name(self.model).__table__
        return found

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
        return owner if self.part is None else (*owner, self.part.argument)

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


BOOK_TICKERS = Kind("book_tickers", records.BookTicker, records.StoredBookTicker, "arbstore.models:BookTickerSnapshot")
TRADES = Kind("trades", records.Trade, records.StoredTrade, "arbstore.models:TradeSnapshot")
FUNDING_RATES = Kind(
    "funding_rates", records.FundingRate, records.StoredFundingRate, "arbstore.models:FundingRateSnapshot", scale=24
)
BALANCES = Kind(
    "balances",
    records.Balance,
    records.StoredBalance,
    "arbstore.models:BalanceSnapshot",
    part=Part("asset_name", "asset"),
    scale=18,
)
TICKS = Kind("ticks", records.Tick, records.StoredTick, "arbstore.models:Tick")
CANDLES = Kind(
    "candles", records.Candle, records.StoredCandle, "arbstore.models:Candle", part=Part("timeframe", "timeframe")
)
OPPORTUNITIES = Kind(
    "opportunities",
    records.Opportunity,
    records.StoredOpportunity,
    "arbstore.models:ArbitrageOpportunity",
    part=Part("sell_exchange_id", "sell_exchange"),
)
ORDER_FLOW = Kind(
    "order_flow",
    records.OrderFlow,
    records.StoredOrderFlow,
    "arbstore.models:OrderFlowMetrics",
    part=Part("window_seconds", "window_seconds"),
)
COLLECTORS = Kind(
    "collectors",
    records.CollectorStatus,
    records.StoredCollectorStatus,
    "arbstore.models:CollectorStatus",
    part=Part("collector", "collector"),
)

# Every row of this module, by its name.
KINDS: Mapping[str, Kind[Any, Any]] = MappingProxyType(
    {row.name: row for row in tuple(globals().values()) if isinstance(row, Kind)}
)
