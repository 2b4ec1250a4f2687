"""`arbstore db status`: what the database is on, what the server does by itself, and what it lacks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer

from arbstore.cli import show
from arbstore.cli.command import options_of, run, settings_of

if TYPE_CHECKING:
    from datetime import datetime

    from rich.table import Table

    from alembic_timescaledb import Edition
    from arbstore.deploy.status import AggregateStatus, Lack, Status, TableStatus


def status(context: typer.Context) -> None:
    """Show server and tables, what the server does, and what is not as declared."""
    from arbstore.deploy.status import status_of

    options = options_of(context)
    found = run(settings_of(options), status_of)
    if options.json:
        show.print_json(found)
    else:
        show.print_people(*_parts(found))


def lack_lines(edition: Edition, lacks: Iterable[Lack]) -> list[str]:
    """Return what the edition cannot do, a line each."""
    return [f"this edition ({edition}) lacks {lack.feature}: {lack.instead}" for lack in lacks]


def _parts(found: Status) -> list[str | Table]:
    extension = f"TimescaleDB {found.timescaledb}, {found.edition} edition" if found.timescaledb else "no TimescaleDB"
    behind = "" if found.revision == found.head else f", newest {found.head}: run `arbstore db upgrade`"
    parts: list[str | Table] = [
        f"database  {found.database}",
        f"server    PostgreSQL {found.postgresql}, {extension}",
        f"schema    {'not deployed' if found.revision is None else f'revision {found.revision}'}{behind}",
        show.table(map(_table_row, found.tables)),
    ]
    if jobs := [_job_row(table) for table in found.tables if table.columnstore or table.failed is not None]:
        parts.append(show.table(jobs, right=("before", "after")))
    if found.aggregates:
        parts.append(show.table(map(_aggregate_row, found.aggregates)))
    drift = [f"not as declared: {one.what}; {one.remedy}" for one in found.drift]
    return [*parts, *drift, *lack_lines(found.edition, found.lacks)]


def _table_row(found: TableStatus) -> dict[str, Any]:
    return {
        "table": found.table,
        "kind": found.kind,
        "chunks": found.chunks,
        "chunk": found.chunk_interval,
        "retention": found.retention or "forever",
        "enforced by": found.enforced_by,
    }


def _job_row(found: TableStatus) -> dict[str, Any]:
    stored = found.columnstore
    return {
        "table": found.table,
        "by column": stored and stored.chunks,
        "before": stored and stored.ratio and show.size(stored.bytes_before),
        "after": stored and stored.ratio and show.size(stored.bytes_after),
        "ratio": stored and stored.ratio,
        "last drop": "failed" if found.failed else _short(found.last_run),
        "next drop": _short(found.next_run),
    }


def _aggregate_row(found: AggregateStatus) -> dict[str, Any]:
    return {
        "aggregate": found.aggregate,
        "computed until (UTC)": show.cell(found.computed_until)[:16] or "never",
        "every": found.every or "never",
        "last refresh": _short(found.last_refresh),
        "next refresh": _short(found.next_refresh),
        "failures": found.failures or None,
    }


def _short(moment: datetime | None) -> str | None:
    return None if moment is None else show.cell(moment)[5:16]
