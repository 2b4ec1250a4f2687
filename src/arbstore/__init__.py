"""Stores and serves what crypto exchanges say: quotes, trades, funding, balances and candles, in PostgreSQL.

`arbstore.X` is a record or a way in; the tables behind them are `arbstore.models.X`, the errors `arbstore.errors`.
The records are imported at once, the ways in, and SQLAlchemy with them, when they are asked for.
"""

from typing import TYPE_CHECKING

from arbstore import lazy
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

if TYPE_CHECKING:
    from arbstore.cache import ReferenceCache
    from arbstore.database import Database, Store
    from arbstore.postgres.upsert import InsertResult
    from arbstore.settings import Settings
else:
    __getattr__, __dir__ = lazy.exports(
        __name__,
        {
            "bulk": ["InsertResult"],
            "cache": ["ReferenceCache"],
            "database": ["Database", "Store"],
            "models": [],
            "settings": ["Settings"],
        },
    )
