"""`op.create_continuous_aggregate`, its reversal, what can be altered of one, and its refresh by hand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from alembic.operations import Operations
from sqlalchemy import Connection

from alembic_timescaledb import server
from alembic_timescaledb.names import DeclarationError, quoted, regclass
from alembic_timescaledb.operations.hypertables import SetChunkIntervalOp
from alembic_timescaledb.operations.operation import TimescaleOp, known
from alembic_timescaledb.server import Feature

# A refresh that is under way is told to stop, and takes catalog rows from under the DROP until it has.
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


@Operations.register_operation("create_continuous_aggregate")
@dataclass(frozen=True)
class CreateContinuousAggregateOp(TimescaleOp):
    """Create a continuous aggregate, empty."""

    name = "create_continuous_aggregate"
    needs = Feature.AGGREGATES

    relation: str
    query: str
    chunk_interval: timedelta | None = field(default=None, kw_only=True)
    materialized_only: bool = field(default=False, kw_only=True)
    schema: str | None = field(default=None, kw_only=True)

    @classmethod
    def create_continuous_aggregate(
        cls,
        operations: Operations,
        view: str,
        query: str,
        *,
        chunk_interval: timedelta | None = None,
        materialized_only: bool = False,
        schema: str | None = None,
    ) -> None:
        """Create a continuous aggregate of the query, WITH NO DATA: a policy fills it, or a refresh.

        The query groups a hypertable, or another aggregate, by `time_bucket`. `chunk_interval` None is TimescaleDB's
        choice. Unless `materialized_only`, reading the view adds what is not computed yet. Only the Community edition
        has it; others get a line in the log.

            op.create_continuous_aggregate(
                "trades_1h",
                "SELECT symbol_id, time_bucket('1 hour', timestamp) AS timestamp, max(price) AS high"
                " FROM trades GROUP BY 1, 2",
            )

        Reversed by `op.drop_continuous_aggregate`.
        """
        operations.invoke(
            cls(view, query, chunk_interval=chunk_interval, materialized_only=materialized_only, schema=schema)
        )

    def __str__(self) -> str:
        """Say it."""
        return f"create the continuous aggregate {self.place}, empty"

    def is_ready(self, connection: Connection) -> bool:
        """Whether what it reads is a hypertable or an aggregate."""
        return server.reads_managed(connection, self.query)

    def statements(self) -> list[str]:
        """Return its SQL."""
        only = str(self.materialized_only).lower()
        made = [
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {quoted(self.relation, self.schema)}"
            f" WITH (timescaledb.continuous, timescaledb.materialized_only = {only})"
            f" AS\n{self.query.strip().rstrip(';')}\nWITH NO DATA"
        ]
        if self.chunk_interval is not None:
            made += SetChunkIntervalOp(self.relation, self.chunk_interval, schema=self.schema).statements()
        return made

    def statements_on(self, connection: Connection) -> list[str]:
        """Return its SQL. Raises DeclarationError where something else has its name, which would be passed over."""
        kind = server.other_relation(connection, self.relation, self.schema)
        if kind is not None:
            raise DeclarationError(
                f"continuous aggregate {self.place} cannot be created: there is a {kind} of that name; drop or rename"
                " it, or give the aggregate another name"
            )
        return self.statements()

    def reverse(self) -> DropContinuousAggregateOp:
        """Return its end."""
        return DropContinuousAggregateOp(self.relation, schema=self.schema, former=self)


@Operations.register_operation("drop_continuous_aggregate")
@dataclass(frozen=True)
class DropContinuousAggregateOp(TimescaleOp):
    """Undo `create_continuous_aggregate`."""

    name = "drop_continuous_aggregate"
    needs = Feature.AGGREGATES
    removes = True

    relation: str
    schema: str | None = field(default=None, kw_only=True)
    former: CreateContinuousAggregateOp | None = field(default=None, kw_only=True, repr=False, compare=False)

    @classmethod
    def drop_continuous_aggregate(cls, operations: Operations, view: str, *, schema: str | None = None) -> None:
        """Drop a continuous aggregate, with what it computed and its policies.

            op.drop_continuous_aggregate("trades_1h")

        Reversed by `op.create_continuous_aggregate`.
        """
        operations.invoke(cls(view, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        return f"drop the continuous aggregate {self.place} with all that it computed"

    def statements(self) -> list[str]:
        """Return its SQL."""
        return [_DROP.replace("{view}", quoted(self.relation, self.schema))]

    def reverse(self) -> CreateContinuousAggregateOp:
        """Return what was there."""
        return known(self, self.former)


@Operations.register_operation("set_materialized_only")
@dataclass(frozen=True)
class SetMaterializedOnlyOp(TimescaleOp):
    """Let reading an aggregate add what is not computed yet, or not."""

    name = "set_materialized_only"
    needs = Feature.AGGREGATES

    relation: str
    materialized_only: bool
    schema: str | None = field(default=None, kw_only=True)

    @classmethod
    def set_materialized_only(
        cls, operations: Operations, view: str, materialized_only: bool, *, schema: str | None = None
    ) -> None:
        """Let reading an aggregate add what is not computed yet (False), or only show what is (True).

            op.set_materialized_only("trades_1h", True)

        Reversed by its opposite.
        """
        operations.invoke(cls(view, materialized_only, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        shown = "only what is computed" if self.materialized_only else "also what is not computed yet"
        return f"let {self.place} show {shown}"

    def statements(self) -> list[str]:
        """Return its SQL."""
        only = str(self.materialized_only).lower()
        view = quoted(self.relation, self.schema)
        return [f"ALTER MATERIALIZED VIEW {view} SET (timescaledb.materialized_only = {only})"]

    def reverse(self) -> SetMaterializedOnlyOp:
        """Return the opposite."""
        return replace(self, materialized_only=not self.materialized_only)


@Operations.register_operation("refresh_continuous_aggregate")
@dataclass(frozen=True)
class RefreshContinuousAggregateOp(TimescaleOp):
    """Compute an aggregate's buckets now, outside the transaction."""

    name = "refresh_continuous_aggregate"
    needs = Feature.AGGREGATES
    outside = True

    relation: str
    since: datetime | None = field(default=None, kw_only=True)
    until: datetime | None = field(default=None, kw_only=True)
    schema: str | None = field(default=None, kw_only=True)

    @classmethod
    def refresh_continuous_aggregate(
        cls,
        operations: Operations,
        view: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        schema: str | None = None,
    ) -> None:
        """Compute the buckets within [since, until) now; `until` None is without a bound.

        `since` None begins with the oldest rows, and leaves buckets that began before the oldest chunk as they are: a
        refresh over dropped rows would erase what they made. Offline nothing is known of chunks, and NULL is printed.

        It commits what the migration did so far, for no transaction can hold a refresh: give it a revision of its own,
        or let it be the last operation of one, and set `transaction_per_migration`.

            op.refresh_continuous_aggregate("trades_1h", since=datetime(2024, 1, 1, tzinfo=UTC))

        Reversed by nothing: computed buckets do no harm.
        """
        operations.invoke(cls(view, since=since, until=until, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        return f"compute {self.place} from {self.since or 'the beginning'} to {self.until or 'the end'}"

    def statements(self) -> list[str]:
        """Return its SQL."""
        return [server.refresh_call(regclass(self.relation, self.schema), self.since, self.until)]

    def statements_on(self, connection: Connection) -> list[str]:
        """Return its SQL, off what was made of rows that are dropped."""
        window = server.refresh_window(connection, self.relation, self.schema, self.since, self.until)
        return [] if window is None else replace(self, since=window[0], until=window[1]).statements()

    def reverse(self) -> TimescaleOp:
        """Raise ValueError: what is computed stays."""
        raise ValueError(f"{self.name} of {self.place} cannot be reversed: what is computed stays, and does no harm")
