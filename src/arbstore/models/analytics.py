"""What the desk's own programs say: opportunities, order-flow metrics and the state of collectors."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Integer, SmallInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from alembic_timescaledb import Columnstore, Hypertable
from arbstore.models.base import (
    Base,
    ExchangeKey,
    Moment,
    Real,
    ReceivedAt,
    SymbolKey,
    Timestamp,
    above_zero,
    finite,
    not_below_zero,
    one_of,
)
from arbstore.records import CollectorState


class ArbitrageOpportunity(Base):
    """Seen chances to buy on one exchange and sell on another."""

    __tablename__ = "arbitrage_opportunities"
    __table_args__ = (
        *above_zero("buy_price", "sell_price"),
        *not_below_zero("quantity"),
        *finite("spread_bps", "net_profit"),
        CheckConstraint("duration_ms >= 0", name="duration_ms"),
        {
            "comment": "chances to buy on one exchange and sell on another",
            "info": Hypertable(
                timedelta(hours=6),
                retention=timedelta(days=14),
                columnstore=Columnstore(
                    timedelta(days=1), segment_by=["symbol_id", "sell_exchange_id"], order_by=["timestamp DESC"]
                ),
            ).info,
        },
    )

    symbol_id: Mapped[SymbolKey] = mapped_column(comment="the bought symbol: symbols.id")
    sell_exchange_id: Mapped[ExchangeKey]
    timestamp: Mapped[Timestamp]
    buy_exchange_id: Mapped[int] = mapped_column(SmallInteger, ForeignKey("exchanges.id"))
    buy_price: Mapped[Real]
    sell_price: Mapped[Real]
    quantity: Mapped[Real]
    spread_bps: Mapped[Real]
    net_profit: Mapped[Real | None] = mapped_column(comment="in the quote currency, after fees")
    duration_ms: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[ReceivedAt]


class OrderFlowMetrics(Base):
    """Order-flow metrics over a window that ends at the timestamp."""

    __tablename__ = "order_flow_metrics"
    __table_args__ = (
        *above_zero("microprice", "mid_price"),
        *finite("ofi_score", "spread_bps"),
        CheckConstraint("window_seconds > 0", name="window_seconds"),
        CheckConstraint("book_imbalance BETWEEN -1 AND 1", name="book_imbalance"),
        CheckConstraint("trade_imbalance BETWEEN -1 AND 1", name="trade_imbalance"),
        {
            "comment": "order-flow metrics",
            "info": Hypertable(
                timedelta(hours=1),
                retention=timedelta(days=7),
                columnstore=Columnstore(
                    timedelta(days=1), segment_by=["symbol_id", "window_seconds"], order_by=["timestamp DESC"]
                ),
            ).info,
        },
    )

    symbol_id: Mapped[SymbolKey]
    window_seconds: Mapped[int] = mapped_column(Integer, primary_key=True, comment="length of the window")
    timestamp: Mapped[Timestamp]
    ofi_score: Mapped[Real]
    microprice: Mapped[Real]
    mid_price: Mapped[Real]
    spread_bps: Mapped[Real]
    book_imbalance: Mapped[Real]
    trade_imbalance: Mapped[Real | None]
    created_at: Mapped[ReceivedAt]


class CollectorStatus(Base):
    """What collectors say of themselves."""

    __tablename__ = "collector_status"
    __table_args__ = (
        one_of("status", list(CollectorState)),
        *not_below_zero("messages_per_second"),
        {
            "comment": "state of the collectors",
            "info": Hypertable(
                timedelta(hours=6),
                retention=timedelta(days=7),
                columnstore=Columnstore(
                    timedelta(days=1), segment_by=["exchange_id", "collector"], order_by=["timestamp DESC"]
                ),
            ).info,
        },
    )

    exchange_id: Mapped[ExchangeKey]
    collector: Mapped[str] = mapped_column(Text, primary_key=True)
    timestamp: Mapped[Timestamp]
    status: Mapped[str] = mapped_column(Text)
    messages_per_second: Mapped[Real | None]
    last_message_at: Mapped[Moment | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[ReceivedAt]
