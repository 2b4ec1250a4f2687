"""Reports the server's version and edition, its background jobs, and differences from the models."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import URL, Connection, inspect

from alembic_timescaledb import Feature, server
from alembic_timescaledb.compare import missing
from alembic_timescaledb.server import (
    ColumnstoreSize,
    Edition,
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
from arbstore.services.maintenance import Watermark, watermarks

_INSTEAD = {
    Feature.HYPERTABLES: "the tables are ordinary ones, and `arbstore db cleanup` deletes their old rows in batches",
    Feature.RETENTION: "`arbstore db cleanup` does it, and makes the candles, started by cron or run as a service",
    Feature.COLUMNSTORE: "rows are not compressed; a shorter `arbstore db retention` saves space",
}


class Lack(Record, frozen=True, kw_only=True):
    """A feature that the server's edition lacks, what replaces it, and the declared objects that are missing for it."""

    feature: str
    instead: str
    missing: tuple[str, ...]


class Drift(Record, frozen=True, kw_only=True):
    """A difference from the models that could be removed, and how."""

    what: str
    remedy: str


class ColumnstoreStatus(Record, frozen=True, kw_only=True):
    """The chunks in a table's columnstore, and their bytes before and after; `ratio` is None without such chunks."""

    chunks: int
    bytes_before: int
    bytes_after: int
    ratio: float | None


class TableStatus(Record, frozen=True, kw_only=True):
    """One time-series table. `enforced_by` is None if nothing removes its rows, or the table is missing.

    `kind` is hypertable, ordinary or missing. `last_run`, `next_run` and `failed` (at the last run) describe the
    server's own job that drops old rows; they are None without one.
    """

    table: str
    kind: str
    chunks: int | None
    chunk_interval: timedelta | None
    retention: timedelta | None
    enforced_by: str | None
    last_run: datetime | None
    next_run: datetime | None
    failed: bool | None
    columnstore: ColumnstoreStatus | None


class Status(Record, frozen=True, kw_only=True):
    """A server, and the state of the schema on it."""

    database: str
    postgresql: str
    edition: Edition
    timescaledb: str | None
    revision: str | None
    head: str
    tables: tuple[TableStatus, ...]
    candles: tuple[Watermark, ...]
    drift: tuple[Drift, ...]
    lacks: tuple[Lack, ...]


async def status_of(db: Database) -> Status:
    """Return the state of server and schema; the schema need not be deployed."""
    with translated():
        async with db.engine.connect() as connection:
            return await connection.run_sync(_status)


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
        candles=tuple(watermarks(connection)) if revision == head else (),
        drift=tuple(_drift(connection)) if revision == head else (),
        lacks=tuple(_lacks(connection)),
    )


def _lacks(connection: Connection) -> Iterator[Lack]:
    edition = server.edition(connection)
    undone = [] if all(map(edition.has, Feature)) else missing(connection, Base.metadata)
    for feature, instead in _INSTEAD.items():
        if not edition.has(feature):
            yield Lack(feature=feature, instead=instead, missing=tuple(str(op) for op in undone if op.needs is feature))


def _tables(connection: Connection) -> Iterator[TableStatus]:
    there = set(inspect(connection).get_table_names())
    states, policies = server.hypertables(connection), retention_policies(connection)
    sizes = columnstore_sizes(connection)
    for kept in retention.in_force(connection, None if retention.is_settable(connection) else {}):
        state, policy = states.get(kept.table), policies.get(kept.table)
        yield TableStatus(
            table=kept.table,
            kind="hypertable" if state else "ordinary" if kept.table in there else "missing",
            chunks=state and state.chunks,
            chunk_interval=state and state.chunk_interval,
            retention=kept.keep_for,
            enforced_by=kept.enforced_by if kept.table in there else None,
            last_run=policy and policy.last_run,
            next_run=policy and policy.next_run,
            failed=policy and policy.failed,
            columnstore=_columnstore(sizes.get((state.schema, kept.table)) if state else None),
        )


def _columnstore(size: ColumnstoreSize | None) -> ColumnstoreStatus | None:
    if size is None:
        return None
    ratio = None if size.ratio is None else round(size.ratio, 2)
    before, after = size.bytes_before, size.bytes_after
    return ColumnstoreStatus(chunks=size.in_columnstore, bytes_before=before, bytes_after=after, ratio=ratio)


def _drift(connection: Connection) -> Iterator[Drift]:
    remedy = "`arbstore db align`"
    if server.available(connection):
        yield Drift(what=f"{EXTENSION}, which the server has loaded", remedy=remedy)
    planned = steps_now(connection, Base.metadata, retentions=retention.overrides(connection))
    yield from (Drift(what=str(op), remedy=remedy) for step in planned.steps for op in step.ops)
    yield from (Drift(what=left.what, remedy=left.why) for left in planned.left)


def _place(url: URL) -> str:
    """Return where the database is, without the query of its URL, which may hold a password."""
    host = url.host or url.query.get("host", "localhost")
    return f"{url.database} of {url.username} on {host}{f':{url.port}' if url.port else ''}"
