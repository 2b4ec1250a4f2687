"""Operations on continuous aggregates."""

from __future__ import annotations

from dataclasses import field, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from alembic_timescaledb import server
from alembic_timescaledb.names import DeclarationError, quoted, regclass
from alembic_timescaledb.operations.hypertables import SetChunkIntervalOp
from alembic_timescaledb.operations.operation import TimescaleOp, operation
from alembic_timescaledb.server import Feature

# A running refresh is told to stop, and until it has stopped it takes catalog rows from under the DROP.
_DROP = """\
DO $drop$
BEGIN
    FOR attempt IN 1 .. 100 LOOP
        BEGIN
            DROP MATERIALIZED VIEW IF EXISTS {view};
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
class DropContinuousAggregateOp(TimescaleOp):
    """Drop a continuous aggregate, with its computed buckets and its policies.

    Reversed by `op.create_continuous_aggregate`.

        op.drop_continuous_aggregate("trades_1h")
    """

    name = "drop_continuous_aggregate"
    needs = Feature.AGGREGATES
    removes = True
    relation_is = "view"

    def _words(self) -> str:
        return f"drop the continuous aggregate {self.place} with all that it computed"

    def _sql(self) -> list[str]:
        return [_DROP.replace("{view}", quoted(self.relation, self.schema))]


@operation
class CreateContinuousAggregateOp(TimescaleOp):
    """Create a continuous aggregate of the query, WITH NO DATA: a policy or a refresh fills it.

    The query groups a hypertable, or another aggregate, by `time_bucket`. `chunk_interval` None is TimescaleDB's
    choice. Unless `materialized_only`, reading the view adds newer rows to the computed buckets. Only the Community
    edition has aggregates; others get a line in the log. Reversed by `op.drop_continuous_aggregate`.

        op.create_continuous_aggregate(
            "trades_1h",
            "SELECT symbol_id, time_bucket('1 hour', timestamp) AS timestamp, max(price) AS high"
            " FROM trades GROUP BY 1, 2",
        )
    """

    name = "create_continuous_aggregate"
    needs = Feature.AGGREGATES
    undone_by = DropContinuousAggregateOp
    relation_is = "view"

    query: str
    chunk_interval: timedelta | None = field(default=None, kw_only=True)
    materialized_only: bool = field(default=False, kw_only=True)

    def _words(self) -> str:
        return f"create the continuous aggregate {self.place}, empty"

    def is_ready(self, connection: Connection) -> bool:
        """Whether its query reads a hypertable or an aggregate."""
        return server.reads_managed(connection, self.query)

    def _sql(self) -> list[str]:
        only = str(self.materialized_only).lower()
        made = (
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {quoted(self.relation, self.schema)}"
            f" WITH (timescaledb.continuous, timescaledb.materialized_only = {only})"
            f" AS\n{self.query.strip().rstrip(';')}\nWITH NO DATA"
        )
        if self.chunk_interval is None:
            return [made]
        return [made, *SetChunkIntervalOp(self.relation, self.chunk_interval, schema=self.schema).statements()]

    def statements_on(self, connection: Connection) -> list[str]:
        """Return its SQL. Raises DeclarationError if another relation has its name, as the SQL would do nothing."""
        kind = server.other_relation(connection, self.relation, self.schema)
        if kind is not None:
            raise DeclarationError(
                f"continuous aggregate {self.place} cannot be created: there is a {kind} of that name; drop or rename"
                " it, or give the aggregate another name"
            )
        return self._sql()


@operation
class SetMaterializedOnlyOp(TimescaleOp):
    """Let reading an aggregate show only computed buckets (True), or add newer rows to them (False).

    Reversed by its opposite.

        op.set_materialized_only("trades_1h", True)
    """

    name = "set_materialized_only"
    needs = Feature.AGGREGATES
    relation_is = "view"

    materialized_only: bool

    def _words(self) -> str:
        shown = "only what is computed" if self.materialized_only else "also what is not computed yet"
        return f"let {self.place} show {shown}"

    def _sql(self) -> list[str]:
        only = str(self.materialized_only).lower()
        view = quoted(self.relation, self.schema)
        return [f"ALTER MATERIALIZED VIEW {view} SET (timescaledb.materialized_only = {only})"]

    def reverse(self) -> SetMaterializedOnlyOp:
        """Return the opposite."""
        return replace(self, materialized_only=not self.materialized_only)


@operation
class RefreshContinuousAggregateOp(TimescaleOp):
    """Compute the buckets within [since, until) now; `until` None is without a bound.

    `since` None begins with the oldest rows. It keeps buckets that began before the oldest chunk, because a refresh
    would erase the buckets of dropped rows. Offline the chunks are unknown, and it prints NULL.

    No transaction can hold a refresh, so it commits what the migration did before. Give it a revision of its own, or
    make it the last operation of one, and set `transaction_per_migration`. Reversed by nothing: computed buckets do no
    harm.

        op.refresh_continuous_aggregate("trades_1h", since=datetime(2024, 1, 1, tzinfo=UTC))
    """

    name = "refresh_continuous_aggregate"
    needs = Feature.AGGREGATES
    outside = True
    relation_is = "view"

    since: datetime | None = field(default=None, kw_only=True)
    until: datetime | None = field(default=None, kw_only=True)

    def _words(self) -> str:
        return f"compute {self.place} from {self.since or 'the beginning'} to {self.until or 'the end'}"

    def _sql(self) -> list[str]:
        return [server.refresh_call(regclass(self.relation, self.schema), self.since, self.until)]

    def statements_on(self, connection: Connection) -> list[str]:
        """Return its SQL, with a window that keeps the buckets of dropped rows."""
        window = server.refresh_window(connection, self.relation, self.schema, self.since, self.until)
        return [] if window is None else replace(self, since=window[0], until=window[1]).statements()

    def reverse(self) -> TimescaleOp:
        """Raise ValueError: computed buckets stay."""
        raise ValueError(f"{self.name} of {self.place} cannot be reversed: computed buckets stay, and do no harm")
