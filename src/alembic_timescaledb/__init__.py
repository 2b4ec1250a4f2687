"""TimescaleDB for SQLAlchemy and Alembic: declared on the model, deployed by revisions, compared by autogenerate.

Knows nothing of markets, and works on every edition: plain PostgreSQL, TimescaleDB Apache, TimescaleDB Community.
Here is what models declare. The operations of Alembic are in `operations`, its plugin in `plugin`, what a server has in
`catalog` and `state`, and how it differs from what is declared in `comparison`.
"""

from alembic_timescaledb.aggregate import ContinuousAggregate, Refresh, aggregates, time_bucket
from alembic_timescaledb.checks import check, check_table
from alembic_timescaledb.edition import Edition, Feature
from alembic_timescaledb.errors import DeclarationError
from alembic_timescaledb.hypertable import Columnstore, Hypertable, Space, declared, hypertables

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
