"""Operations on hypertables and their columnstores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import ClassVar

from alembic.util import CommandError
from sqlalchemy import Connection

from alembic_timescaledb.declare import Order
from alembic_timescaledb.names import interval, literal, quoted, regclass, spoken
from alembic_timescaledb.operations.operation import TimescaleOp, gone_with_relation, operation
from alembic_timescaledb.server import Edition, Feature

_ADD_DIMENSION = "run SELECT add_dimension(..., by_hash(...)) by op.execute after it"
_STILL_A_HYPERTABLE = (
    "{place} is a hypertable, and TimescaleDB cannot make it an ordinary table again: copy its rows into a new table by"
    " hand, then run this again"
)
_STEPS = 'the steps are in docs/timescale.md, "From a hypertable back to an ordinary table"'


@operation
class RevertHypertableOp(TimescaleOp):
    """Stop the migration if the table is still a hypertable, and name the manual steps.

    TimescaleDB has no way back from a hypertable. Copy the rows into an ordinary table of the same name by hand, then
    run the migration again: it passes then.

        op.revert_hypertable("trades")
    """

    name = "revert_hypertable"
    needs = Feature.HYPERTABLES
    removes = True

    def _words(self) -> str:
        return f"make {self.place} an ordinary table again, by hand"

    def statements_on(self, _connection: Connection) -> list[str]:
        """Raise CommandError: it runs on hypertables only."""
        raise CommandError(f"{_STILL_A_HYPERTABLE.format(place=self.place)} ({_STEPS})")

    def _sql(self) -> list[str]:
        is_hypertable = (
            "SELECT FROM timescaledb_information.hypertables"
            " WHERE to_regclass(format('%I.%I', hypertable_schema, hypertable_name))"
            f" = to_regclass({regclass(self.relation, self.schema)})"
        )
        message = literal(_STILL_A_HYPERTABLE.format(place=self.place))
        return [
            f"DO $revert$\nBEGIN\n    IF EXISTS ({is_hypertable}) THEN\n        RAISE EXCEPTION USING\n"
            f"            MESSAGE = {message},\n            HINT = {literal(_STEPS)};\n    END IF;\nEND\n$revert$"
        ]


@operation
class CreateHypertableOp(TimescaleOp):
    """Split a table into chunks by its time.

    A table with rows is refused unless `migrate_data`, which moves them into chunks under a lock. On plain PostgreSQL
    the table stays an ordinary one, and the log says so. TimescaleDB's own index on the time is not created. Reversed
    by dropping the table. There is no other way back: `op.revert_hypertable` names the manual steps.

        op.create_hypertable("trades", "timestamp", chunk_interval=timedelta(hours=1))
    """

    name = "create_hypertable"
    needs = Feature.HYPERTABLES
    refused: ClassVar = {"space_column": _ADD_DIMENSION, "partitions": _ADD_DIMENSION}

    time_column: str
    chunk_interval: timedelta = field(kw_only=True)
    migrate_data: bool = field(default=False, kw_only=True)
    with_relation: bool = field(default=False, kw_only=True, repr=False, compare=False)  # comes and goes with it

    def _words(self) -> str:
        moved = "; its rows move into them" if self.migrate_data else ""
        return f"make {self.place} a hypertable, in chunks of {spoken(self.chunk_interval)}{moved}"

    def is_ready(self, _connection: Connection) -> bool:
        """It works on any table."""
        return True

    def lack(self, edition: Edition) -> str:
        """Return the line for the log: the table stays ordinary."""
        return f"{self.place} stays an ordinary table: {edition} PostgreSQL has no hypertables"

    def _sql(self) -> list[str]:
        by_time = f"by_range({literal(self.time_column)}, {interval(self.chunk_interval)})"
        moved = ", migrate_data => true" if self.migrate_data else ""
        return [
            f"SELECT create_hypertable({regclass(self.relation, self.schema)}, {by_time},"
            f" create_default_indexes => false, if_not_exists => true{moved})"
        ]

    def reverse(self) -> TimescaleOp:
        """Return nothing to do if the table is dropped next, else the operation that names the manual steps."""
        if self.with_relation:
            return gone_with_relation(self)
        return RevertHypertableOp(self.relation, schema=self.schema, former=self)


@operation
class SetChunkIntervalOp(TimescaleOp):
    """Give new chunks another length; existing chunks stay as they are.

    Reversed by setting the former length.

        op.set_chunk_interval("trades", timedelta(hours=6))
    """

    name = "set_chunk_interval"
    needs = Feature.HYPERTABLES

    chunk_interval: timedelta
    before: timedelta | None = field(default=None, kw_only=True, repr=False, compare=False)

    def _words(self) -> str:
        former = f", not {spoken(self.before)}" if self.before else ""
        return f"let new chunks of {self.place} be of {spoken(self.chunk_interval)}{former}"

    def _sql(self) -> list[str]:
        relation = regclass(self.relation, self.schema)
        return [f"SELECT set_chunk_time_interval({relation}, {interval(self.chunk_interval)})"]

    def reverse(self) -> SetChunkIntervalOp:
        """Return the setting of the former length."""
        if self.before is None:
            raise ValueError(
                f"the former length of the chunks of {self.place} is not known: set it by another operation"
            )
        return replace(self, chunk_interval=self.before, before=self.chunk_interval)


@dataclass(frozen=True)
class _ColumnstoreOp(TimescaleOp):
    needs = Feature.COLUMNSTORE

    aggregate: bool = field(default=False, kw_only=True)

    def _altered(self, *settings: str) -> str:
        kind = "MATERIALIZED VIEW" if self.aggregate else "TABLE"
        return f"ALTER {kind} {quoted(self.relation, self.schema)} SET ({', '.join(settings)})"


@operation
class EnableColumnstoreOp(_ColumnstoreOp):
    """Let chunks be stored by column, rows grouped by `segment_by` and sorted by `order_by` (by default by time).

    It can be repeated with other columns: chunks in the columnstore stay as they are. `aggregate` says that `table` is
    a continuous aggregate. Only the Community edition has a columnstore; others get a line in the log. Reversed by
    `op.disable_columnstore`.

        op.enable_columnstore("trades", segment_by=["symbol_id"], order_by=["timestamp DESC"])
    """

    name = "enable_columnstore"

    segment_by: Sequence[str] = field(default=(), kw_only=True)
    order_by: Sequence[str] = field(default=(), kw_only=True)
    with_relation: bool = field(default=False, kw_only=True, repr=False, compare=False)  # comes and goes with it

    def __post_init__(self) -> None:
        """Take any sequences of names."""
        object.__setattr__(self, "segment_by", tuple(self.segment_by))
        object.__setattr__(self, "order_by", tuple(self.order_by))

    def _words(self) -> str:
        by = f" by {', '.join(self.segment_by)}" if self.segment_by else ""
        along = f" along {', '.join(self.order_by)}" if self.order_by else ""
        return f"store {self.place} by column{by}{along}"

    def _sql(self) -> list[str]:
        settings = ["timescaledb.enable_columnstore = true"]
        settings.append(f"timescaledb.segmentby = {literal(', '.join(map(quoted, self.segment_by)))}")
        if self.order_by:
            settings.append(f"timescaledb.orderby = {literal(', '.join(map(_sorted_by, self.order_by)))}")
        return [self._altered(*settings)]

    def reverse(self) -> TimescaleOp:
        """Return the former settings if there were any, else the end of the columnstore."""
        if self.with_relation:
            return gone_with_relation(self)
        if isinstance(self.former, EnableColumnstoreOp):
            return replace(self.former, former=self, with_relation=False)
        return DisableColumnstoreOp(self.relation, aggregate=self.aggregate, schema=self.schema, former=self)


def _sorted_by(words: str) -> str:
    order = Order.parse(words)
    way = "DESC" if order.descending else "ASC"
    return f"{quoted(order.column)} {way} NULLS {'FIRST' if order.nulls_first else 'LAST'}"


@operation
class DisableColumnstoreOp(_ColumnstoreOp):
    """Store chunks by row again. Chunks in the columnstore are converted first, which may take long.

    Reversed by `op.enable_columnstore`.

        op.disable_columnstore("trades")
    """

    name = "disable_columnstore"
    removes = True

    def _words(self) -> str:
        return f"store {self.place} by row again"

    def _sql(self) -> list[str]:
        chunks = f"show_chunks({regclass(self.relation, self.schema)})"
        return [
            f"SELECT decompress_chunk(chunk, if_compressed => true) FROM {chunks} chunk",  # noqa: S608 # quoted above
            self._altered("timescaledb.enable_columnstore = false"),
        ]

    def statements_on(self, _connection: Connection) -> list[str]:
        """Return its SQL with a lock, which keeps the policy's job from converting chunks again meanwhile."""
        locked = f"LOCK TABLE ONLY {quoted(self.relation, self.schema)} IN ACCESS EXCLUSIVE MODE"
        return self._sql() if self.aggregate else [locked, *self._sql()]
