"""Immutable records in and out, and `columns`, which turns a batch of them into checked columns."""

from arbstore.records.base import Record
from arbstore.records.batch import columns
from arbstore.records.reference import Exchange, Listing, MarketType, Symbol, SymbolType
from arbstore.records.snapshots import (
    Balance,
    BookTicker,
    Candle,
    CollectorState,
    CollectorStatus,
    FundingRate,
    Opportunity,
    OrderFlow,
    Side,
    Snapshot,
    Tick,
    Trade,
)
from arbstore.records.stored import (
    StoredBalance,
    StoredBookTicker,
    StoredCandle,
    StoredCollectorStatus,
    StoredFundingRate,
    StoredOpportunity,
    StoredOrderFlow,
    StoredTick,
    StoredTrade,
)
from arbstore.records.timeframes import CandleSource, Timeframe

__all__ = [
    "Balance",
    "BookTicker",
    "Candle",
    "CandleSource",
    "CollectorState",
    "CollectorStatus",
    "Exchange",
    "FundingRate",
    "Listing",
    "MarketType",
    "Opportunity",
    "OrderFlow",
    "Record",
    "Side",
    "Snapshot",
    "StoredBalance",
    "StoredBookTicker",
    "StoredCandle",
    "StoredCollectorStatus",
    "StoredFundingRate",
    "StoredOpportunity",
    "StoredOrderFlow",
    "StoredTick",
    "StoredTrade",
    "Symbol",
    "SymbolType",
    "Tick",
    "Timeframe",
    "Trade",
    "columns",
]
