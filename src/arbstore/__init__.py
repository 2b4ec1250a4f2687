"""Stores and serves the data of crypto exchanges: quotes, trades, funding, balances and candles, in PostgreSQL.

The records, `Database` and `Store` are here. The tables are in `arbstore.models`, the errors in `arbstore.errors`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from arbstore.errors import ArbstoreError
from arbstore.records import (
    Balance,
    BookTicker,
    Candle,
    CollectorState,
    CollectorStatus,
    Exchange,
    FundingRate,
    Listing,
    MarketType,
    Opportunity,
    OrderFlow,
    Origin,
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
    "Origin",
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
    from arbstore.database import Database
    from arbstore.postgres.upsert import InsertResult
    from arbstore.services.store import Store
    from arbstore.settings import Settings
else:
    # These bring SQLAlchemy, which takes longer to import than `arbstore --help` takes in all.
    _LATER = {
        "Database": "arbstore.database",
        "InsertResult": "arbstore.postgres.upsert",
        "ReferenceCache": "arbstore.cache",
        "Settings": "arbstore.settings",
        "Store": "arbstore.services.store",
    }

    def __getattr__(name):
        """Import a name of `__all__` when it is first used, and the module of tables likewise."""
        if name == "models":
            return import_module("arbstore.models")
        if name not in _LATER:
            raise AttributeError(f"module 'arbstore' has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_LATER[name]), name)
        return found
