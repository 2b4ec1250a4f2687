"""`arbstore db upgrade`, `current`, `status` and `align`: the schema, and how well the server does what it declares."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbstore.cli import show
from arbstore.cli.command import BEHIND, answer, logged, option, options_of, run, wrong_use

if TYPE_CHECKING:
    from rich.table import Table

    from arbstore.database import Database
    from arbstore.deploy.align import AlignmentPlan, PlannedStep
    from arbstore.deploy.status import Status, TableStatus
    from arbstore.migrations import Deployment

_TABLE = ("table", "kind", "chunks", "chunk_interval", "retention", "enforced_by")


def upgrade(
    context: typer.Context,
    revision: Annotated[
        str, typer.Argument(metavar="REVISION", help="The revision to deploy: head, or one such as 0002.")
    ] = "head",
) -> None:
    """Deploy the schema, or bring it up to date."""
    from arbstore import migrations
    from arbstore.deploy.status import status_of

    with wrong_use("REVISION"):
        migrations.check_revision(revision)

    async def work(db: Database) -> tuple[Deployment, Status]:
        return await migrations.deploy(db, revision), await status_of(db)

    with logged("arbstore", "alembic_timescaledb", "alembic.runtime.migration"):
        done, found = run(context, work)
    more = {"edition": found.edition, "lacks": found.lacks, "drift": found.drift}
    answer(context, msgspec.structs.asdict(done) | more, lambda: _upgraded(done, found))


def current(context: typer.Context) -> None:
    """Show the schema's revision.

    Exits with 1 unless it is the newest.
    """
    from arbstore import migrations

    revision, head = run(context, migrations.revisions)
    up_to_date = revision == head
    remedy = "" if up_to_date else "; run `arbstore db upgrade`"
    document = {"revision": revision, "head": head, "up_to_date": up_to_date}
    answer(context, document, lambda: [f"revision {revision or 'none'}, newest {head}{remedy}"])
    if not up_to_date:
        raise typer.Exit(BEHIND)


def status(context: typer.Context) -> None:
    """Show the server, its tables and its jobs.

    Also shows the differences from the declared schema, and what the server's edition lacks.
    """
    from arbstore.deploy.status import status_of

    found = run(context, status_of)
    answer(context, found, lambda: _status(found))


_Yes = Annotated[bool, option(None, "Do not ask.", "--yes")]
_DryRun = Annotated[bool, option(None, "Show the steps, and do nothing.", "--dry-run")]


def align(context: typer.Context, yes: _Yes = False, dry_run: _DryRun = False) -> None:
    """Create what the server can do now and could not before.

    Use it after a move from plain PostgreSQL to TimescaleDB, or to its Community edition. Existing rows move into
    chunks; retention policies, columnstores and jobs are created. It shows its steps and asks before it starts.
    It can be interrupted and repeated. While a table's rows move, its readers and writers wait. It exits with 1 if a
    difference is left.
    """
    from arbstore.deploy.align import align, plan_alignment

    planned = run(context, plan_alignment)
    if not planned.steps or dry_run:
        _answer_plan(context, planned, ())
    else:
        if not options_of(context).json:
            show.print_people(*_lines(planned))
        if not yes:
            _ask(len(planned.steps))
        left = run(context, lambda db: align(db, planned, progress=_tell))
        _answer_plan(context, left, planned.steps)
        planned = left
    if planned.left or (planned.steps and not dry_run):
        raise typer.Exit(BEHIND)


def sync(context: typer.Context, yes: _Yes = False, dry_run: _DryRun = False) -> None:
    """Do what `arbstore db align` does; this is its old name."""
    typer.echo("arbstore: `arbstore db sync` is now called `arbstore db align`", err=True)
    align(context, yes, dry_run)


def _upgraded(done: Deployment, found: Status) -> Iterator[str]:
    yield from (f"applied {step.revision}: {step.title}" for step in done.applied)
    yield f"the schema is at {done.after}" + ("" if done.applied else " already")
    if found.drift:
        yield f"{len(found.drift)} differences from the declared schema: run `arbstore db align`"
    yield from _lacks(found)


def _lacks(found: Status) -> Iterator[str]:
    for lack in found.lacks:
        yield f"this edition ({found.edition}) lacks {lack.feature}: {lack.instead}"


def _status(found: Status) -> Iterator[str | Table]:
    extension = f"TimescaleDB {found.timescaledb}, {found.edition} edition" if found.timescaledb else "no TimescaleDB"
    behind = "" if found.revision == found.head else f", newest {found.head}: run `arbstore db upgrade`"
    yield f"database  {found.database}"
    yield f"server    PostgreSQL {found.postgresql}, {extension}"
    yield f"schema    {'not deployed' if found.revision is None else f'revision {found.revision}'}{behind}"
    yield show.table(found.tables, *_TABLE)
    if jobs := [_job_row(table) for table in found.tables if table.columnstore or table.failed is not None]:
        yield show.table(jobs)
    if found.candles:
        yield show.table(found.candles, "origin", "made_until", "dropped_before", "late")
    yield from (f"not as declared: {one.what}; {one.remedy}" for one in found.drift)
    yield from _lacks(found)


def _job_row(found: TableStatus) -> dict[str, Any]:
    stored = found.columnstore
    return {
        "table": found.table,
        "by column": stored and stored.chunks,
        "before": stored and stored.ratio and show.size(stored.bytes_before),
        "after": stored and stored.ratio and show.size(stored.bytes_after),
        "ratio": stored and stored.ratio,
        "last_drop": "failed" if found.failed else found.last_run,
        "next_drop": found.next_run,
    }


def _ask(steps: int) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter("needed, because nobody can be asked here (see --dry-run)", param_hint="--yes")
    typer.confirm(f"Do these {steps} steps?", abort=True, err=True)


def _tell(number: int, count: int, step: str) -> None:
    typer.echo(f"{number}/{count}  {step}", err=True)


def _answer_plan(context: typer.Context, found: AlignmentPlan, done: Iterable[PlannedStep]) -> None:
    document = {"edition": found.edition, "done": list(done), "steps": found.steps, "left": found.left}
    if found.steps:
        state = ["something changed meanwhile: run `arbstore db align` again"] if done else []
    else:
        state = ["nothing is left to do" if done else "nothing to do"]
    answer(context, document, lambda: [*state, *_lines(found)])


def _lines(found: AlignmentPlan) -> Iterator[str]:
    width = len(str(len(found.steps)))
    yield from (f"{number:>{width}}  {_line(step)}" for number, step in enumerate(found.steps, 1))
    yield from (f"left: {one.what}: {one.why}" for one in found.left)


def _line(step: PlannedStep) -> str:
    if step.rows is not None and step.bytes is not None:
        return f"{step.what}: {'~' if step.estimated else ''}{step.rows:,} rows, {show.size(step.bytes)}"
    if step.drops_from is not None:
        return f"{step.what}: drops at once what it has from {show.minute(step.drops_from)} UTC on"
    return step.what
