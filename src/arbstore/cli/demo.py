"""`arbstore demo`: the library at work, on a database of its own."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from arbstore.cli import show
from arbstore.cli.command import Options, answer, option, options_of, run
from arbstore.cli.ingest import with_progress
from arbstore.cli.upkeep import stats_table
from arbstore.ingest import Clock, Expired, IngestOptions

if TYPE_CHECKING:
    from rich.table import Table

    from arbstore.database import Database
    from arbstore.demo import Findings, Spread, Written
    from arbstore.settings import Settings

# What the names of recordings begin with, and their exchanges.
_RECORDINGS = {
    "binance_spot__": "BINANCE_SPOT",
    "binance_usdm__": "BINANCE_FUTURES",
    "binance_coinm__": "BINANCE_COINM_FUTURES",
}


def demo(
    context: typer.Context,
    data: Annotated[
        Path | None, option("DIR", "Use the recordings below this folder instead.", exists=True, file_okay=False)
    ] = None,
    seconds: Annotated[float, option("N", "How long to simulate the market.", min=0.1)] = 3.0,
    seed: Annotated[int, option("N", "The same seed simulates the same market.")] = 7,
) -> None:
    """Show the library at work on a simulated market.

    It runs on an embedded database of its own, and deletes it at the end, whatever the environment says. With
    --database it writes there, and leaves what it wrote: name a database that nobody uses. With --data it reads
    recordings instead: files named binance_spot__*, binance_usdm__* and binance_coinm__*.
    """
    recordings = None if data is None else _recordings(data)

    async def work(db: Database) -> tuple[Written, Findings]:
        from arbstore import migrations
        from arbstore.demo import look

        await migrations.deploy(db)
        if recordings is not None:
            return await _ingest(db, recordings), await look(db)
        start = datetime.now(UTC)
        return await _simulate(db, seconds, seed), await look(db, since=start)

    with _database(options_of(context)) as settings:
        written, findings = run(context, work, settings)
    simulated = None if recordings else seed
    answer(context, _document(simulated, written, findings), lambda: _shown(simulated, written, findings))


def _recordings(folder: Path) -> dict[str, list[Path]]:
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


async def _simulate(db: Database, seconds: float, seed: int) -> Written:
    from arbstore.demo import feed

    with show.progress() as update:
        return await feed(
            db, seconds=seconds, seed=seed, progress=lambda done, of: update("simulated market", done=done, of=of)
        )


async def _ingest(db: Database, recordings: Mapping[str, list[Path]]) -> Written:
    from arbstore.demo import Written

    rows: Counter[str] = Counter()
    began = time.perf_counter()
    for exchange, files in recordings.items():
        # Spot messages carry only the recorder's clock, and all quotes need one clock. Recordings are old: keep them.
        options = IngestOptions(exchange=exchange, clock=Clock.LOCAL, expired=Expired.KEEP)
        report = await with_progress(db, files, options)
        rows.update({kind: result.written for kind, result in report.total.results.items()})
    return Written(rows=dict(rows), seconds=time.perf_counter() - began)


def _document(seed: int | None, written: Written, found: Findings) -> dict[str, Any]:
    about = {"simulated": seed is not None, "seed": seed}
    rate = {"written": written.rows, "seconds": written.seconds, "rows_per_second": written.rows_per_second}
    return about | rate | msgspec.structs.asdict(found) | {"spreads": [_spread(spread) for spread in found.spreads]}


def _shown(seed: int | None, written: Written, found: Findings) -> Iterator[str | Table]:
    from arbstore.demo import TAKER_FEE_BPS

    counts = " and ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in written.rows.items())
    source = "recordings" if seed is None else f"a SIMULATED market (seed {seed}): no price here is real"
    work = "Reading and writing" if seed is None else "Writing"
    yield f"Stored {counts}"
    yield f"of {source}."
    yield f"{work} them took {written.seconds:.2f} s: {written.rows_per_second:,.0f} rows a second."
    yield show.table(_quotes(found), title="The latest quotes (store.book_tickers.latest)")
    yield show.table(map(_spread, found.spreads), title="Across exchanges: where to buy, where to sell, and the spread")
    yield f"{found.opportunities_found:,} times a spread paid more than both taker fees, {TAKER_FEE_BPS:g} bps each."
    if found.opportunities:
        yield show.table(
            _opportunities(found), title="The newest opportunities, widest first (store.opportunities.latest)"
        )
    yield stats_table(found.tables, "The tables (store.maintenance.stats)", chunks=False)


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


def _quotes(found: Findings) -> Iterator[dict[str, Any]]:
    header, times = show.time_column(quote.timestamp for quote in found.quotes)
    for quote, time_text in zip(found.quotes, times, strict=True):
        pair = show.pair(quote.symbol_base, quote.symbol_quote)
        prices = {"bid": quote.bid_price, "ask": quote.ask_price, "bps": round(quote.spread_bps, 2)}
        yield {"exchange": quote.exchange, "pair": pair} | prices | {header: time_text}


def _opportunities(found: Findings) -> Iterator[dict[str, Any]]:
    for row in found.opportunities:
        yield {
            "pair": show.pair(row.symbol_base, row.symbol_quote),
            "buy on": row.exchange,
            "at": row.buy_price,
            "sell on": found.exchanges[row.sell_exchange_id],
            "for": row.sell_price,
            "bps": round(row.spread_bps, 2),
            "net": row.net_profit and round(row.net_profit, 2),
            "ms": row.duration_ms,
        }
