"""Stores and serves what crypto exchanges say: quotes, trades, funding, balances and candles, in PostgreSQL.

`arbstore.X` is a record or a way in; the tables behind them are `arbstore.models.X`, the errors `arbstore.errors`.
"""

from arbstore.bulk import InsertResult
from arbstore.cache import ReferenceCache
from arbstore.database import Database, Store
from arbstore.errors import ArbstoreError
from arbstore.records import (
    Balance,
    BookTicker,
    Candle,
    CandleSource,
    CollectorState,
    CollectorStatus,
    Exchange,
    FundingRate,
    Listing,
    MarketType,
    Opportunity,
    OrderFlow,
    Side,
    StoredBalance,
    StoredBookTicker,
    StoredCandle,
    StoredCollectorStatus,
    StoredFundingRate,
    StoredOpportunity,
    StoredOrderFlow,
    StoredTick,
    StoredTrade,
    Symbol,
    SymbolType,
    Tick,
    Trade,
)
from arbstore.settings import Settings

__all__ = [
    "ArbstoreError",
    "Balance",
    "BookTicker",
    "Candle",
    "CandleSource",
    "CollectorState",
    "CollectorStatus",
    "Database",
    "Exchange",
    "FundingRate",
    "InsertResult",
    "Listing",
    "MarketType",
    "Opportunity",
    "OrderFlow",
    "ReferenceCache",
    "Settings",
    "Side",
    "Store",
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
    "Trade",
]
