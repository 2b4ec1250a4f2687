"""The README's promises: its blocks and the examples run as printed."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

from arbstore import migrations
from arbstore.database import Database

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text()
# Around a block that begins where `db` is open.
OPENED = """
import asyncio
from arbstore import Database
async def main():
    async with Database() as db:
{}
asyncio.run(main())
"""
EXAMPLES = {  # by their names, a line of what they print
    "collector": "InsertResult(given=2000, written=1000, superseded=1000, too_late=0, too_late_minutes=0)",
    "balance_sync": "visit 2: EXAMPLE_SPOT ETH +0.200000000000000002",
    "backtest": "1200 quotes, 673 trades, 791.3 basis points after fees",
    "spreads": "over 600 s: mean -0.17 bps, 95th percentile +2.73 bps",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(command: list[str], url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "ARBSTORE_DATABASE_URL": url}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 # what the README prints


def test_the_two_commands_are_targets_of_make() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    assert [block.strip() for block in blocks("bash")[:2]] == ["make demo", "make test"]
    assert "\ndemo:" in makefile
    assert "\ntest:" in makefile


async def test_the_block_that_deploys_runs_as_printed(empty_db: Database) -> None:
    url = empty_db.engine.url.render_as_string(hide_password=False)
    done = await asyncio.to_thread(run, ["bash", "-euc", blocks("bash")[2]], url, CHECKOUT)
    assert done.returncode == 0, done.stderr
    async with empty_db.engine.connect() as connection:
        assert await connection.run_sync(migrations.current) == migrations.head()


async def test_the_blocks_that_import_run_as_printed(committed_db: Database, tmp_path: Path) -> None:
    url = committed_db.engine.url.render_as_string(hide_password=False)
    done = await asyncio.to_thread(run, [sys.executable, "-c", blocks("python")[0]], url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "InsertResult(given=1, written=1, superseded=0, too_late=0, too_late_minutes=0)",
        "BINANCE_SPOT BTC 61687.715 0.002 bps",
        "1 quotes in the last hour",
    ]
    script = OPENED.format(indent(blocks("python")[1], " " * 8))
    frame = await asyncio.to_thread(run, [sys.executable, "-c", script], url, tmp_path)
    assert frame.returncode == 0, frame.stderr
    assert "61687.71 " in frame.stdout


def test_the_block_that_tests_runs_as_printed(pytester: pytest.Pytester, arbstore_url: str) -> None:
    pytester.makepyfile(blocks("python")[2])
    result = pytester.runpytest_subprocess("-q", f"--database={arbstore_url}", "-p", "no:xdist")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "collector"])
async def test_an_example_runs(name: str, empty_db: Database, tmp_path: Path) -> None:
    await run_twice(name, empty_db.engine.url.render_as_string(hide_password=False), tmp_path)


async def test_an_example_runs_on_the_embedded_server(scratch: Path) -> None:
    await run_twice("collector", f"embedded:{scratch / 'pg'}", scratch)


async def run_twice(name: str, url: str, folder: Path) -> None:
    script = str(CHECKOUT / "examples" / f"{name}.py")
    for _ in range(2):  # on an empty database, and on its own traces
        done = await asyncio.to_thread(run, [sys.executable, script], url, folder)
        assert done.returncode == 0, done.stderr
    assert EXAMPLES[name] in done.stdout


def test_every_example_is_tested() -> None:
    scripts = {path.stem for path in (CHECKOUT / "examples").glob("*.py") if "__main__" in path.read_text()}
    assert scripts == set(EXAMPLES)
