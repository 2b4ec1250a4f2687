"""The benchmarks run on few rows here. Their figures mean nothing at such sizes, so that no test looks at them."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console
from sqlalchemy import URL

from benchmarks import quotes, report, runs
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.measure import Aspect, Contender, Figure, Timing, race
from benchmarks.runs import Result, Run
from benchmarks.server import Sandbox, Server
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


def test_the_command_prints_its_table_of_a_server_that_is_as_durable_as_a_real_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--database", "embedded", "--only", "lookups", "--rounds", "1", "--rows", "200"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("cached by_enum", "cached get", "cached by_pair", "TTLCache[key]"))
    assert "fsync on, synchronous_commit on" in printed


async def test_an_emptied_table_keeps_its_chunks(arbstore_server: URL) -> None:
    async with Server(arbstore_server).sandbox(3) as sandbox:
        await write(sandbox)
        chunks = await sandbox.chunks()
        await sandbox.empty()
        assert await sandbox.raw.fetchval("SELECT count(*) FROM book_ticker_snapshots") == 0
        assert await sandbox.chunks() == chunks
        assert bool(chunks) is await sandbox.is_chunked()


async def write(sandbox: Sandbox) -> None:
    async with sandbox.db.begin() as store:
        await store.book_tickers.insert(quotes.recent(10, sandbox.symbols).records)


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


def result(ratio: float, bound: float | None = None, aspect: Aspect = Aspect.SPEED, name: str = "insert") -> Result:
    ours, theirs = Timing("ours", 10, [3.0, 4.0, 5.0]), Timing("theirs", 5, [1.0, 9.0, 0.5])
    return replace(Result.of(Figure(name=name, ours=ours, theirs=theirs, bound=bound, aspect=aspect)), ratio=ratio)


def test_a_result_has_the_ratio_of_the_medians_and_the_extremes_of_the_rounds() -> None:
    ours, theirs = Timing("ours", 10, [3.0, 4.0, 5.0]), Timing("theirs", 5, [1.0, 9.0, 0.5])
    speed = Result.of(Figure(name="", ours=ours, theirs=theirs))
    assert (speed.ratio, speed.lowest, speed.highest) == (0.5, 0.2, 4.5)
    assert Result.of(Figure(name="", ours=ours, theirs=theirs, aspect=Aspect.TIME)).ratio == 2.0


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
def test_a_bound_is_the_lowest_speed_or_the_longest_time(
    aspect: Aspect, bound: float | None, ratio: float, met: bool | None
) -> None:
    assert result(ratio, bound, aspect).met is met


def a_run(*results: Result) -> Run:
    facts = dict.fromkeys(("edition", "server", "settings", "machine", "load", "versions"), "")
    return Run(**facts, date="2030-01-01", commit="abc", results=list(results))


@pytest.mark.parametrize(
    ("aspect", "ratio", "is_worse"),
    [
        (Aspect.SPEED, 0.79, True),
        (Aspect.SPEED, 0.81, False),
        (Aspect.SPEED, 9.0, False),
        (Aspect.TIME, 1.21, True),
        (Aspect.TIME, 1.19, False),
        (Aspect.TIME, 0.1, False),
    ],
)
def test_a_comparison_fails_if_a_bounded_ratio_is_a_fifth_worse(
    aspect: Aspect, ratio: float, is_worse: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    run, before = a_run(result(ratio, 1, aspect)), a_run(result(1.0, 1, aspect), result(1.0, name="not run"))
    assert report.show_comparison(run, before, Console()) is is_worse
    assert (f"insert, against theirs: {ratio:.2f} x" in capsys.readouterr().out) is is_worse


def test_a_figure_without_a_bound_is_named_and_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert not report.show_comparison(a_run(result(0.5)), a_run(result(1.0)), Console())
    assert "no bound" in capsys.readouterr().out


def test_a_run_is_written_with_a_line_for_each_figure(tmp_path: Path) -> None:
    run = a_run(result(1.0), result(2.0, 1.5))
    run.write(tmp_path / "run.json")
    assert Run.read(tmp_path / "run.json") == run
    assert len((tmp_path / "run.json").read_text().splitlines()) == 4


@pytest.mark.parametrize("page", report.PAGES, ids=lambda page: page.name)
def test_a_page_quotes_the_kept_runs(page: Path) -> None:
    assert page.read_text() == report.quoted(page)


def test_the_kept_results_are_small() -> None:
    assert sum(len(path.read_text().splitlines()) for path in runs.FOLDER.iterdir()) <= 250
