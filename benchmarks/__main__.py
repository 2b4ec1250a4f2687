"""The command: run the benchmarks, print their table, and compare it with the kept results or keep it."""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from rich.console import Console

from arbstore.settings import EMBEDDED
from benchmarks import candles, client, growth, reads, report, runs, writes
from benchmarks.measure import Figure
from benchmarks.server import Server
from benchmarks.sizes import BATCH, Sizes

Benchmark = Callable[[Server, Sizes], Awaitable[list[Figure]]]

BENCHMARKS: Mapping[str, Benchmark] = {
    "insert": writes.insert_many,
    "insert-few": writes.insert_few,
    "compressed": writes.compressed,
    "latest": reads.latest,
    "history": reads.history,
    "candles": candles.candles,
    "marks": candles.marks,
    "lookups": client.cached_lookups,
    "startup": client.startup,
    "growth": growth.growth,
}

_DESCRIPTION = """\
Measure arbstore against the bare drivers, side by side on one server.

All benchmarks take 5 to 10 minutes on one server with the default rounds and rows. Do not use the machine meanwhile.
A missed bound is marked in the table, and is no failure: machines differ. With --compare a figure fails the run (exit
status 1) if it has a bound and its ratio is more than 20 % worse than the kept one of the same edition. Figures without
a bound are reported only: they tell more about the machine, or about the other side, than about arbstore.
"""


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the arguments name, and return the exit status."""
    arguments = _arguments(given)
    run = asyncio.run(measure(arguments.database, Sizes.of(arguments.rows, arguments.rounds), arguments.only))
    console = Console(width=None if Console().is_terminal else 200)
    report.show(run, console)
    status = 0
    if arguments.compare:
        before = runs.kept(run.edition)
        if before is None:
            sys.exit(f"no results are kept for the edition {run.edition}: run with --write-docs first")
        status = int(report.show_comparison(run, before, console))
    if arguments.write_docs:
        run.write(runs.FOLDER / f"{run.edition}.json")
        report.write_pages()
    return status


async def measure(database: str, sizes: Sizes, names: Sequence[str] | None = None) -> runs.Run:
    """Run the benchmarks with these names, or all, on one server."""
    figures: list[Figure] = []
    load = os.getloadavg()[0]  # before the benchmarks load the machine themselves
    async with Server.named(database) as server:
        for name in names or BENCHMARKS:
            Console(stderr=True).print(f"{name} …")
            figures += await BENCHMARKS[name](server, sizes)
        return runs.describe(await server.describe(), load, figures)


def _arguments(given: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(
        prog="python -m benchmarks", description=_DESCRIPTION, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--database",
        default=EMBEDDED,
        metavar="embedded|docker|URL",
        help="the server; the role of a URL must be able to create databases",
    )
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="run this benchmark; can be repeated")
    parser.add_argument("--rounds", type=int, default=Sizes.rounds, help="timed rounds, after one that warms up")
    parser.add_argument("--rows", type=int, default=BATCH, help="rows of a large batch; other sizes are in proportion")
    parser.add_argument("--compare", action="store_true", help="compare with the kept results of the server's edition")
    parser.add_argument(
        "--write-docs", action="store_true", help="keep the results and write them into README.md and docs/"
    )
    arguments = parser.parse_args(given)
    if arguments.write_docs and arguments.only:
        parser.error("--write-docs needs all benchmarks: leave out --only")
    if (arguments.write_docs or arguments.compare) and arguments.rows != BATCH:
        parser.error("--write-docs and --compare need the default number of rows: leave out --rows")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
