"""`op.create_continuous_aggregate`, `op.add_continuous_aggregate_policy`, their reversals, and the refresh by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from alembic.operations import Operations
from sqlalchemy import Connection

from arbstore.timescale import catalog
from arbstore.timescale.catalog import Feature
from arbstore.timescale.intervals import interval, spoken
from arbstore.timescale.operations.operation import TimescaleOp, known, quoted, regclass


@Operations.register_operation("create_continuous_aggregate")
@dataclass(frozen=True)
class CreateContinuousAggregateOp(TimescaleOp):
    """Create a continuous aggregate, empty."""

    name = "create_continuous_aggregate"
    needs = Feature.AGGREGATES

    relation: str
    query: str
    materialized_only: bool = field(default=False, kw_only=True)
    schema: str | None = field(default=None, kw_only=True)

    @classmethod
    def create_continuous_aggregate(
        cls,
        operations: Operations,
        view: str,
        query: str,
        *,
        materialized_only: bool = False,
        schema: str | None = None,
    ) -> None:
        """Create a continuous aggregate of the query, WITH NO DATA: a policy, or `timescale.refresh`, fills it.

        The query groups a hypertable, or another aggregate, by `time_bucket`. Unless `materialized_only`, reading the
        view adds what is not computed yet. Only the Community edition has it; others get a line in the log.

            op.create_continuous_aggregate(
                "trades_1h",
                "SELECT symbol_id, time_bucket('1 hour', timestamp) AS timestamp, max(price) AS high"
                " FROM trades GROUP BY 1, 2",
            )

        Reversed by `op.drop_continuous_aggregate`.
        """
        operations.invoke(cls(view, query, materialized_only=materialized_only, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        return f"create the continuous aggregate {self.place}, empty"

    def is_ready(self, connection: Connection) -> bool:
        """Whether what it reads is a hypertable or an aggregate."""
        return catalog.reads_managed(connection, self.query)

    def statements(self) -> list[str]:
        """Return its SQL."""
        only = str(self.materialized_only).lower()
        return [
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {quoted(self.relation, self.schema)}"
            f" WITH (timescaledb.continuous, timescaledb.materialized_only = {only})"
            f" AS\n{self.query.strip().rstrip(';')}\nWITH NO DATA"
        ]

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
        return [f"DROP MATERIALIZED VIEW IF EXISTS {quoted(self.relation, self.schema)}"]

    def reverse(self) -> CreateContinuousAggregateOp:
        """Return what was there."""
        return known(self, self.former)


@Operations.register_operation("add_continuous_aggregate_policy")
@dataclass(frozen=True)
class AddContinuousAggregatePolicyOp(TimescaleOp):
    """Let the server refresh an aggregate."""

    name = "add_continuous_aggregate_policy"
    needs = Feature.AGGREGATES

    relation: str
    start_offset: timedelta | None = field(kw_only=True)
    end_offset: timedelta = field(kw_only=True)
    every: timedelta = field(kw_only=True)
    schema: str | None = field(default=None, kw_only=True)

    @classmethod
    def add_continuous_aggregate_policy(
        cls,
        operations: Operations,
        view: str,
        *,
        start_offset: timedelta | None,
        end_offset: timedelta,
        every: timedelta,
        schema: str | None = None,
    ) -> None:
        """Let the server compute anew, each `every`, what lies from `start_offset` to `end_offset` before now.

        `start_offset` None begins with the oldest row. A policy that is there stays.

            op.add_continuous_aggregate_policy(
                "trades_1h",
                start_offset=timedelta(days=1),
                end_offset=timedelta(hours=1),
                every=timedelta(minutes=30),
            )

        Reversed by `op.remove_continuous_aggregate_policy`.
        """
        operations.invoke(cls(view, start_offset=start_offset, end_offset=end_offset, every=every, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        start = "the beginning" if self.start_offset is None else f"{spoken(self.start_offset)} ago"
        end = f"{spoken(self.end_offset)} ago" if self.end_offset else "now"
        return f"refresh {self.place} every {spoken(self.every)}, from {start} to {end}"

    def statements(self) -> list[str]:
        """Return its SQL."""
        start = "NULL" if self.start_offset is None else interval(self.start_offset)
        return [
            f"SELECT add_continuous_aggregate_policy({regclass(self.relation, self.schema)}, start_offset => {start},"
            f" end_offset => {interval(self.end_offset)}, schedule_interval => {interval(self.every)},"
            " if_not_exists => true)"
        ]

    def reverse(self) -> RemoveContinuousAggregatePolicyOp:
        """Return its removal."""
        return RemoveContinuousAggregatePolicyOp(self.relation, schema=self.schema, former=self)


@Operations.register_operation("remove_continuous_aggregate_policy")
@dataclass(frozen=True)
class RemoveContinuousAggregatePolicyOp(TimescaleOp):
    """Undo `add_continuous_aggregate_policy`."""

    name = "remove_continuous_aggregate_policy"
    needs = Feature.AGGREGATES
    removes = True

    relation: str
    schema: str | None = field(default=None, kw_only=True)
    former: AddContinuousAggregatePolicyOp | None = field(default=None, kw_only=True, repr=False, compare=False)

    @classmethod
    def remove_continuous_aggregate_policy(
        cls, operations: Operations, view: str, *, schema: str | None = None
    ) -> None:
        """Refresh the aggregate no more by itself.

            op.remove_continuous_aggregate_policy("trades_1h")

        Reversed by `op.add_continuous_aggregate_policy`.
        """
        operations.invoke(cls(view, schema=schema))

    def __str__(self) -> str:
        """Say it."""
        return f"refresh {self.place} no more"

    def statements(self) -> list[str]:
        """Return its SQL."""
        return [f"SELECT remove_continuous_aggregate_policy({regclass(self.relation, self.schema)}, if_exists => true)"]

    def reverse(self) -> AddContinuousAggregatePolicyOp:
        """Return the policy that was there."""
        return known(self, self.former)


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
        """Compute the buckets within [since, until) now; None is without a bound.

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
        return [catalog.refresh_call(regclass(self.relation, self.schema), self.since, self.until)]
