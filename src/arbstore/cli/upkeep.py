"""`arbstore db stats`, `retention` and `cleanup`: how large the tables are, and how long they keep their rows."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from arbstore.cli import show
from arbstore.cli.command import answer, logged, option, options_of, run, wrong_use

if TYPE_CHECKING:
    from rich.table import Table

    from arbstore.database import Database
    from arbstore.services.maintenance import Cleanup, TableStats
    from arbstore.services.retention import Retention

_RETENTION = ("table", "keep_for", "declared", "set_at", "enforced_by", "next_run")
_PLANNED = ("table", "retention", "older_than", "oldest", "has_old_rows")
_REMOVED = ("table", "retention", "rows", "chunks")

log = logging.getLogger(__name__)


def _read_pause(text: str) -> timedelta:
    length = show.read_duration(text)
    if length < timedelta(seconds=1):
        raise ValueError(f"{text!r} is too often: use 1s or more")
    return length


_KeepFor = Annotated[
    timedelta | None, option("DURATION", "Keep the table's rows this long: 7d.", "--set", read=show.read_duration)
]
_Every = Annotated[timedelta | None, option("DURATION", "As a service: clean each 1h, and log it.", read=_read_pause)]
_RETENTION_HELP = "For this run only: trade_snapshots=12h, or ticks=none to keep all."


def stats(context: typer.Context) -> None:
    """Show rows, sizes and times of all tables; ~ marks an estimate."""

    async def work(db: Database) -> list[TableStats]:
        async with db.begin() as store:
            return await store.maintenance.stats()

    found = run(context, work)
    answer(context, found, lambda: [stats_table(found)])


def retention(
    context: typer.Context,
    table: Annotated[str | None, typer.Argument(metavar="TABLE", help="One table; without it, all are shown.")] = None,
    keep_for: _KeepFor = None,
    clear: Annotated[bool, option(None, "Keep the table's rows for good.", "--clear")] = False,
    reset: Annotated[bool, option(None, "Keep the rows as long as the table's model declares.", "--reset")] = False,
) -> None:
    """Show or change how long tables keep their rows.

    A change holds until the next one, for the server's own jobs and for every cleanup.
    """
    from arbstore.services.retention import time_series_table

    changes = sum((keep_for is not None, clear, reset))
    if changes > 1:
        raise typer.BadParameter("use only one of them", param_hint="--set, --clear, --reset")
    if table is None and changes:
        raise typer.BadParameter("missing; name the table to change", param_hint="TABLE")
    if table is not None:
        with wrong_use("TABLE"):
            time_series_table(table)

    async def work(db: Database) -> list[Retention]:
        async with db.begin() as store:
            if table is None or not changes:
                return await store.maintenance.retention(table)
            if reset:
                return [await store.maintenance.reset_retention(table)]
            return [await store.maintenance.set_retention(table, keep_for)]

    found = run(context, work)
    answer(context, found, lambda: [show.table(found, *_RETENTION), *_changed_elsewhere(found)])


def cleanup(
    context: typer.Context,
    retention: Annotated[list[str] | None, option("TABLE=DURATION", _RETENTION_HELP)] = None,
    dry_run: Annotated[bool, option(None, "Show what would be removed, and remove nothing.", "--dry-run")] = False,
    every: _Every = None,
) -> None:
    """Remove rows that are older than their table's retention.

    It works in many short transactions, so nobody waits for long. If it is interrupted, it keeps what it has done. As
    a service it survives lost connections, and ends on SIGTERM or Ctrl-C; the embedded database runs with it.
    """
    from arbstore.deploy.cleanup import plan_cleanup
    from arbstore.services.retention import check_ages

    with wrong_use("--retention"):
        ages = dict(map(_read_age, retention or []))
        check_ages(ages)
    if every is not None:
        if dry_run or options_of(context).json:
            raise typer.BadParameter("a service takes neither --dry-run nor --json", param_hint="--every")
        with logged("arbstore", style="%(asctime)sZ %(levelname)s %(message)s"):
            run(context, lambda db: _serve(db, every, ages))
    elif dry_run:
        planned = run(context, lambda db: plan_cleanup(db, ages))
        answer(context, planned, lambda: [show.table(planned, *_PLANNED)])
    else:
        done = run(context, lambda db: _clean(db, ages))
        answer(context, done, lambda: [show.table(done, *_REMOVED, title="Removed")])


def _read_age(text: str) -> tuple[str, timedelta | None]:
    table, equals, age = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not TABLE=DURATION: write it like trade_snapshots=12h")
    return table.strip(), None if age.strip().lower() == "none" else show.read_duration(age)


async def _clean(db: Database, ages: dict[str, timedelta | None]) -> list[Cleanup]:
    from arbstore.deploy.cleanup import cleanup

    with show.progress() as update:
        return await cleanup(
            db, ages, progress=lambda done: update(done.table, f": {done.rows:,} rows, {done.chunks:,} chunks")
        )


async def _serve(db: Database, every: timedelta, ages: dict[str, timedelta | None]) -> None:
    from arbstore.deploy.cleanup import serve

    service = asyncio.create_task(serve(db, every, ages))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, service.cancel)
    log.info("cleaning each %s", show.duration(every))
    with suppress(asyncio.CancelledError):
        await service
    log.info("stopped")


def stats_table(found: Iterable[TableStats], title: str | None = None, *, chunks: bool = True) -> Table:
    """Return the sizes as a table; without the number of chunks, it fits 80 columns on every edition."""
    rows = (
        one._asdict() | {"rows": f"{'~' if one.estimated else ''}{one.rows:,}", "bytes": show.size(one.bytes)}
        for one in found
    )
    counts = ("rows", "bytes", "chunks") if chunks else ("rows", "bytes")
    return show.table(rows, "table", *counts, "oldest", "newest", title=title)


def _changed_elsewhere(found: Iterable[Retention]) -> Iterator[str]:
    for one in found:
        if one.keep_for != one.wanted:
            wanted = "for good" if one.wanted is None else f"for {show.duration(one.wanted)}"
            yield (
                f"{one.table} should keep its rows {wanted}, but the server's policy was changed directly:"
                f" run `arbstore db retention {one.table}` with --set, --clear or --reset"
            )
