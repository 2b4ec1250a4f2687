"""`arbstore db stats` and `cleanup`: how large the tables are, and what has outlived its retention."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arbstore.cli import show
from arbstore.cli.command import options_of, run, settings_of
from arbstore.cli.times import read_duration
from arbstore.records import Record

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from arbstore.database import Database
    from arbstore.services.maintenance import TableStats

_ROWS_A_TRANSACTION = 10_000


class Removed(Record, frozen=True, kw_only=True):
    """What a cleanup removed from one table, or, where `rows` and `chunks` are None, would.

    `older_than` is None where everything is kept; `oldest` is known only where nothing was removed.
    """

    table: str
    retention: timedelta | None
    older_than: datetime | None
    rows: int | None = None
    chunks: int | None = None
    oldest: datetime | None = None


def stats(context: typer.Context) -> None:
    """Show rows, sizes and times of all tables; ~: an estimate."""
    options = options_of(context)
    found = run(settings_of(options), _stats)
    if options.json:
        show.print_json(found)
    else:
        show.print_people(stats_table(found))


def cleanup(
    context: typer.Context,
    retention: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE=DURATION", help="Keep this long instead: trade_snapshots=12h, ticks=none."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False,
) -> None:
    """Remove the rows that are older than their table's retention.

    It takes many short transactions: nobody waits for it long, and what is interrupted keeps what it has done.
    """
    options = options_of(context)
    ages = _ages(retention or [])
    if dry_run:
        removed = run(settings_of(options), lambda db: _plan(db, ages))
    else:
        with show.progress() as bars:
            removed = run(settings_of(options), lambda db: _cleanup(db, ages, bars))
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


def _ages(wanted: list[str]) -> dict[str, timedelta | None]:
    """Return the retention of every time-series table."""
    from arbstore.services.maintenance import retentions

    try:
        return {table.name: age for table, age in retentions(dict(map(_age, wanted)))}
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--retention") from error


def _age(text: str) -> tuple[str, timedelta | None]:
    table, equals, age = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is no TABLE=DURATION: it looks like trade_snapshots=12h")
    return table.strip(), None if age.strip().lower() == "none" else read_duration(age)


async def _plan(db: Database, ages: dict[str, timedelta | None]) -> list[Removed]:
    now = datetime.now(UTC)
    oldest = {found.table: found.oldest for found in await _stats(db)}
    return [
        Removed(table=table, retention=age, older_than=None if age is None else now - age, oldest=oldest[table])
        for table, age in ages.items()
    ]


async def _cleanup(db: Database, ages: dict[str, timedelta | None], bars: Progress) -> list[Removed]:
    return [await _clean(db, table, age, bars) for table, age in ages.items()]


async def _clean(db: Database, table: str, age: timedelta | None, bars: Progress) -> Removed:
    if age is None:
        return Removed(table=table, retention=None, older_than=None, rows=0, chunks=0)
    older_than = datetime.now(UTC) - age
    rows = chunks = 0
    bar = bars.add_task(table, total=None)
    while True:
        # A transaction each: writers wait for none of them, and what is interrupted keeps what it has done.
        async with db.begin() as store:
            done = await store.maintenance.expire(table, older_than, _ROWS_A_TRANSACTION)
        rows, chunks = rows + done.rows, chunks + done.chunks
        bars.update(bar, description=f"{table}: {rows:,} rows, {chunks:,} chunks")
        if done.rows < _ROWS_A_TRANSACTION:
            bars.remove_task(bar)
            return Removed(table=table, retention=age, older_than=older_than, rows=rows, chunks=chunks)


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
