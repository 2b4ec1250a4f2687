"""`arbstore history --out`: the rows of one series into a Parquet file, however many they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from arbstore.cli import show
from arbstore.cli.command import options_of, run, settings_of

if TYPE_CHECKING:
    from arbstore.database import Database
    from arbstore.frames.parquet import Export

_SUFFIX = ".parquet"


@dataclass(frozen=True, slots=True)
class Target:
    """The file, and whether it may be replaced."""

    path: Path
    force: bool

    def check(self) -> None:
        """Refuse, as a usage error, what need not wait for the database to be refused."""
        if self.path.suffix.lower() != _SUFFIX:
            raise typer.BadParameter(f"{self.path} is to be a Parquet file: name it {_SUFFIX}", param_hint="--out")
        if not self.path.parent.is_dir():
            raise typer.BadParameter(f"{self.path.parent} is no folder", param_hint="--out")
        if self.path.is_dir():
            raise typer.BadParameter(f"{self.path} is a folder", param_hint="--out")
        if self.path.exists() and not self.force:
            raise typer.BadParameter(f"{self.path} exists: --force replaces it", param_hint="--out")


def export(context: typer.Context, target: Target, kind: str, series: Sequence[Any], **window: Any) -> None:
    """Write the series, with bars on stderr while it goes on, and say what was written."""
    target.check()
    options = options_of(context)

    async def work(db: Database) -> Export:
        with show.progress() as bars:
            task = bars.add_task(target.path.name, total=None)

            def update(rows: int, size: int) -> None:
                bars.update(task, description=f"{target.path.name}  {rows:,} rows  {show.size(size)}")

            return await db.frames.export(target.path, kind, *series, overwrite=target.force, progress=update, **window)

    done = run(settings_of(options), work)
    if options.json:
        show.print_json({"file": done.path, "rows": done.rows, "bytes": done.bytes})
    else:
        show.print_people(f"{done.path}: {done.rows:,} rows, {show.size(done.bytes)}")
