"""`arbstore db sync`: a deployed database is brought up to a server that can more than it could."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arbstore.cli import show
from arbstore.cli.command import options_of, run, settings_of
from arbstore.cli.failures import BEHIND

if TYPE_CHECKING:
    from arbstore.deploy.align import PlannedStep, SyncPlan


def sync(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
) -> None:
    """Bring the tables up to a server that can more than it could.

    After a move from plain PostgreSQL to TimescaleDB, or to its Community edition: existing rows move into chunks,
    and policies, columnstores and candles' views come. It says what it will do, and asks. It can be interrupted and
    repeated; while a table's rows move, its readers and writers wait. Exits with 1 where something is left.
    """
    from arbstore.deploy.align import plan_sync
    from arbstore.deploy.align import sync as perform

    options = options_of(context)
    settings = settings_of(options)
    planned = run(settings, plan_sync)
    if not planned.steps or dry_run:
        _report(planned, (), as_json=options.json)
    else:
        if not options.json:
            show.print_people(*_lines(planned))
        if not yes:
            _ask(len(planned.steps))
        left = run(settings, lambda db: perform(db, planned, progress=_tell))
        _report(left, planned.steps, as_json=options.json)
        planned = left
    if planned.left or (planned.steps and not dry_run):
        raise typer.Exit(BEHIND)


def _ask(steps: int) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "is missing: nobody is here to be asked; --dry-run shows the steps", param_hint="--yes"
        )
    typer.confirm(f"Do these {steps} steps?", abort=True, err=True)


def _tell(number: int, count: int, step: str) -> None:
    typer.echo(f"{number}/{count}  {step}", err=True)


def _report(found: SyncPlan, done: Iterable[PlannedStep], *, as_json: bool) -> None:
    if as_json:
        show.print_json({"edition": found.edition, "done": list(done), "steps": found.steps, "left": found.left})
    elif found.steps and done:
        show.print_people("this came up meanwhile: run `arbstore db sync` again", *_lines(found))
    elif found.steps:
        show.print_people(*_lines(found))
    else:
        show.print_people("nothing is left to do" if done else "nothing to do", *_left_lines(found))


def _lines(found: SyncPlan) -> list[str]:
    width = len(str(len(found.steps)))
    steps = [f"{number:>{width}}  {_line(step)}" for number, step in enumerate(found.steps, 1)]
    return [*steps, *_left_lines(found)]


def _left_lines(found: SyncPlan) -> list[str]:
    return [f"left: {one.what}: {one.why}" for one in found.left]


def _line(step: PlannedStep) -> str:
    if step.rows is not None and step.bytes is not None:
        about: Any = "~" if step.estimated else ""
        return f"{step.what}: {about}{step.rows:,} rows, {show.size(step.bytes)}"
    if step.drops_from is not None:
        return f"{step.what}: it has some from {show.cell(step.drops_from)[:16]} UTC on, which go at once"
    return step.what
