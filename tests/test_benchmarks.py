"""The benchmarks run, on few rows; what they measure at such sizes says nothing and is not looked at."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from benchmarks import pages, quotes, report
from benchmarks.catalog import BENCHMARKS
from benchmarks.figures import Aspect, Figure
from benchmarks.measure import Contender, Timing, race
from benchmarks.server import Server, Stand
from benchmarks.sizes import Sizes

FEW = Sizes.of(200, rounds=1)


@pytest.mark.parametrize("name", BENCHMARKS)
async def test_a_benchmark_runs_to_its_end(arbstore_server: URL, name: str) -> None:
    server = Server(arbstore_server)
    figures = await BENCHMARKS[name](server, FEW)
    assert figures or (name == "compressed" and (await server.describe())["edition"] != "community")
    for figure in figures:
        assert min(figure.ours.seconds + figure.theirs.seconds) > 0
        assert figure.spread[0] <= figure.ratio <= figure.spread[1]


async def test_the_command_prints_its_table_and_writes_the_run(arbstore_server: URL, tmp_path: Path) -> None:
    url = arbstore_server.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "benchmarks", "--database", url, "--only", "lookups", "--rounds", "1"]
    command += ["--rows", "200", "--json", str(tmp_path / "run.json")]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=pages.CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    run = report.Run.read(tmp_path / "run.json")
    assert [figure.name for figure in run.figures] == ["cached by_enum", "cached get", "cached by_pair"]
    assert all(figure.name in done.stdout for figure in run.figures)
    assert "TTLCache[key]" in done.stdout
    assert run.sizes["batch"] == 200
    assert run.place in done.stdout


async def test_the_embedded_server_of_benchmarks_is_as_durable_as_a_real_one() -> None:
    async with Server.named("embedded") as server:
        described = await server.describe()
    assert described["fsync"] == described["synchronous_commit"] == "on"


async def test_an_emptied_table_keeps_its_chunks(arbstore_server: URL) -> None:
    async with Server(arbstore_server).stand(3) as stand:
        await write(stand)
        chunks = await stand.chunks()
        await stand.empty()
        assert await stand.raw.fetchval("SELECT count(*) FROM book_ticker_snapshots") == 0
        assert await stand.chunks() == chunks
        assert bool(chunks) is await stand.is_chunked()


async def write(stand: Stand) -> None:
    async with stand.db.begin() as store:
        await store.book_tickers.insert(quotes.recent(10, stand.symbols).records)


async def test_the_order_is_turned_round_each_round_and_the_first_one_does_not_count() -> None:
    calls: list[str] = []

    def contender(name: str) -> Contender:
        async def prepare() -> None:
            calls.append(f"prepare {name}")

        async def work() -> None:
            calls.append(name)

        return Contender(name, work, 1, prepare)

    times = await race([contender("a"), contender("b")], 2)
    assert [call for call in calls if len(call) == 1] == ["b", "a", "a", "b", "b", "a"]
    assert calls[::2] == [f"prepare {call}" for call in calls[1::2]]
    assert {name: len(timing.seconds) for name, timing in times.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("aspect", "bound", "ratio", "met"),
    [
        (Aspect.SPEED, 0.5, 0.5, True),
        (Aspect.SPEED, 0.51, 0.5, False),
        (Aspect.TIME, 2.0, 2.0, True),
        (Aspect.TIME, 1.99, 2.0, False),
        (Aspect.TIME, None, 2.0, None),
    ],
)
def test_a_bound_is_the_least_speed_or_the_most_time(
    aspect: Aspect, bound: float | None, ratio: float, met: bool | None
) -> None:
    ours, theirs = Timing("ours", 10, [3.0, 4.0, 5.0]), Timing("theirs", 5, [1.0, 9.0, 0.5])
    figure = Figure(name="", ours=ours, theirs=theirs, bound=bound, aspect=aspect)
    assert figure.ratio == ratio
    assert figure.met is met


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_a_page_quotes_the_last_runs(page: Path) -> None:
    assert page.read_text() == pages.quoted(page)
