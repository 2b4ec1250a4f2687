"""The records of the time series: what collectors write, each field with its rule, and what reads return."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeAlias

from arbstore.records import rules
from arbstore.records.batch import Record
from arbstore.records.timeframes import Origin


class Side(StrEnum):
    """Who crossed the spread in a trade: the aggressor."""

    BUY = "buy"
    SELL = "sell"


class CollectorState(StrEnum):
    """The state that a collector reports."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    STOPPED = "stopped"
    FAILED = "failed"


Price = Annotated[float, rules.positive]
Quantity = Annotated[float, rules.not_negative]
Amount = Annotated[Decimal, rules.amount]
Timestamp = Annotated[datetime, rules.timestamp]
SymbolId = Annotated[int, rules.identifier]
ExchangeId = Annotated[int, rules.small_identifier]


class Snapshot(Record, frozen=True, kw_only=True):
    """Base of the rows of time series. `timestamp` is the exchange's clock, `created_at` the collector's.

    Without `created_at` the database server's clock is stored. Writing an unchanged row again keeps its `created_at`.
    """

    timestamp: Timestamp
    created_at: Annotated[datetime | None, rules.timestamp] = None


class BookTicker(Snapshot, frozen=True, kw_only=True):
    """Best bid and ask. Prices in the quote currency, quantities in the exchange's unit (base, or contracts)."""

    symbol_id: SymbolId
    bid_price: Price
    bid_qty: Quantity
    ask_price: Price
    ask_qty: Quantity

    @property
    def mid(self) -> float:
        """(bid + ask) / 2."""
        return (self.bid_price + self.ask_price) / 2

    @property
    def spread(self) -> float:
        """Ask - bid, in the quote currency; zero or less in a locked or crossed book."""
        return self.ask_price - self.bid_price

    @property
    def spread_bps(self) -> float:
        """The spread in basis points of the mid."""
        return self.spread / self.mid * 10_000


class Trade(Snapshot, frozen=True, kw_only=True):
    """One trade, identified by the exchange's own id."""

    symbol_id: SymbolId
    trade_id: Annotated[str, rules.name]
    price: Price
    quantity: Quantity
    side: Annotated[Side, rules.choice(Side)]


class FundingRate(Snapshot, frozen=True, kw_only=True):
    """A perpetual's funding rate (a fraction, 0.0001 is one basis point) and the time it settles at."""

    symbol_id: SymbolId
    funding_rate: Annotated[Decimal, rules.decimal]
    funding_time: Annotated[datetime, rules.instant]
    next_funding_time: Annotated[datetime | None, rules.instant] = None
    mark_price: Annotated[Decimal | None, rules.positive_decimal] = None
    index_price: Annotated[Decimal | None, rules.positive_decimal] = None


class Balance(Snapshot, frozen=True, kw_only=True):
    """The balances of one asset in an account, in units of that asset."""

    exchange_id: ExchangeId
    asset_name: Annotated[str, rules.ticker]
    available_balance: Amount
    locked_balance: Amount = Decimal(0)
    frozen_balance: Amount = Decimal(0)
    borrowing_balance: Amount = Decimal(0)
    interest_balance: Amount = Decimal(0)


class Opportunity(Snapshot, frozen=True, kw_only=True):
    """An observed chance to buy on one exchange and sell on another; `symbol_id` is the symbol bought."""

    symbol_id: SymbolId
    buy_exchange_id: ExchangeId
    sell_exchange_id: ExchangeId
    buy_price: Price
    sell_price: Price
    quantity: Quantity
    spread_bps: Annotated[float, rules.finite]
    net_profit: Annotated[float | None, rules.finite] = None
    duration_ms: Annotated[int | None, rules.count] = None


class OrderFlow(Snapshot, frozen=True, kw_only=True):
    """Order-flow metrics over the `window_seconds` that end at `timestamp`."""

    symbol_id: SymbolId
    window_seconds: Annotated[int, rules.identifier]
    ofi_score: Annotated[float, rules.finite]
    microprice: Price
    mid_price: Price
    spread_bps: Annotated[float, rules.finite]
    book_imbalance: Annotated[float, rules.imbalance]
    trade_imbalance: Annotated[float | None, rules.imbalance] = None


class CollectorStatus(Snapshot, frozen=True, kw_only=True):
    """The state that one collector on one exchange reported."""

    exchange_id: ExchangeId
    collector: Annotated[str, rules.name]
    status: Annotated[CollectorState, rules.choice(CollectorState)]
    messages_per_second: Annotated[float | None, rules.not_negative] = None
    last_message_at: Annotated[datetime | None, rules.instant] = None
    error: Annotated[str | None, rules.text] = None


class Tick(Snapshot, frozen=True, kw_only=True):
    """A bid and ask without sizes, as brokers quote foreign exchange."""

    symbol_id: SymbolId
    bid: Price
    ask: Price
    volume: Annotated[float | None, rules.not_negative] = None
    event_type: Annotated[str | None, rules.text] = None
    use_case: Annotated[str | None, rules.text] = None


class Candle(Snapshot, frozen=True, kw_only=True):
    """Open, high, low and close of the bar of length `timeframe` that begins at `timestamp`.

    `is_closed` says whether the bar has ended. Without it, a bar is closed if it was received after its end.
    """

    ascending: ClassVar[tuple[tuple[str, str], ...]] = (
        ("low", "open"), ("low", "close"), ("open", "high"), ("close", "high"),
    )  # fmt: skip # one line reads better than eight

    symbol_id: SymbolId
    origin: Annotated[Origin, rules.choice(Origin)] = Origin.FEED
    timeframe: Annotated[str, rules.timeframe]
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Annotated[float | None, rules.not_negative] = None
    vwap: Annotated[float | None, rules.positive] = None
    num_trades: Annotated[int | None, rules.count] = None
    is_closed: Annotated[bool | None, rules.flag] = None


if TYPE_CHECKING:
    _Mixin: TypeAlias = Snapshot
else:

    class _Mixin:
        __slots__ = ()

        def __init_subclass__(cls, **_: object) -> None:
            """Ignore the options of a struct."""


# A stored record is its snapshot with names beside the values, so rows that one database returned can be inserted into
# another. The names are mixins: `Record` makes them fields. Type checkers see structs with two bases.
class OfExchange(_Mixin, frozen=True, kw_only=True):
    """The enum value of the exchange."""

    __slots__ = ()
    exchange: str
    created_at: datetime


class OfSymbol(_Mixin, frozen=True, kw_only=True):
    """The enum value of the exchange, and the names of the symbol."""

    __slots__ = ()
    exchange: str
    symbol_base: str
    symbol_quote: str
    exchange_symbol: str
    created_at: datetime


class StoredBookTicker(OfSymbol, BookTicker, frozen=True, kw_only=True):
    """A book ticker as read back."""


class StoredTrade(OfSymbol, Trade, frozen=True, kw_only=True):
    """A trade as read back."""


class StoredFundingRate(OfSymbol, FundingRate, frozen=True, kw_only=True):
    """A funding rate as read back."""


class StoredOpportunity(OfSymbol, Opportunity, frozen=True, kw_only=True):
    """An opportunity as read back; `exchange` and the names belong to the symbol bought."""


class StoredOrderFlow(OfSymbol, OrderFlow, frozen=True, kw_only=True):
    """Order-flow metrics as read back."""


class StoredTick(OfSymbol, Tick, frozen=True, kw_only=True):
    """A tick as read back."""


class StoredCandle(OfSymbol, Candle, frozen=True, kw_only=True):
    """A candle as read back. A bar that has not ended is not `is_closed`."""

    is_closed: bool


class StoredBalance(OfExchange, Balance, frozen=True, kw_only=True):
    """A balance as read back."""


class StoredCollectorStatus(OfExchange, CollectorStatus, frozen=True, kw_only=True):
    """A collector's status as read back."""
