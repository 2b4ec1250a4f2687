"""What accounts hold."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from alembic_timescaledb import Columnstore, Hypertable
from arbstore.models.base import Base, Exact, ExchangeKey, ReceivedAt, Timestamp, not_below_zero


class BalanceSnapshot(Base):
    """Balances, exact: they are summed and reconciled, and assets of 18 decimals exist."""

    __tablename__ = "balance_snapshots"
    __table_args__ = (
        *not_below_zero(
            "available_balance", "locked_balance", "frozen_balance", "borrowing_balance", "interest_balance"
        ),
        {
            "comment": "balances of accounts, in units of the asset",
            "info": Hypertable(
                timedelta(hours=6),
                retention=timedelta(days=14),
                columnstore=Columnstore(
                    timedelta(days=1), segment_by=["exchange_id", "asset_name"], order_by=["timestamp DESC"]
                ),
            ).info,
        },
    )

    exchange_id: Mapped[ExchangeKey]
    asset_name: Mapped[str] = mapped_column(Text, primary_key=True)
    timestamp: Mapped[Timestamp]
    available_balance: Mapped[Exact]
    locked_balance: Mapped[Exact]
    frozen_balance: Mapped[Exact]
    borrowing_balance: Mapped[Exact]
    interest_balance: Mapped[Exact]
    created_at: Mapped[ReceivedAt]
