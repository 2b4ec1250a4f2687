"""`arbstore ingest`: files of recordings into the database, and what became of every line."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arbstore.cli import show
from arbstore.cli.command import options_of, parsed, run, settings_of
from arbstore.cli.schema import deploy
from arbstore.cli.series import Kind
from arbstore.cli.times import read_offset
from arbstore.ingest import Clock, Expired, IngestOptions

if TYPE_CHECKING:
    from arbstore.database import Database
    from arbstore.ingest import Counts, FileReport, IngestReport, RegisteredSymbol

_SHOWN_SYMBOLS = 20


def ingest(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES", help="Recordings (.jsonl), tables (.csv, .ndjson, .parquet), Lean's .zip; .gz too."
        ),
    ],
    exchange: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose they are, such as BINANCE_FUTURES, where they do not say.")
    ] = None,
    clock: Annotated[Clock, typer.Option(help="Whose clock dates the messages of a recording.")] = Clock.EXCHANGE,
    symbols: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A listing (.csv) to register unknown symbols from.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count malformed lines instead of stopping.")] = False,
    kind: Annotated[
        Kind | None, typer.Option(metavar="KIND", help="What the rows of a table are, where its columns do not tell.")
    ] = None,
    utc_offset: Annotated[
        timedelta | None,
        typer.Option(parser=parsed(read_offset), metavar="OFFSET", help="Of times without a zone: +03:00."),
    ] = None,
    timeframe: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Length of bars whose file does not name it, such as 1m.")
    ] = None,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Of rows that are older than what their table keeps: keep the table for good."),
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Write such rows, which a policy or the next cleanup removes again.")
    ] = False,
) -> None:
    """Write files of recordings into the database.

    The same file again leaves the same rows. Each file goes in whole or not at all; one with rows that are older than
    what their table keeps (`arbstore db retention`) wants --keep or --anyway. The schema must be there (`arbstore db
    upgrade`), save on the embedded database, which gets it first.
    """
    options = options_of(context)
    if keep and anyway:
        raise typer.BadParameter("one of them at a time", param_hint="--keep, --anyway")
    wanted = IngestOptions(
        exchange=exchange,
        clock=clock,
        symbols=symbols,
        skip_bad=skip_bad,
        kind=kind,
        utc_offset=utc_offset,
        timeframe=timeframe,
        expired=Expired.KEEP if keep else Expired.ANYWAY if anyway else Expired.REFUSE,
    )
    report = run(settings_of(options), lambda db: _ingest(db, files, wanted))
    if options.json:
        show.print_json({"files": report.files, "total": report.total})
    else:
        print_report(report)


async def _ingest(db: Database, files: list[Path], options: IngestOptions) -> IngestReport:
    from arbstore.settings import EMBEDDED

    if db.settings.url.drivername == EMBEDDED:
        done = await deploy(db)
        if done.applied:
            typer.echo(f"arbstore: deployed the schema ({done.after}) on the embedded database", err=True)
    return await ingest_shown(db, files, options)


async def ingest_shown(db: Database, files: list[Path], options: IngestOptions) -> IngestReport:
    """Ingest the files with a progress bar for each."""
    from arbstore.ingest import ingest

    with show.progress() as bars:
        tasks = {path: bars.add_task(path.name, total=None) for path in files}
        return await ingest(
            db,
            files,
            options,
            progress=lambda path, read, size: bars.update(tasks[path], completed=read, total=size),
        )


def print_report(report: IngestReport) -> None:
    """Print what became of every line."""
    total = report.total
    rows = [{"rows": kind, **result._asdict()} for kind, result in sorted(total.results.items())]
    bad = [
        f"malformed: {file.path.name}, line {bad.line}: {bad.reason}" for file in report.files for bad in file.first_bad
    ]
    tables = [show.table(map(_file_row, report.files)), *([show.table(rows)] if rows else [])]
    show.print_people(*tables, *_notes(total), *bad)


def _file_row(file: FileReport) -> dict[str, Any]:
    return {
        "file": file.path.name,
        "read as": file.format,
        "lines": file.lines,
        "no market data": file.ignored.total(),
        "malformed": file.bad,
    }


def _notes(total: Counts) -> list[str]:
    notes = [f"no market data: {count:,} lines: {reason}" for reason, count in total.ignored.most_common()]
    if total.dated_locally:
        notes.append(f"dated by the local clock, having no time of the exchange: {total.dated_locally:,} book tickers")
    notes += [
        f"older than what {table} keeps, and gone after the next cleanup: {count:,} rows"
        for table, count in sorted(total.expired.items())
    ]
    notes += [
        f"{table} is kept for good from now on: `arbstore db retention {table} --reset` ends that"
        for table in total.lifted
    ]
    notes += [f"registered exchange {exchange}" for exchange in total.exchanges]
    notes += [_registered(symbol) for symbol in total.symbols[:_SHOWN_SYMBOLS]]
    if (more := len(total.symbols) - _SHOWN_SYMBOLS) > 0:
        notes.append(f"registered {more:,} more symbols: `arbstore symbols` lists them")
    return notes


def _registered(registered: RegisteredSymbol) -> str:
    exchange, symbol, derived = registered
    source = "derived from its name" if derived else "as listed"
    pair = show.pair(symbol.symbol_base, symbol.symbol_quote)
    return f"registered {exchange} {symbol.exchange_symbol} ({pair}, {symbol.symbol_type}), {source}"
