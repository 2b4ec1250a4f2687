"""TimescaleDB for SQLAlchemy and Alembic: declared on the model, deployed by revisions, compared by autogenerate.

Knows nothing of markets, and works on every edition: plain PostgreSQL, TimescaleDB Apache, TimescaleDB Community.
Here is what models declare. The operations of Alembic are in `operations`, its plugin in `plugin`, what a server has is
read by `server`, compared with what is declared by `compare`, and brought up to it by `upgrade`.
"""

from alembic_timescaledb.aggregate import ContinuousAggregate, Refresh, aggregates, time_bucket
from alembic_timescaledb.declare import Columnstore, Hypertable, Space, check, check_table, declared, hypertables
from alembic_timescaledb.names import DeclarationError
from alembic_timescaledb.server import Edition, Feature

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
    "check",
    "check_table",
    "declared",
    "hypertables",
    "time_bucket",
]
