"""`arbstore demo`: the library at work, on a database of its own."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arbstore.cli import show
from arbstore.cli.command import Options, options_of, run
from arbstore.cli.ingest import ingest_shown
from arbstore.cli.schema import deploy
from arbstore.cli.times import time_column
from arbstore.cli.upkeep import stats_table
from arbstore.ingest import Clock, Expired, IngestOptions
from arbstore.records import Record, StoredBookTicker, StoredOpportunity

if TYPE_CHECKING:
    from rich.table import Table

    from arbstore.database import Database
    from arbstore.demo import Findings, Spread, Written
    from arbstore.settings import Settings

# What the names of recordings begin with, and whose they are.
_RECORDINGS = {
    "binance_spot__": "BINANCE_SPOT",
    "binance_usdm__": "BINANCE_FUTURES",
    "binance_coinm__": "BINANCE_COINM_FUTURES",
}


class Shown(Record, frozen=True, kw_only=True):
    """All that the demo shows; `seed` is None where the market is recorded, not simulated."""

    simulated: bool
    seed: int | None
    written: Written
    findings: Findings
    exchanges: dict[int, str]


def demo(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Recordings to use instead: binance_spot__*, binance_usdm__* and binance_coinm__*.",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="N", min=0.1, help="How long the market is simulated.")] = 3.0,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed simulates the same market.")] = 7,
) -> None:
    """Show the library at work on a simulated market.

    It takes an embedded database of its own, which is deleted afterwards, whatever the environment says. With
    --database it writes there, leaves what it wrote, and keeps recordings for good: name one that nobody uses.
    """
    options = options_of(context)
    files = None if data is None else _recordings(data)
    with _database(options) as settings:
        if files is None:
            shown = run(settings, lambda db: _simulated(db, seconds, seed))
        else:
            shown = run(settings, lambda db: _recorded(db, files))
    if options.json:
        show.print_json(_document(shown))
    else:
        _print(shown)


def _recordings(folder: Path) -> dict[str, list[Path]]:
    # Below it, too: the recordings may lie in one folder of several.
    found = {exchange: sorted(folder.rglob(f"{prefix}*.jsonl*")) for prefix, exchange in _RECORDINGS.items()}
    if not any(found.values()):
        names = ", ".join(f"{prefix}*.jsonl.gz" for prefix in _RECORDINGS)
        raise typer.BadParameter(f"{folder} has no recordings: {names}", param_hint="--data")
    return {exchange: files for exchange, files in found.items() if files}


@contextmanager
def _database(options: Options) -> Iterator[Settings]:
    from arbstore.settings import EMBEDDED, Settings

    if options.database is not None:
        yield Settings.load(database_url=options.database)
        return
    with tempfile.TemporaryDirectory(prefix="arbstore-demo-", ignore_cleanup_errors=True) as folder:
        typer.echo("arbstore: starting an embedded PostgreSQL in a temporary directory", err=True)
        yield Settings.load(database_url=f"{EMBEDDED}:{folder}/postgres")


async def _simulated(db: Database, seconds: float, seed: int) -> Shown:
    from arbstore.demo import feed, look

    await deploy(db)
    start = datetime.now(UTC)
    with show.progress() as bars:
        task = bars.add_task("simulated market", total=None)
        written = await feed(
            db, seconds=seconds, seed=seed, progress=lambda done, of: bars.update(task, completed=done, total=of)
        )
    findings = await look(db, since=start)
    return Shown(simulated=True, seed=seed, written=written, findings=findings, exchanges=await _exchanges(db))


async def _recorded(db: Database, recordings: Mapping[str, list[Path]]) -> Shown:
    from arbstore.demo import Written, look

    await deploy(db)
    rows: Counter[str] = Counter()
    began = time.perf_counter()
    for exchange, files in recordings.items():
        # The spot messages have no other clock, and quotes are compared by one. Recordings are old, and are to stay.
        options = IngestOptions(exchange=exchange, clock=Clock.LOCAL, expired=Expired.KEEP)
        report = await ingest_shown(db, files, options)
        rows.update({kind: result.written for kind, result in report.total.results.items()})
    written = Written(rows=dict(rows), seconds=time.perf_counter() - began)
    return Shown(simulated=False, seed=None, written=written, findings=await look(db), exchanges=await _exchanges(db))


async def _exchanges(db: Database) -> dict[int, str]:
    async with db.begin() as store:
        return {exchange.id: exchange.enum_value for exchange in await store.exchanges.all()}


def _document(shown: Shown) -> dict[str, Any]:
    found = shown.findings
    return {
        "simulated": shown.simulated,
        "seed": shown.seed,
        "written": shown.written.rows,
        "seconds": shown.written.seconds,
        "rows_per_second": shown.written.rows_per_second,
        "quotes": found.quotes,
        "spreads": [_spread(spread) for spread in found.spreads],
        "opportunities_found": found.opportunities_found,
        "opportunities": found.opportunities,
        "tables": found.tables,
    }


def _spread(spread: Spread) -> dict[str, Any]:
    buy, sell = spread.buy, spread.sell
    return {
        "pair": show.pair(buy.symbol_base, buy.symbol_quote),
        "buy_on": buy.exchange,
        "ask": buy.ask_price,
        "sell_on": sell.exchange,
        "bid": sell.bid_price,
        "spread_bps": round(spread.bps, 2),
    }


def _print(shown: Shown) -> None:
    from arbstore.demo import TAKER_FEE_BPS

    found, written = shown.findings, shown.written
    source = f"a SIMULATED market (seed {shown.seed}): no price here is real" if shown.simulated else "recordings"
    counts = " and ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in written.rows.items())
    work = "Writing" if shown.simulated else "Reading and writing"
    parts: list[str | Table] = [
        f"Stored {counts}",
        f"of {source}.",
        f"{work} them took {written.seconds:.2f} s: {written.rows_per_second:,.0f} rows a second.",
        show.table(_quote_rows(found.quotes), "The latest quotes (store.book_tickers.latest)"),
        show.table(map(_spread, found.spreads), "Across exchanges: where to buy, where to sell, and the spread"),
        f"{found.opportunities_found:,} times a spread was beyond both taker's fees, {TAKER_FEE_BPS:g} bps each.",
    ]
    if found.opportunities:
        title = "The newest of each way, the widest first (store.opportunities.latest)"
        parts.append(show.table((_opportunity_row(row, shown.exchanges) for row in found.opportunities), title))
    show.print_people(*parts, stats_table(found.tables, "The tables (store.maintenance.stats)"))


def _quote_rows(quotes: Sequence[StoredBookTicker]) -> list[dict[str, Any]]:
    header, times = time_column(quote.timestamp for quote in quotes)
    return [
        {
            "exchange": quote.exchange,
            "pair": show.pair(quote.symbol_base, quote.symbol_quote),
            "bid": quote.bid_price,
            "ask": quote.ask_price,
            "bps": round(quote.spread_bps, 2),
            header: time,
        }
        for quote, time in zip(quotes, times, strict=True)
    ]


def _opportunity_row(row: StoredOpportunity, exchanges: Mapping[int, str]) -> dict[str, Any]:
    return {
        "pair": show.pair(row.symbol_base, row.symbol_quote),
        "buy on": row.exchange,
        "at": row.buy_price,
        "sell on": exchanges[row.sell_exchange_id],
        "for": row.sell_price,
        "bps": round(row.spread_bps, 2),
        "net": row.net_profit and round(row.net_profit, 2),
        "ms": row.duration_ms,
    }
