"""TimescaleDB for SQLAlchemy and Alembic: declared on models, deployed by revisions, compared by autogenerate.

It works on every edition: plain PostgreSQL, TimescaleDB Apache, TimescaleDB Community. This module has what models
declare. `operations` adds functions to Alembic's `op`, `server` reads a server, `compare` compares the two, and
`upgrade` brings a deployed database up to a richer server. `plugin` is Alembic's plugin.
"""

from alembic_timescaledb.aggregate import ContinuousAggregate, Refresh, aggregates, time_bucket
from alembic_timescaledb.declare import Columnstore, Hypertable, check, check_table, declared, hypertables
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
    "aggregates",
    "check",
    "check_table",
    "declared",
    "hypertables",
    "time_bucket",
]


def __getattr__(name: str) -> object:
    if name == "Space":
        raise ImportError("Space is not supported: call add_dimension by op.execute, after op.create_hypertable")
    raise AttributeError(f"module {__name__} has no attribute {name}")
