"""The schema: one class for each table. Reads and writes are in `services`."""

from arbstore.models.base import Base
from arbstore.models.ledger import LateMinute, Ledger
from arbstore.models.reference import Exchange, RetentionOverride, Symbol
from arbstore.models.series import (
    ArbitrageOpportunity,
    BalanceSnapshot,
    BookTickerSnapshot,
    Candle,
    CollectorStatus,
    FundingRateSnapshot,
    OrderFlowMetrics,
    Tick,
    TradeSnapshot,
)

__all__ = [
    "ArbitrageOpportunity",
    "BalanceSnapshot",
    "Base",
    "BookTickerSnapshot",
    "Candle",
    "CollectorStatus",
    "Exchange",
    "FundingRateSnapshot",
    "LateMinute",
    "Ledger",
    "OrderFlowMetrics",
    "RetentionOverride",
    "Symbol",
    "Tick",
    "TradeSnapshot",
]
