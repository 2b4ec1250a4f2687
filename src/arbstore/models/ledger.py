"""What is made of the rows of a table before they go: the tables behind the candles of trades and quotes.

Revision 0007 explains how they work together. Only its functions write them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, DateTime, Identity, Integer, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from arbstore.models.base import Base, Moment


def _since_beginning(comment: str) -> Any:
    beginning = text("'1970-01-01 00:00+00'")
    return mapped_column(DateTime(timezone=True), server_default=beginning, comment=comment)


class Ledger(Base):
    """The watermarks of each table of which candles are made."""

    __tablename__ = "ledger"
    __table_args__ = ({"comment": "what is made of the rows of each table, before they go"},)

    table_name: Mapped[str] = mapped_column(Text, primary_key=True)
    origin: Mapped[str] = mapped_column(Text, unique=True, comment="of the candles that are made of its rows")
    closed_until: Mapped[Moment] = _since_beginning(
        "rows before it that are inserted from now on leave a mark in late_minutes"
    )
    made_until: Mapped[Moment] = _since_beginning("minutes before it are stored in candles")
    dropped_before: Mapped[Moment] = _since_beginning("rows before it may have been dropped")
    is_frozen: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="no minute before dropped_before was made since the last drop"
    )


class LateMinute(Base):
    """Marks of minutes that get rows after the minutes were made. Marks are only added and removed, never changed."""

    __tablename__ = "late_minutes"
    __table_args__ = ({"comment": "minutes to be made again, because rows came after they were made"},)

    origin: Mapped[str] = mapped_column(Text, primary_key=True)
    symbol_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    minute: Mapped[Moment] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
