"""The command: run the benchmarks, print their table, write their JSON."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from arbstore.settings import EMBEDDED
from benchmarks import machine, pages, report
from benchmarks.catalog import BENCHMARKS
from benchmarks.figures import Figure
from benchmarks.server import Server
from benchmarks.sizes import BATCH, Sizes

_LAST = Path(__file__).parent / "results" / "last.json"


def main() -> None:
    """Run what the arguments name; a missed bound is reported, and no failure: machines differ."""
    arguments = _arguments()
    run = asyncio.run(measure(arguments.database, Sizes.of(arguments.rows, arguments.rounds), arguments.only))
    report.show(run, Console(width=None if Console().is_terminal else 200))
    run.write(arguments.json)
    if arguments.write_docs:
        pages.keep(run)


async def measure(database: str, sizes: Sizes, names: list[str] | None = None) -> report.Run:
    """Run the benchmarks of these names, or all, on one server."""
    figures: list[Figure] = []
    described = machine.describe()  # before there is a load of our own
    async with Server.named(database) as server:
        for name in names or BENCHMARKS:
            Console(stderr=True).print(f"{name} …")
            figures += await BENCHMARKS[name](server, sizes)
        served = await server.describe()
    return report.Run(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=described,
        server=served,
        versions=machine.versions(),
        sizes=asdict(sizes),
        figures=figures,
    )


def _arguments() -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks", description="What arbstore costs, beside the bare drivers.")
    parser.add_argument("--database", default=EMBEDDED, metavar="embedded|docker|URL")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="one benchmark; may be given again")
    parser.add_argument("--rounds", type=int, default=Sizes.rounds, help="that count; one before them warms up")
    parser.add_argument("--rows", type=int, default=BATCH, help="of a large batch; all else is in proportion")
    parser.add_argument("--json", type=Path, default=_LAST, metavar="FILE", help="where the whole run is written")
    parser.add_argument(
        "--write-docs", action="store_true", help="keep the run as the last one of its edition, and quote it"
    )
    arguments = parser.parse_args()
    if arguments.write_docs and arguments.only:
        parser.error("--write-docs quotes whole runs: leave out --only")
    return arguments


if __name__ == "__main__":
    main()
