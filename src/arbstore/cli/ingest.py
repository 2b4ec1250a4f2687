"""`arbstore ingest`: writes files into the database, and shows what became of every line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arbstore.cli import show
from arbstore.cli.command import answer, option, run
from arbstore.cli.series import read_kind
from arbstore.ingest import Clock, Expired, IngestOptions

if TYPE_CHECKING:
    from rich.table import Table

    from arbstore.database import Database
    from arbstore.ingest import Counts, FileReport, IngestReport, RegisteredSymbol

_SHOWN_SYMBOLS = 20
_FILES = "Recordings (.jsonl), tables (.csv, .ndjson, .parquet), Lean's .zip; .gz too."
_UtcOffset = Annotated[
    timedelta | None, option("OFFSET", "Of times without a zone: +03:00 if ahead of UTC.", read=show.read_offset)
]


def ingest(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help=_FILES)],
    exchange: Annotated[str | None, option("NAME", "The exchange, if the files do not name it: BINANCE_SPOT.")] = None,
    clock: Annotated[Clock, option(None, "For recordings: whose clock dates the messages.")] = Clock.EXCHANGE,
    symbols: Annotated[Path | None, option("FILE", "A listing (.csv) that describes unknown symbols.")] = None,
    skip_bad: Annotated[bool, option(None, "Count malformed lines instead of stopping.", "--skip-bad")] = False,
    kind: Annotated[str | None, option("KIND", "What a table's rows are: trades, candles, …", read=read_kind)] = None,
    utc_offset: _UtcOffset = None,
    timeframe: Annotated[str | None, option("LENGTH", "Of candles, if the file does not name it: 1m.")] = None,
    keep: Annotated[
        bool, option(None, "With rows older than the retention: keep the table for good.", "--keep")
    ] = False,
    anyway: Annotated[bool, option(None, "Write such rows; the next cleanup removes them again.", "--anyway")] = False,
) -> None:
    """Write files of recordings into the database.

    A file is written whole or not at all, and writing it again changes nothing. A file with rows older than their
    table's retention (see `arbstore db retention`) needs --keep or --anyway. Deploy the schema first, by `arbstore db
    upgrade`; the embedded database gets it by itself.
    """
    if keep and anyway:
        raise typer.BadParameter("use only one of them", param_hint="--keep, --anyway")
    options = IngestOptions(
        exchange=exchange,
        clock=clock,
        symbols=symbols,
        skip_bad=skip_bad,
        kind=kind,
        utc_offset=utc_offset,
        timeframe=timeframe,
        expired=Expired.KEEP if keep else Expired.ANYWAY if anyway else Expired.REFUSE,
    )
    report = run(context, lambda db: _ingest(db, files, options))
    answer(context, {"files": report.files, "total": report.total}, lambda: _report(report))


async def _ingest(db: Database, files: list[Path], options: IngestOptions) -> IngestReport:
    from arbstore import migrations
    from arbstore.settings import EMBEDDED

    if db.settings.url.drivername == EMBEDDED:
        done = await migrations.deploy(db)
        if done.applied:
            typer.echo(f"arbstore: deployed the schema ({done.after}) on the embedded database", err=True)
    return await with_progress(db, files, options)


async def with_progress(db: Database, files: list[Path], options: IngestOptions) -> IngestReport:
    """Ingest the files and show the progress of each."""
    from arbstore.ingest import ingest

    with show.progress() as update:
        return await ingest(db, files, options, progress=lambda path, read, size: update(path.name, done=read, of=size))


def _report(report: IngestReport) -> Iterator[str | Table]:
    total = report.total
    yield show.table(map(_file_row, report.files))
    if total.results:
        shown = ("given", "written", "superseded")
        rows = (
            {"rows": kind} | dict(zip(shown, result, strict=False)) for kind, result in sorted(total.results.items())
        )
        yield show.table(rows)
    yield from _notes(total)
    for file in report.files:
        yield from (f"malformed: {file.path.name}, line {bad.line}: {bad.reason}" for bad in file.first_bad)


def _file_row(file: FileReport) -> dict[str, Any]:
    return {
        "file": file.path.name,
        "read as": file.format,
        "lines": file.lines,
        "no market data": file.ignored.total(),
        "malformed": file.bad,
    }


def _notes(total: Counts) -> Iterator[str]:
    for reason, count in total.ignored.most_common():
        yield f"no market data: {count:,} lines: {reason}"
    if total.dated_locally:
        yield f"dated by the recorder's clock, because the exchange sent no time: {total.dated_locally:,} book tickers"
    for kind, result in sorted(total.results.items()):
        if result.too_late:
            rows, minutes = f"{result.too_late:,} {kind.replace('_', ' ')}", f"minutes: {result.too_late_minutes:,}"
            yield f"too late for candles, which stay as they are because their other rows are gone: {rows}; {minutes}"
    for table, count in sorted(total.expired.items()):
        yield f"older than the retention of {table}, and gone after the next cleanup: {count:,} rows"
    for table in total.lifted:
        yield f"{table} is kept for good from now on: `arbstore db retention {table} --reset` ends that"
    yield from (f"registered exchange {exchange}" for exchange in total.exchanges)
    yield from map(_registered, total.symbols[:_SHOWN_SYMBOLS])
    if (more := len(total.symbols) - _SHOWN_SYMBOLS) > 0:
        yield f"registered {more:,} more symbols: `arbstore symbols` lists them"


def _registered(registered: RegisteredSymbol) -> str:
    exchange, symbol, derived = registered
    source = "derived from its name" if derived else "as listed"
    pair = show.pair(symbol.symbol_base, symbol.symbol_quote)
    return f"registered {exchange} {symbol.exchange_symbol} ({pair}, {symbol.symbol_type}), {source}"
