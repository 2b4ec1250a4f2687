"""The declarative base, shared columns, checks that keep NaN and infinity out, and how a time series is declared."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    func,
)
from sqlalchemy.orm import DeclarativeBase, mapped_column

from alembic_timescaledb import Columnstore, Hypertable, RetentionJob


class Base(DeclarativeBase):
    """Base of all models."""

    __table__: ClassVar[Table]
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]
SymbolKey = Annotated[
    int, mapped_column(Integer, ForeignKey("symbols.id"), primary_key=True, comment="the series: symbols.id")
]
ExchangeKey = Annotated[
    int, mapped_column(SmallInteger, ForeignKey("exchanges.id"), primary_key=True, comment="exchanges.id")
]
Timestamp = Annotated[
    datetime, mapped_column(DateTime(timezone=True), primary_key=True, comment="the exchange's clock")
]
CreatedAt = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]
ReceivedAt = Annotated[
    datetime,
    mapped_column(DateTime(timezone=True), server_default=func.now(), comment="when the collector received it"),
]
Real = Annotated[float, mapped_column(Double)]
Exact = Annotated[Decimal, mapped_column(Numeric)]


def above_zero(*columns: str) -> list[CheckConstraint]:
    """Return a check `> 0 AND < 'Infinity'` for each column. To PostgreSQL NaN is the greatest number of all."""
    return [CheckConstraint(f"{name} > 0 AND {name} < 'Infinity'", name=name) for name in columns]


def not_below_zero(*columns: str) -> list[CheckConstraint]:
    """Return a check `>= 0 AND < 'Infinity'` for each column."""
    return [CheckConstraint(f"{name} >= 0 AND {name} < 'Infinity'", name=name) for name in columns]


def finite(*columns: str) -> list[CheckConstraint]:
    """Return a check that the column is neither NaN nor infinite, for each column."""
    return [CheckConstraint(f"{name} > '-Infinity' AND {name} < 'Infinity'", name=name) for name in columns]


def one_of(column: str, options: list[str]) -> CheckConstraint:
    """Return a check that the column holds one of the texts."""
    listed = ", ".join(f"'{option}'" for option in options)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def series_table(
    *checks: CheckConstraint,
    comment: str,
    chunk: timedelta,
    retention: timedelta | None = None,
    retention_job: RetentionJob | None = None,
    columnstore: Columnstore | None = None,
) -> tuple[Any, ...]:
    """Return the `__table_args__` of a time series. Without `retention`, its rows are kept forever."""
    hypertable = Hypertable(chunk, retention=retention, retention_job=retention_job, columnstore=columnstore)
    return (*checks, {"comment": comment, "info": hypertable.info})
