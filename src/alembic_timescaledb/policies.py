"""Operations on columnstores and on policies: the jobs that drop rows, fill columnstores and refresh aggregates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import ClassVar

from sqlalchemy import Connection

from alembic_timescaledb.catalog import Edition, Feature, policies_by_creation
from alembic_timescaledb.declare import Order
from alembic_timescaledb.names import literal, quoted, spoken
from alembic_timescaledb.operation import TimescaleOp, operation


@dataclass(frozen=True)
class _OnColumnstore(TimescaleOp):
    needs = Feature.COLUMNSTORE

    aggregate: bool = field(default=False, kw_only=True)

    def _altered(self, *settings: str) -> str:
        kind = "MATERIALIZED VIEW" if self.aggregate else "TABLE"
        return f"ALTER {kind} {quoted(self.relation, self.schema)} SET ({', '.join(settings)})"


@operation
class DisableColumnstoreOp(_OnColumnstore):
    """Store chunks by row again. Chunks in the columnstore are converted first, which may take long."""

    removes = True
    words = "store {place} by row again"

    def statements(self, connection: Connection | None) -> list[str]:
        """Return its SQL; a lock keeps the policy's job from converting chunks again meanwhile."""
        is_table = connection is not None and not self.aggregate
        return [
            *([self._filled("LOCK TABLE ONLY {quoted} IN ACCESS EXCLUSIVE MODE")] if is_table else []),
            self._filled("SELECT decompress_chunk(chunk, if_compressed => true) FROM show_chunks({relation}) chunk"),
            self._altered("timescaledb.enable_columnstore = false"),
        ]


@operation
class EnableColumnstoreOp(_OnColumnstore):
    """Let chunks be stored by column, rows grouped by `segment_by` and sorted by `order_by` (by default by time).

    It can be repeated with other columns: chunks in the columnstore stay as they are. `aggregate` says that `table` is
    a continuous aggregate.
    """

    undone_by = DisableColumnstoreOp

    segment_by: Sequence[str] = field(default=(), kw_only=True)
    order_by: Sequence[str] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        """Take any sequences of names."""
        object.__setattr__(self, "segment_by", tuple(self.segment_by))
        object.__setattr__(self, "order_by", tuple(self.order_by))

    def _words(self) -> str:
        by = f" by {', '.join(self.segment_by)}" if self.segment_by else ""
        along = f" along {', '.join(self.order_by)}" if self.order_by else ""
        return f"store {self.place} by column{by}{along}"

    def statements(self, _connection: Connection | None) -> list[str]:
        """Return its SQL."""
        segments = literal(", ".join(map(quoted, self.segment_by)))
        settings = ["timescaledb.enable_columnstore = true", f"timescaledb.segmentby = {segments}"]
        if self.order_by:
            settings.append(f"timescaledb.orderby = {literal(', '.join(map(_sorted_by, self.order_by)))}")
        return [self._altered(*settings)]

    def reverse(self) -> TimescaleOp:
        """Return the former settings if there were any, else the end of the columnstore."""
        if isinstance(self.former, EnableColumnstoreOp) and not self.with_relation:
            return replace(self.former, former=self, with_relation=False)
        return super().reverse()


def _sorted_by(words: str) -> str:
    order = Order.parse(words)
    way = "DESC" if order.descending else "ASC"
    return f"{quoted(order.column)} {way} NULLS {'FIRST' if order.nulls_first else 'LAST'}"


@operation
class RemoveRetentionPolicyOp(TimescaleOp):
    """Stop dropping chunks by age; `table` may be an aggregate."""

    needs = Feature.RETENTION
    removes = True
    words = "drop no rows of {place} any more"
    sql = "SELECT remove_retention_policy({relation}, if_exists => true)"


@operation
class RemoveColumnstorePolicyOp(TimescaleOp):
    """Stop moving chunks to the columnstore; the chunks in it stay there."""

    needs = Feature.COLUMNSTORE
    removes = True
    words = "move no more rows of {place} to the columnstore"
    sql = "CALL remove_columnstore_policy({relation}, if_exists => true)"


@operation
class RemoveContinuousAggregatePolicyOp(TimescaleOp):
    """Stop refreshing the aggregate."""

    needs = Feature.AGGREGATES
    removes = True
    relation_is = "view"
    words = "refresh {place} no more"
    sql = "SELECT remove_continuous_aggregate_policy({relation}, if_exists => true)"


@dataclass(frozen=True)
class _PolicyByAge(TimescaleOp):
    procedure: ClassVar[str]

    def statements(self, connection: Connection | None) -> list[str]:
        """Return its SQL; it replaces a policy that goes by the creation of chunks."""
        by_creation = policies_by_creation(connection, self.relation, self.schema) if connection is not None else ()
        former = self.reverse().statements(None) if self.procedure in by_creation else []
        return [*former, *super().statements(connection)]


@operation
class AddRetentionPolicyOp(_PolicyByAge):
    """Let the server drop chunks whose rows are all older than `drop_after`; `table` may be an aggregate.

    An existing policy stays, unless it goes by the creation of chunks: then this one replaces it.
    """

    needs = Feature.RETENTION
    undone_by = RemoveRetentionPolicyOp
    procedure = "policy_retention"
    words = "drop rows of {place} after {drop_after}"
    sql = "SELECT add_retention_policy({relation}, drop_after => {drop_after}, if_not_exists => true)"

    drop_after: timedelta = field(kw_only=True)

    def lack(self, edition: Edition) -> str:
        """Return the line for the log: nothing drops the rows."""
        return f"{self.place} gets no retention policy ({spoken(self.drop_after)}): the {edition} edition runs no jobs"


_JOBS = (
    " FROM timescaledb_information.jobs WHERE proc_name = {procedure} AND config ->> 'table' = {table}"
    " AND config ->> 'schema' = {schema}"
)


@dataclass(frozen=True)
class _OnRetentionJob(TimescaleOp):
    needs = Feature.RETENTION

    procedure: str

    def statements(self, _connection: Connection | None) -> list[str]:
        """Return its SQL."""
        run = literal(quoted(self.procedure))
        schema = "current_schema()" if self.schema is None else literal(self.schema)
        return [self._filled(self.sql, run=run, table=literal(self.relation), schema=schema)]


@operation
class RemoveRetentionJobOp(_OnRetentionJob):
    """Delete the job of a procedure of yours that drops rows of the table."""

    removes = True
    words = "let {procedure} drop no rows of {place} any more"
    sql = "SELECT delete_job(job_id)" + _JOBS


@operation
class AddRetentionJobOp(_OnRetentionJob):
    """Let a procedure of yours drop rows older than `drop_after`, each `every`, instead of the server's own policy.

    See RetentionJob for its parameters. With `drop_after` None it keeps all rows. An existing job stays.
    """

    undone_by = RemoveRetentionJobOp
    sql = (
        "SELECT add_job({run}, {every}, config => jsonb_build_object('schema', {schema},"
        " 'table', {table}, 'drop_after', CAST({drop_after} AS text)), initial_start => now() + {every})"
        " WHERE NOT EXISTS (SELECT" + _JOBS + ")"
    )

    every: timedelta = field(kw_only=True)
    drop_after: timedelta | None = field(default=None, kw_only=True)

    def _words(self) -> str:
        if self.drop_after is None:
            return f"run {self.procedure} on {self.place} every {spoken(self.every)}, which keeps all rows"
        age = spoken(self.drop_after)
        return f"drop rows of {self.place} after {age}, by {self.procedure} every {spoken(self.every)}"


@operation
class AddColumnstorePolicyOp(_PolicyByAge):
    """Let the server store chunks by column once all their rows are older than `after`; `table` may be an aggregate.

    An existing policy stays, unless it goes by the creation of chunks: then this one replaces it.
    """

    needs = Feature.COLUMNSTORE
    undone_by = RemoveColumnstorePolicyOp
    procedure = "policy_compression"
    words = "move rows of {place} to the columnstore after {after}"
    sql = "CALL add_columnstore_policy({relation}, after => {after}, if_not_exists => true)"

    after: timedelta = field(kw_only=True)


@operation
class AddContinuousAggregatePolicyOp(TimescaleOp):
    """Let the server compute an aggregate anew each `every`, from `start_offset` to `end_offset` before now.

    `start_offset` None begins with the oldest row. An existing policy stays.
    """

    needs = Feature.AGGREGATES
    undone_by = RemoveContinuousAggregatePolicyOp
    relation_is = "view"
    sql = (
        "SELECT add_continuous_aggregate_policy({relation}, start_offset => {start_offset}, end_offset => {end_offset},"
        " schedule_interval => {every}, if_not_exists => true)"
    )

    start_offset: timedelta | None = field(kw_only=True)
    end_offset: timedelta = field(kw_only=True)
    every: timedelta = field(kw_only=True)

    def _words(self) -> str:
        start = "the beginning" if self.start_offset is None else f"{spoken(self.start_offset)} ago"
        end = f"{spoken(self.end_offset)} ago" if self.end_offset else "now"
        return f"refresh {self.place} every {spoken(self.every)}, from {start} to {end}"
