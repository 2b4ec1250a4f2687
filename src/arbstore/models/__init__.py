"""What the schema is: one class a table. Reads and writes live in `services`."""

from arbstore.models.account import BalanceSnapshot
from arbstore.models.analytics import ArbitrageOpportunity, CollectorStatus, OrderFlowMetrics
from arbstore.models.base import Base
from arbstore.models.market import BookTickerSnapshot, Candle, FundingRateSnapshot, Tick, TradeSnapshot
from arbstore.models.reference import Exchange, Symbol
from arbstore.models.retention import RetentionOverride
from arbstore.models.rollups import CandleRollup

__all__ = [
    "ArbitrageOpportunity",
    "BalanceSnapshot",
    "Base",
    "BookTickerSnapshot",
    "Candle",
    "CandleRollup",
    "CollectorStatus",
    "Exchange",
    "FundingRateSnapshot",
    "OrderFlowMetrics",
    "RetentionOverride",
    "Symbol",
    "Tick",
    "TradeSnapshot",
]
