"""One storable record of each kind with all its fields given, and the tables they belong in."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec

from arbstore.errors import ValidationError
from arbstore.models import Base
from arbstore.records import (
    Balance,
    BookTicker,
    Candle,
    CollectorState,
    CollectorStatus,
    FundingRate,
    Opportunity,
    OrderFlow,
    Record,
    Side,
    Snapshot,
    Tick,
    Trade,
    columns,
)
from tests.conftest import NOON

RECEIVED = NOON + timedelta(milliseconds=3)
EIGHTEEN_DECIMALS = Decimal("123456789.123456789012345678")

SAMPLES: dict[type[Snapshot], Snapshot] = {
    type(sample): sample
    for sample in (
        BookTicker(
            timestamp=NOON,
            created_at=RECEIVED,
            symbol_id=1,
            bid_price=60_000.1,
            bid_qty=0.0,
            ask_price=60_000.2,
            ask_qty=12.345678901234567,
        ),
        Trade(
            timestamp=NOON,
            created_at=RECEIVED,
            symbol_id=1,
            trade_id="a-17",
            price=0.00000001,
            quantity=1e9,
            side=Side.SELL,
        ),
        FundingRate(
            timestamp=NOON,
            created_at=RECEIVED,
            symbol_id=1,
            funding_rate=Decimal("-0.000123456789012345"),
            funding_time=NOON + timedelta(hours=4),
            next_funding_time=NOON + timedelta(hours=8),
            mark_price=Decimal("60000.123456789"),
            index_price=Decimal("60000.2"),
        ),
        Balance(
            timestamp=NOON,
            created_at=RECEIVED,
            exchange_id=1,
            asset_name="ETH",
            available_balance=EIGHTEEN_DECIMALS,
            locked_balance=Decimal("1.5"),
            frozen_balance=Decimal("1E-18"),
            borrowing_balance=Decimal(0),
            interest_balance=Decimal(7),
        ),
        Opportunity(
            timestamp=NOON,
            created_at=RECEIVED,
            symbol_id=1,
            buy_exchange_id=1,
            sell_exchange_id=1,
            buy_price=100.0,
            sell_price=101.0,
            quantity=2.0,
            spread_bps=-99.5,
            net_profit=-0.5,
            duration_ms=1_500,
        ),
        OrderFlow(
            timestamp=NOON,
            created_at=RECEIVED,
            symbol_id=1,
            window_seconds=60,
            ofi_score=-12.5,
            microprice=100.25,
            mid_price=100.5,
            spread_bps=-1.0,
            book_imbalance=-1.0,
            trade_imbalance=1.0,
        ),
        CollectorStatus(
            timestamp=NOON,
            created_at=RECEIVED,
            exchange_id=1,
            collector="ws-1",
            status=CollectorState.DEGRADED,
            messages_per_second=0.5,
            last_message_at=NOON - timedelta(seconds=1),
            error="socket closed: 1006",
        ),
        Tick(
            timestamp=NOON,
            created_at=RECEIVED,
            symbol_id=1,
            bid=1.0921,
            ask=1.0922,
            volume=3.0,
            event_type="quote",
            use_case="backtest",
        ),
        Candle(
            timestamp=NOON,
            created_at=RECEIVED,
            symbol_id=1,
            timeframe="1s",
            open=2.0,
            high=4.0,
            low=1.0,
            close=3.0,
            volume=10.0,
            vwap=2.5,
            num_trades=42,
            is_closed=True,
        ),
    )
}

_NAMES: dict[type[Snapshot], tuple[str, str]] = {
    BookTicker: ("book_ticker_snapshots", "book_tickers"),
    Trade: ("trade_snapshots", "trades"),
    FundingRate: ("funding_rate_snapshots", "funding_rates"),
    Balance: ("balance_snapshots", "balances"),
    Opportunity: ("arbitrage_opportunities", "opportunities"),
    OrderFlow: ("order_flow_metrics", "order_flow"),
    CollectorStatus: ("collector_status", "collectors"),
    Tick: ("ticks", "ticks"),
    Candle: ("candles", "candles"),
}
TABLES = {kind: Base.metadata.tables[table] for kind, (table, _) in _NAMES.items()}
SERVICES = {kind: service for kind, (_, service) in _NAMES.items()}  # by their names in a Store

# The paths that a time series can take: of a symbol, of a symbol's part, of an exchange's part; and exact decimals
# with nulls. Each kind's own columns have tests of their own.
REPRESENTATIVES: tuple[type[Snapshot], ...] = (BookTicker, Candle, Balance, FundingRate)


def mapping(record: Record) -> dict[str, Any]:
    return msgspec.structs.asdict(record)


def with_fields(record: Record, **fields: Any) -> dict[str, Any]:
    """Return the record's mapping with other values in it, fit or not."""
    return mapping(record) | fields


def field_names(kind: type[Record]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind)]


def refusal(kind: type[Record], *rows: Any) -> ValidationError | None:
    try:
        columns(kind, rows)
    except ValidationError as error:
        return error
    return None


def place(error: ValidationError | None) -> tuple[int | None, str] | None:
    return None if error is None else (error.row, error.field)
