"""Exchanges, symbols, and retention set by operators: small tables, from which exchanges and symbols never go."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, Integer, Interval, SmallInteger, Text, text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.elements import conv

from arbstore.models.base import Base, CreatedAt, Moment, Real, above_zero, one_of
from arbstore.records import MarketType, SymbolType


class Exchange(Base):
    """One market of one exchange."""

    __tablename__ = "exchanges"
    __table_args__ = (
        # One text names exchange and market, so settings, logs and queries can all use BINANCE_SPOT.
        CheckConstraint(
            "enum_value = exchange_name || '_' || market_type AND enum_value ~ '^[A-Z0-9]+(_[A-Z0-9]+)+$'",
            name=conv("chk_enum_format"),
        ),
        one_of("market_type", list(MarketType)),
        {"comment": "markets of exchanges, such as BINANCE_SPOT"},
    )

    id: Mapped[int] = mapped_column(SmallInteger, Identity(always=False), primary_key=True)
    enum_value: Mapped[str] = mapped_column(Text, unique=True, comment="{EXCHANGE_NAME}_{MARKET_TYPE}")
    exchange_name: Mapped[str] = mapped_column(Text)
    market_type: Mapped[str] = mapped_column(Text)
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[CreatedAt]


class Symbol(Base):
    """A symbol of an exchange. A delisted symbol stays, inactive, because its history refers to it."""

    __tablename__ = "symbols"
    __table_args__ = (
        CheckConstraint("symbol_base = upper(symbol_base) AND symbol_quote = upper(symbol_quote)", name="upper_case"),
        one_of("symbol_type", list(SymbolType)),
        *above_zero("contract_size"),
        # Exchanges reuse names after a delisting, so a name is unique among active symbols only.
        Index(
            "uq_symbols_active_exchange_symbol",
            "exchange_id",
            "exchange_symbol",
            unique=True,
            postgresql_where=text("is_active"),
        ),
        Index(
            "uq_symbols_active_pair",
            "exchange_id",
            "symbol_base",
            "symbol_quote",
            "symbol_type",
            "expiry",
            unique=True,
            postgresql_nulls_not_distinct=True,
            postgresql_where=text("is_active"),
        ),
        {"comment": "what is traded on each exchange"},
    )

    id: Mapped[int] = mapped_column(Integer, Identity(always=False), primary_key=True)
    exchange_id: Mapped[int] = mapped_column(SmallInteger, ForeignKey("exchanges.id"))
    symbol_base: Mapped[str] = mapped_column(Text)
    symbol_quote: Mapped[str] = mapped_column(Text)
    exchange_symbol: Mapped[str] = mapped_column(Text, comment="the exchange's own spelling")
    symbol_type: Mapped[str] = mapped_column(Text)
    expiry: Mapped[Moment | None] = mapped_column(comment="of dated contracts")
    contract_size: Mapped[Real | None] = mapped_column(
        comment="worth of one contract: base units (linear) or quote units (inverse)"
    )
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    listed_at: Mapped[Moment | None]
    delisted_at: Mapped[Moment | None]
    created_at: Mapped[CreatedAt]


class RetentionOverride(Base):
    """A retention that an operator set. It wins over the model, also over later versions of it.

    A table without a row here is kept as long as its model declares.
    """

    __tablename__ = "retention_overrides"
    __table_args__ = (
        CheckConstraint("keep_for > INTERVAL '0'", name="keep_for"),
        {"comment": "retention set by operators: it wins over what the models declare"},
    )

    table_name: Mapped[str] = mapped_column(Text, primary_key=True)
    keep_for: Mapped[timedelta | None] = mapped_column(Interval, comment="null: for good")
    created_at: Mapped[CreatedAt]
