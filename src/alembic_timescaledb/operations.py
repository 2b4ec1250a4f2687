"""TimescaleDB's DDL as Alembic operations: importing this module adds them to `op`.

Each operation is safe on every edition. An operation that the edition lacks logs a line instead, and `missing` of
`alembic_timescaledb.compare` finds it later. It also waits if its table is an ordinary one, deployed on plain
PostgreSQL. Offline (`--sql`) operations are printed for the richest edition, or for that of `timescale_edition`.
"""

from __future__ import annotations

from dataclasses import field, replace
from datetime import datetime, timedelta
from typing import ClassVar

from alembic.util import CommandError
from sqlalchemy import Connection

from alembic_timescaledb import server
from alembic_timescaledb.names import DeclarationError, literal, spoken
from alembic_timescaledb.operation import GoneWithRelationOp as GoneWithRelationOp
from alembic_timescaledb.operation import TimescaleOp as TimescaleOp
from alembic_timescaledb.operation import edition_of as edition_of
from alembic_timescaledb.operation import operation
from alembic_timescaledb.policies import AddColumnstorePolicyOp as AddColumnstorePolicyOp
from alembic_timescaledb.policies import AddContinuousAggregatePolicyOp as AddContinuousAggregatePolicyOp
from alembic_timescaledb.policies import AddRetentionJobOp as AddRetentionJobOp
from alembic_timescaledb.policies import AddRetentionPolicyOp as AddRetentionPolicyOp
from alembic_timescaledb.policies import DisableColumnstoreOp as DisableColumnstoreOp
from alembic_timescaledb.policies import EnableColumnstoreOp as EnableColumnstoreOp
from alembic_timescaledb.policies import RemoveColumnstorePolicyOp as RemoveColumnstorePolicyOp
from alembic_timescaledb.policies import RemoveContinuousAggregatePolicyOp as RemoveContinuousAggregatePolicyOp
from alembic_timescaledb.policies import RemoveRetentionJobOp as RemoveRetentionJobOp
from alembic_timescaledb.policies import RemoveRetentionPolicyOp as RemoveRetentionPolicyOp
from alembic_timescaledb.server import Edition, Feature

_ADD_DIMENSION = "run SELECT add_dimension(..., by_hash(...)) by op.execute after it"
_STILL_A_HYPERTABLE = (
    "{place} is a hypertable, and TimescaleDB cannot make it an ordinary table again: copy its rows into a new table by"
    " hand, then run this again"
)
_STEPS = 'the steps are in docs/timescale.md, "From a hypertable back to an ordinary table"'
_REVERT = """\
DO $revert$
BEGIN
    IF EXISTS (SELECT FROM timescaledb_information.hypertables
               WHERE to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = to_regclass({relation})) THEN
        RAISE EXCEPTION USING MESSAGE = {message}, HINT = {steps};
    END IF;
END
$revert$"""
# A running refresh is told to stop, and until it has stopped it takes catalog rows from under the DROP.
_DROP = """\
DO $drop$
BEGIN
    FOR attempt IN 1 .. 100 LOOP
        BEGIN
            DROP MATERIALIZED VIEW IF EXISTS {quoted};
            EXIT;
        EXCEPTION WHEN internal_error THEN
            IF attempt = 100 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
END
$drop$"""


@operation
class RevertHypertableOp(TimescaleOp):
    """Stop the migration if the table is still a hypertable, and name the manual steps: TimescaleDB has no way back."""

    needs = Feature.HYPERTABLES
    removes = True
    words = "make {place} an ordinary table again, by hand"

    def statements(self, connection: Connection | None) -> list[str]:
        """Return SQL that stops. Raises CommandError on a server: it runs on hypertables only."""
        message = _STILL_A_HYPERTABLE.format(place=self.place)
        if connection is not None:
            raise CommandError(f"{message} ({_STEPS})")
        return [self._filled(_REVERT, message=literal(message), steps=literal(_STEPS))]


@operation
class CreateHypertableOp(TimescaleOp):
    """Split a table into chunks by its time.

    A table with rows is refused unless `migrate_data`, which moves them into chunks under a lock. On plain PostgreSQL
    the table stays an ordinary one, and the log says so. TimescaleDB's own index on the time is not created. Reversed
    by dropping the table. There is no other way back: `op.revert_hypertable` names the manual steps.
    """

    needs = Feature.HYPERTABLES
    undone_by = RevertHypertableOp
    refused: ClassVar = {"space_column": _ADD_DIMENSION, "partitions": _ADD_DIMENSION}

    time_column: str
    chunk_interval: timedelta = field(kw_only=True)
    migrate_data: bool = field(default=False, kw_only=True)

    def _words(self) -> str:
        moved = "; its rows move into them" if self.migrate_data else ""
        return f"make {self.place} a hypertable, in chunks of {spoken(self.chunk_interval)}{moved}"

    def is_ready(self, _connection: Connection) -> bool:
        """It works on any table."""
        return True

    def lack(self, edition: Edition) -> str:
        """Return the line for the log: the table stays ordinary."""
        return f"{self.place} stays an ordinary table: {edition} PostgreSQL has no hypertables"

    def statements(self, _connection: Connection | None) -> list[str]:
        """Return its SQL."""
        made = (
            "SELECT create_hypertable({relation}, by_range({time_column}, {chunk_interval}),"
            " create_default_indexes => false, if_not_exists => true"
        )
        return [self._filled(made + (", migrate_data => true)" if self.migrate_data else ")"))]


@operation
class SetChunkIntervalOp(TimescaleOp):
    """Give new chunks another length; existing chunks stay as they are."""

    needs = Feature.HYPERTABLES
    sql = "SELECT set_chunk_time_interval({relation}, {chunk_interval})"

    chunk_interval: timedelta
    before: timedelta | None = field(default=None, kw_only=True, repr=False, compare=False)

    def _words(self) -> str:
        former = f", not {spoken(self.before)}" if self.before else ""
        return f"let new chunks of {self.place} be of {spoken(self.chunk_interval)}{former}"

    def reverse(self) -> SetChunkIntervalOp:
        """Return the setting of the former length."""
        if self.before is None:
            raise ValueError(
                f"the former length of the chunks of {self.place} is not known: set it by another operation"
            )
        return replace(self, chunk_interval=self.before, before=self.chunk_interval)


@operation
class DropContinuousAggregateOp(TimescaleOp):
    """Drop a continuous aggregate, with its computed buckets and its policies."""

    needs = Feature.AGGREGATES
    removes = True
    relation_is = "view"
    words = "drop the continuous aggregate {place} with all that it computed"
    sql = _DROP


@operation
class CreateContinuousAggregateOp(TimescaleOp):
    """Create a continuous aggregate of the query, WITH NO DATA: a policy or a refresh fills it.

    The query groups a hypertable, or another aggregate, by `time_bucket`. `chunk_interval` None is TimescaleDB's
    choice. Unless `materialized_only`, reading the view adds newer rows to the computed buckets.
    """

    needs = Feature.AGGREGATES
    undone_by = DropContinuousAggregateOp
    relation_is = "view"
    words = "create the continuous aggregate {place}, empty"

    query: str
    chunk_interval: timedelta | None = field(default=None, kw_only=True)
    materialized_only: bool = field(default=False, kw_only=True)

    def is_ready(self, connection: Connection) -> bool:
        """Whether its query reads a hypertable or an aggregate."""
        return server.reads_managed(connection, self.query)

    def statements(self, connection: Connection | None) -> list[str]:
        """Return its SQL. Raises DeclarationError if another relation has its name, as the SQL would do nothing."""
        kind = None if connection is None else server.other_relation(connection, self.relation, self.schema)
        if kind is not None:
            raise DeclarationError(
                f"continuous aggregate {self.place} cannot be created: there is a {kind} of that name; drop or rename"
                " it, or give the aggregate another name"
            )
        made = self._filled(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS {quoted} WITH (timescaledb.continuous,"
            " timescaledb.materialized_only = {materialized_only}) AS\n{select}\nWITH NO DATA",
            select=self.query.strip().rstrip(";"),
        )
        if self.chunk_interval is None:
            return [made]
        return [made, *SetChunkIntervalOp(self.relation, self.chunk_interval, schema=self.schema).statements(None)]


@operation
class SetMaterializedOnlyOp(TimescaleOp):
    """Let reading an aggregate show only computed buckets (True), or add newer rows to them (False)."""

    needs = Feature.AGGREGATES
    relation_is = "view"
    sql = "ALTER MATERIALIZED VIEW {quoted} SET (timescaledb.materialized_only = {materialized_only})"

    materialized_only: bool

    def _words(self) -> str:
        shown = "only what is computed" if self.materialized_only else "also what is not computed yet"
        return f"let {self.place} show {shown}"

    def reverse(self) -> SetMaterializedOnlyOp:
        """Return the opposite."""
        return replace(self, materialized_only=not self.materialized_only)


@operation
class RefreshContinuousAggregateOp(TimescaleOp):
    """Compute the buckets within [since, until) now; `until` None is without a bound.

    `since` None keeps the buckets of dropped rows. Offline the chunks are unknown, and it prints NULL. No transaction
    can hold a refresh, so it commits what the migration did before. Give it a revision of its own, and set
    `transaction_per_migration`.
    """

    needs = Feature.AGGREGATES
    outside = True
    relation_is = "view"
    sql = server.REFRESH

    since: datetime | None = field(default=None, kw_only=True)
    until: datetime | None = field(default=None, kw_only=True)

    def _words(self) -> str:
        return f"compute {self.place} from {self.since or 'the beginning'} to {self.until or 'the end'}"

    def statements(self, connection: Connection | None) -> list[str]:
        """Return its SQL, with a window that keeps the buckets of dropped rows."""
        if connection is None:
            return super().statements(None)
        window = server.refresh_window(connection, self.relation, self.schema, self.since, self.until)
        return [] if window is None else replace(self, since=window[0], until=window[1]).statements(None)

    def reverse(self) -> TimescaleOp:
        """Raise ValueError: computed buckets stay."""
        raise ValueError(f"{self.name} of {self.place} cannot be reversed: computed buckets stay, and do no harm")
