"""What a database is on, what its server does by itself, and what of the declared it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import URL, Connection, inspect

from alembic_timescaledb import Feature, aggregates, hypertables, server
from alembic_timescaledb.compare import missing
from alembic_timescaledb.server import (
    ColumnstoreSize,
    Edition,
    RetentionPolicy,
    aggregate_freshness,
    columnstore_sizes,
    retention_policies,
)
from alembic_timescaledb.upgrade import EXTENSION, steps_now
from arbstore import migrations
from arbstore.database import Database
from arbstore.errors import translated
from arbstore.models import Base
from arbstore.records import Record
from arbstore.services import retention

CLEANUP = "arbstore db cleanup"
SYNC = "arbstore db sync"

_INSTEAD = {
    Feature.HYPERTABLES: f"the tables are ordinary ones, and `{CLEANUP}` deletes their old rows in batches",
    Feature.RETENTION: f"`{CLEANUP} --every 1h` does it as a service, or `{CLEANUP}` from cron or a timer",
    Feature.COLUMNSTORE: "rows stay as large as they are, and a shorter `arbstore db retention` saves space",
    Feature.AGGREGATES: "`arbstore history candles --source trades|quotes` computes them when asked",
}


class Lack(Record, frozen=True, kw_only=True):
    """What the server's edition cannot do, what does it instead, and all that is left undone for it."""

    feature: str
    instead: str
    missing: tuple[str, ...]


class Drift(Record, frozen=True, kw_only=True):
    """What is not as declared, and could be; and what mends it."""

    what: str
    remedy: str


class ColumnstoreStatus(Record, frozen=True, kw_only=True):
    """What of a table's chunks is stored by column, with the bytes of these before and after; `ratio` None: none is."""

    chunks: int
    bytes_before: int
    bytes_after: int
    ratio: float | None


class TableStatus(Record, frozen=True, kw_only=True):
    """One time-series table. `enforced_by` is None where nothing is ever removed, or the table is missing.

    `last_run`, `next_run` and `failed` (the last time) are of the server's own job, where it has one.
    """

    table: str
    kind: str  # hypertable, ordinary or missing
    chunks: int | None
    chunk_interval: timedelta | None
    retention: timedelta | None
    enforced_by: str | None
    last_run: datetime | None
    next_run: datetime | None
    failed: bool | None
    columnstore: ColumnstoreStatus | None


class AggregateStatus(Record, frozen=True, kw_only=True):
    """One continuous aggregate. Times are None before the first refresh, and `every` where nothing refreshes it."""

    aggregate: str
    over: str
    computed_until: datetime | None
    every: timedelta | None
    last_refresh: datetime | None
    next_refresh: datetime | None
    failures: int


class Status(Record, frozen=True, kw_only=True):
    """A server, and the state of the schema on it."""

    database: str
    postgresql: str
    edition: Edition
    timescaledb: str | None
    revision: str | None
    head: str
    tables: tuple[TableStatus, ...]
    aggregates: tuple[AggregateStatus, ...]
    drift: tuple[Drift, ...]
    lacks: tuple[Lack, ...]


async def status_of(db: Database) -> Status:
    """Return the state of server and schema; the schema need not be there."""
    with translated():
        async with db.engine.connect() as connection:
            return await connection.run_sync(_status)


def lacks(connection: Connection) -> tuple[Lack, ...]:
    """Return what the server's edition cannot do, and which of the declared is left undone for it."""
    edition = server.edition(connection)
    undone = [] if all(map(edition.has, Feature)) else missing(connection, Base.metadata)
    return tuple(
        Lack(feature=feature, instead=instead, missing=tuple(str(op) for op in undone if op.needs is feature))
        for feature, instead in _INSTEAD.items()
        if not edition.has(feature)
    )


def _status(connection: Connection) -> Status:
    revision, head = migrations.current(connection), migrations.head()
    return Status(
        database=_place(connection.engine.url),
        postgresql=".".join(map(str, connection.dialect.server_version_info or ())),
        edition=server.edition(connection),
        timescaledb=server.version(connection),
        revision=revision,
        head=head,
        tables=tuple(_tables(connection)),
        aggregates=tuple(_aggregates(connection)),
        drift=tuple(drift(connection)) if revision == head else (),
        lacks=lacks(connection),
    )


def _tables(connection: Connection) -> Iterator[TableStatus]:
    there = set(inspect(connection).get_table_names())
    states = server.hypertables(connection)
    policies = retention_policies(connection)
    sizes = columnstore_sizes(connection)
    kept = retention.overrides(connection)
    jobs = server.edition(connection).has_policies
    for table, declared in hypertables(Base.metadata):
        name = table.name
        state, policy = states.get(name), policies.get(name)
        wanted = kept.get(name, declared.retention)
        keep_for = (policy and policy.drop_after) if state and jobs else wanted
        yield TableStatus(
            table=name,
            kind="hypertable" if state else "ordinary" if name in there else "missing",
            chunks=state and state.chunks,
            chunk_interval=state and state.chunk_interval,
            retention=keep_for,
            enforced_by=_enforced_by(policy) if name in there and keep_for else None,
            last_run=policy and policy.last_run,
            next_run=policy and policy.next_run,
            failed=policy and policy.failed,
            columnstore=_columnstore(sizes.get((state.schema, name)) if state else None),
        )


def _enforced_by(policy: RetentionPolicy | None) -> str:
    return "a policy of the server" if policy else f"`{CLEANUP}`"


def _columnstore(size: ColumnstoreSize | None) -> ColumnstoreStatus | None:
    if size is None:
        return None
    return ColumnstoreStatus(
        chunks=size.in_columnstore,
        bytes_before=size.bytes_before,
        bytes_after=size.bytes_after,
        ratio=None if size.ratio is None else round(size.ratio, 2),
    )


def _aggregates(connection: Connection) -> Iterator[AggregateStatus]:
    found = aggregate_freshness(connection)
    schema = inspect(connection).default_schema_name or "public"
    for declared in aggregates(Base.metadata):
        if (progress := found.get((schema, declared.name))) is not None:
            yield AggregateStatus(
                aggregate=declared.name,
                over=declared.source.name,
                computed_until=progress.computed_until,
                every=progress.every,
                last_refresh=progress.last_refresh,
                next_refresh=progress.next_refresh,
                failures=progress.failures,
            )


def drift(connection: Connection) -> Iterator[Drift]:
    """Yield what is not as declared; the schema is at the newest revision."""
    remedy = f"`{SYNC}`"
    if server.available(connection):
        yield Drift(what=f"{EXTENSION}, which the server has loaded", remedy=remedy)
    planned = steps_now(connection, Base.metadata, retentions=retention.overrides(connection))
    yield from (Drift(what=str(op), remedy=remedy) for step in planned.steps for op in step.ops)
    yield from (Drift(what=left.what, remedy=left.why) for left in planned.left)


def _place(url: URL) -> str:
    """Return where the database is, without the rest of the URL: a password can stand in its query too."""
    host = url.host or url.query.get("host", "localhost")
    return f"{url.database} of {url.username} on {host}{f':{url.port}' if url.port else ''}"
