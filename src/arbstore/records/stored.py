"""What reads return: a snapshot with the names of its exchange and symbol beside the values.

`exchange` is the enum value. A stored record is one of its snapshot's kind, so what one database returned can be
inserted into another. (The fields are written out: msgspec allows a struct only one base that has fields.)
"""

from __future__ import annotations

from datetime import datetime

from arbstore.records import snapshots


class StoredBookTicker(snapshots.BookTicker, frozen=True, kw_only=True):
    """A book ticker as read back."""

    exchange: str
    symbol_base: str
    symbol_quote: str
    exchange_symbol: str
    created_at: datetime


class StoredTrade(snapshots.Trade, frozen=True, kw_only=True):
    """A trade as read back."""

    exchange: str
    symbol_base: str
    symbol_quote: str
    exchange_symbol: str
    created_at: datetime


class StoredFundingRate(snapshots.FundingRate, frozen=True, kw_only=True):
    """A funding rate as read back."""

    exchange: str
    symbol_base: str
    symbol_quote: str
    exchange_symbol: str
    created_at: datetime


class StoredOpportunity(snapshots.Opportunity, frozen=True, kw_only=True):
    """An opportunity as read back; `exchange` and the names are those of the bought symbol."""

    exchange: str
    symbol_base: str
    symbol_quote: str
    exchange_symbol: str
    created_at: datetime


class StoredOrderFlow(snapshots.OrderFlow, frozen=True, kw_only=True):
    """Order-flow metrics as read back."""

    exchange: str
    symbol_base: str
    symbol_quote: str
    exchange_symbol: str
    created_at: datetime


class StoredTick(snapshots.Tick, frozen=True, kw_only=True):
    """A tick as read back."""

    exchange: str
    symbol_base: str
    symbol_quote: str
    exchange_symbol: str
    created_at: datetime


class StoredCandle(snapshots.Candle, frozen=True, kw_only=True):
    """A candle as read back."""

    exchange: str
    symbol_base: str
    symbol_quote: str
    exchange_symbol: str
    created_at: datetime


class StoredBalance(snapshots.Balance, frozen=True, kw_only=True):
    """A balance as read back."""

    exchange: str
    created_at: datetime


class StoredCollectorStatus(snapshots.CollectorStatus, frozen=True, kw_only=True):
    """A collector's status as read back."""

    exchange: str
    created_at: datetime
