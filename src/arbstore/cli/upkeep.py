"""`arbstore db stats`, `retention` and `cleanup`: how large the tables are, and what outlives its retention."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arbstore.cli import show
from arbstore.cli.command import options_of, parsed, run, settings_of
from arbstore.cli.times import read_duration, show_duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Table

    from arbstore.database import Database
    from arbstore.deploy.cleanup import Removed
    from arbstore.services.maintenance import TableStats
    from arbstore.services.retention import Retention

log = logging.getLogger(__name__)


def _pause(text: str) -> timedelta:
    """Return the duration between two rounds; raise ValueError if it is none, or less than a second."""
    length = read_duration(text)
    if length < timedelta(seconds=1):
        raise ValueError(f"{text!r} is too often: 1s at least")
    return length


def stats(context: typer.Context) -> None:
    """Show rows, sizes and times of all tables; ~: an estimate."""
    options = options_of(context)
    found = run(settings_of(options), _stats)
    if options.json:
        show.print_json(found)
    else:
        show.print_people(stats_table(found))


def retention(
    context: typer.Context,
    table: Annotated[str | None, typer.Argument(metavar="TABLE", help="One table; without it all are shown.")] = None,
    keep_for: Annotated[
        timedelta | None,
        typer.Option("--set", parser=parsed(read_duration), metavar="DURATION", help="Keep its rows this long: 7d."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Keep its rows for good.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Keep its rows as long as its model declares.")] = False,
) -> None:
    """Show how long the tables are kept, or change it for one.

    What is set holds until it is set again, for the server's own jobs and for every cleanup.
    """
    options = options_of(context)
    _check_change(table, sum((keep_for is not None, clear, reset)))

    async def work(db: Database) -> list[Retention]:
        async with db.begin() as store:
            if table is None:
                return await store.maintenance.retention()
            if reset:
                return [await store.maintenance.reset_retention(table)]
            if clear or keep_for is not None:
                return [await store.maintenance.set_retention(table, keep_for)]
            return [found for found in await store.maintenance.retention() if found.table == table]

    found = run(settings_of(options), work)
    if options.json:
        show.print_json(found)
    else:
        show.print_people(show.table(map(_retention_row, found)), *_differences(found))


def cleanup(
    context: typer.Context,
    retention: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE=DURATION", help="Keep this long instead: trade_snapshots=12h, ticks=none."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False,
    every: Annotated[
        timedelta | None,
        typer.Option(
            parser=parsed(_pause), metavar="DURATION", help="Run as a service, a round each 1h, and log them."
        ),
    ] = None,
) -> None:
    """Remove the rows that are older than their table's retention.

    It takes many short transactions: nobody waits for it long, and what is interrupted keeps what it has done. As a
    service it goes on after a lost connection, and ends on SIGTERM or Ctrl-C; the embedded database runs with it.
    """
    from arbstore.deploy.cleanup import clean

    options = options_of(context)
    ages = _ages(retention or [])
    if every is not None:
        if dry_run or options.json:
            raise typer.BadParameter("goes on for ever: without --dry-run and --json", param_hint="--every")
        with _logged():
            run(settings_of(options), lambda db: _serve(db, every, ages))
        return
    if dry_run:
        removed = run(settings_of(options), lambda db: _plan(db, ages))
    else:
        with show.progress() as bars:
            removed = run(settings_of(options), lambda db: clean(db, ages, progress=_shown(bars)))
    if options.json:
        show.print_json(removed)
    else:
        show.print_people(show.table(map(_dry_row if dry_run else _row, removed)))


async def _stats(db: Database) -> list[TableStats]:
    async with db.begin() as store:
        return await store.maintenance.stats()


def stats_table(found: Iterable[TableStats], title: str | None = None) -> Table:
    """Return the sizes as a table."""
    return show.table(map(_stats_row, found), title, right=("rows", "size"))


def _stats_row(found: TableStats) -> dict[str, Any]:
    return {
        "table": found.table,
        "rows": f"{'~' if found.estimated else ''}{found.rows:,}",
        "size": show.size(found.bytes),
        "chunks": found.chunks,
        "oldest (UTC)": _minute(found.oldest),
        "newest (UTC)": _minute(found.newest),
    }


def _minute(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _check_change(table: str | None, changes: int) -> None:
    if changes > 1:
        raise typer.BadParameter("one of them at a time", param_hint="--set, --clear, --reset")
    if table is None and changes:
        raise typer.BadParameter("is missing: which table's retention is it?", param_hint="TABLE")
    from arbstore.services.retention import check_ages

    try:
        check_ages({} if table is None else {table: None})
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="TABLE") from error


def _retention_row(found: Retention) -> dict[str, Any]:
    return {
        "table": found.table,
        "retention": found.keep_for or "forever",
        "declared": found.declared or "forever",
        "set at (UTC)": _minute(found.set_at),
        "enforced by": _enforced_by(found),
        "next run (UTC)": _minute(found.next_run),
    }


def _enforced_by(found: Retention) -> str | None:
    if found.keep_for is None:
        return None
    return "a policy of the server" if found.policy else "`arbstore db cleanup`"


def _differences(found: Iterable[Retention]) -> list[str]:
    return [
        f"{one.table} is to be kept {_spoken(one.wanted)}, but the server's policy was changed by other hands:"
        f" `arbstore db retention {one.table}` with --set, --clear or --reset makes them agree"
        for one in found
        if one.keep_for != one.wanted
    ]


def _spoken(age: timedelta | None) -> str:
    return "for good" if age is None else f"for {show_duration(age)}"


def _ages(wanted: list[str]) -> dict[str, timedelta | None]:
    """Return the retention that is given for this run alone, by table."""
    from arbstore.services.retention import check_ages

    try:
        ages = dict(map(_age, wanted))
        check_ages(ages)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--retention") from error
    return ages


def _age(text: str) -> tuple[str, timedelta | None]:
    table, equals, age = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is no TABLE=DURATION: it looks like trade_snapshots=12h")
    return table.strip(), None if age.strip().lower() == "none" else read_duration(age)


async def _plan(db: Database, given: dict[str, timedelta | None]) -> list[Removed]:
    from arbstore.deploy.cleanup import Removed
    from arbstore.records.rules import ago

    async with db.begin() as store:
        ages = await store.maintenance.hold_retention(given)
        oldest = {found.table: found.oldest for found in await store.maintenance.stats()}
    return [
        Removed(table=table, retention=age, older_than=None if age is None else ago(age), oldest=oldest[table])
        for table, age in ages.items()
    ]


def _shown(bars: Progress) -> Callable[[str, int, int], None]:
    tasks: dict[str, TaskID] = {}

    def told(table: str, rows: int, chunks: int) -> None:
        if table not in tasks:
            tasks[table] = bars.add_task(table, total=None)
        bars.update(tasks[table], description=f"{table}: {rows:,} rows, {chunks:,} chunks")

    return told


async def _serve(db: Database, every: timedelta, ages: dict[str, timedelta | None]) -> None:
    from arbstore.deploy.cleanup import serve

    service = asyncio.create_task(serve(db, every, ages))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, service.cancel)
    log.info("a cleanup each %s", show_duration(every))
    with suppress(asyncio.CancelledError):
        await service
    log.info("stopped")


@contextmanager
def _logged() -> Iterator[None]:
    """Write what arbstore logs to stderr, with its time."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter := logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    formatter.converter = time.gmtime
    ours = logging.getLogger("arbstore")
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)


def _row(removed: Removed) -> dict[str, Any]:
    return {
        "table": removed.table,
        "retention": removed.retention or "forever",
        "removed rows": removed.rows,
        "removed chunks": removed.chunks,
    }


def _dry_row(removed: Removed) -> dict[str, Any]:
    older = removed.oldest and removed.older_than and removed.oldest < removed.older_than
    return {
        "table": removed.table,
        "retention": removed.retention or "forever",
        "removes before": _minute(removed.older_than),
        "oldest (UTC)": _minute(removed.oldest),
        "has such": bool(older),
    }
