"""TimescaleDB for SQLAlchemy and Alembic: declared on models, deployed by revisions, compared by autogenerate.

It works on every edition: plain PostgreSQL, TimescaleDB Apache, TimescaleDB Community. This module has what models
declare. `operations` adds functions to Alembic's `op`, `server` reads a server, `compare` compares the two, and
`upgrade` brings a deployed database up to a richer server. `plugin` is Alembic's plugin.
"""

from alembic_timescaledb.aggregate import ContinuousAggregate as ContinuousAggregate
from alembic_timescaledb.aggregate import Refresh as Refresh
from alembic_timescaledb.aggregate import aggregates as aggregates
from alembic_timescaledb.aggregate import time_bucket as time_bucket
from alembic_timescaledb.catalog import Edition as Edition
from alembic_timescaledb.catalog import Feature as Feature
from alembic_timescaledb.declare import Columnstore as Columnstore
from alembic_timescaledb.declare import Hypertable as Hypertable
from alembic_timescaledb.declare import RetentionJob as RetentionJob
from alembic_timescaledb.declare import check as check
from alembic_timescaledb.declare import check_table as check_table
from alembic_timescaledb.declare import declared as declared
from alembic_timescaledb.declare import hypertables as hypertables
from alembic_timescaledb.names import DeclarationError as DeclarationError


def __getattr__(name: str) -> object:
    if name == "Space":
        raise ImportError("Space is not supported: call add_dimension by op.execute, after op.create_hypertable")
    raise AttributeError(f"module {__name__} has no attribute {name}")
