"""TimescaleDB for SQLAlchemy and Alembic; knows nothing of markets."""

from arbstore.timescale.hypertable import Hypertable, declared, hypertables

__all__ = ["Hypertable", "declared", "hypertables"]
