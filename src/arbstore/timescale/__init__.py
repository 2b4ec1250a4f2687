"""TimescaleDB for SQLAlchemy and Alembic: declared on the model, deployed by revisions, compared by autogenerate.

Knows nothing of markets, and works on every edition: plain PostgreSQL, TimescaleDB Apache, TimescaleDB Community. The
operations of Alembic are in `arbstore.timescale.operations`, what a server has in `arbstore.timescale.catalog`.
"""

from arbstore.timescale.aggregate import ContinuousAggregate, Refresh, aggregates, time_bucket
from arbstore.timescale.edition import Edition, Feature
from arbstore.timescale.errors import DeclarationError
from arbstore.timescale.hypertable import Columnstore, Hypertable, Space, declared, hypertables

__all__ = [
    "Columnstore",
    "ContinuousAggregate",
    "DeclarationError",
    "Edition",
    "Feature",
    "Hypertable",
    "Refresh",
    "Space",
    "aggregates",
    "declared",
    "hypertables",
    "time_bucket",
]
