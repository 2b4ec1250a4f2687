"""What operators decided about the running store, beside what the models declare."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import CheckConstraint, Interval, Text
from sqlalchemy.orm import Mapped, mapped_column

from arbstore.models.base import Base, CreatedAt


class RetentionOverride(Base):
    """A retention that was set, or lifted, while the store was running; it outlives new versions of the models.

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
