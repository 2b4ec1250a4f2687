"""`arbstore db stats` and `cleanup`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from alembic_timescaledb import hypertables
from arbstore.cli.upkeep import stats_table
from arbstore.database import Database
from arbstore.models import Base
from arbstore.services.maintenance import TableStats
from tests.cli.conftest import CommandLine
from tests.conftest import NOON, listing, quote

OLD_QUOTES = 12


@pytest_asyncio.fixture
async def old_quotes(committed_db: Database) -> Database:
    """Yield a database with a dozen quotes of 2024 and one of now."""
    async with committed_db.begin() as store:
        exchange = await store.exchanges.add("BINANCE_SPOT")
        symbol = await store.symbols.add(exchange.id, listing("BTC"))
        times = [NOON + timedelta(seconds=number) for number in range(OLD_QUOTES)]
        await store.book_tickers.insert([quote(symbol, at=at) for at in [*times, datetime.now(UTC)]])
    return committed_db


def quotes_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    return next(row for row in found if row["table"] == "book_ticker_snapshots")


@pytest.mark.usefixtures("old_quotes")
def test_stats_count_the_rows_of_every_table(arbstore: CommandLine) -> None:
    found = arbstore.json("db", "stats")
    assert [row["table"] for row in found] == sorted(Base.metadata.tables)
    quotes = quotes_of(found)
    assert (quotes["rows"], quotes["estimated"], quotes["oldest"]) == (OLD_QUOTES + 1, False, "2024-08-08T12:00:00Z")
    line = next(line for line in arbstore("db", "stats").stdout.splitlines() if "book_ticker" in line)
    assert line.split()[1] == "13"
    assert "2024-08-08 12:00" in line


def test_an_estimate_is_marked() -> None:
    found = TableStats("ticks", 1_234_567, True, 70_000_000, NOON, NOON, None)
    cells = [next(iter(column.cells)) for column in stats_table([found]).columns]
    assert [str(cell) for cell in cells[:3]] == ["ticks", "~1,234,567", "70 MB"]


@pytest.mark.usefixtures("old_quotes")
def test_cleanup_removes_what_has_outlived_its_retention(arbstore: CommandLine) -> None:
    removed = quotes_of(arbstore.json("db", "cleanup"))
    assert removed["retention"] == "P3D"
    assert (removed["rows"], removed["chunks"]) in {(OLD_QUOTES, 0), (0, 1)}  # of an ordinary table, of a hypertable
    assert quotes_of(arbstore.json("db", "stats"))["rows"] == 1


@pytest.mark.usefixtures("old_quotes")
def test_a_dry_run_removes_nothing_and_shows_what_would_go(arbstore: CommandLine) -> None:
    planned = quotes_of(arbstore.json("db", "cleanup", "--dry-run"))
    assert (planned["rows"], planned["chunks"], planned["oldest"]) == (0, 0, "2024-08-08T12:00:00Z")
    assert planned["oldest"] < planned["older_than"]
    assert "yes" in arbstore("db", "cleanup", "--dry-run").stdout
    assert quotes_of(arbstore.json("db", "stats"))["rows"] == OLD_QUOTES + 1


@pytest.mark.usefixtures("old_quotes")
@pytest.mark.parametrize("age", ["none", "90000d"])
def test_a_table_is_kept_as_long_as_is_asked(age: str, arbstore: CommandLine) -> None:
    assert "book_ticker_snapshots" in arbstore("db", "cleanup", "--retention", f"book_ticker_snapshots={age}").stdout
    assert quotes_of(arbstore.json("db", "stats"))["rows"] == OLD_QUOTES + 1


@pytest.mark.parametrize(
    ("retention", "reason"),
    [
        ("book_ticker_snapshots", "is not TABLE=DURATION"),
        ("book_ticker_snapshots=soon", "'soon' is not a duration"),
        ("exchanges=3d", "exchanges: is not a time-series table"),
    ],
)
def test_a_retention_that_cannot_be_read_is_a_usage_error(retention: str, reason: str, arbstore: CommandLine) -> None:
    assert reason in arbstore("db", "cleanup", "--retention", retention, exits=2).stderr


def ticks_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    return next(row for row in found if row["table"] == "ticks")


def test_retention_of_all_tables_is_shown(arbstore: CommandLine) -> None:
    found = arbstore.json("db", "retention")
    assert [row["table"] for row in found] == sorted(table.name for table, _ in hypertables(Base.metadata))
    ticks = ticks_of(found)
    assert (ticks["keep_for"], ticks["declared"], ticks["set_at"]) == ("P7D", "P7D", None)
    lines = {line.split()[0]: line.split() for line in arbstore("db", "retention").stdout.splitlines() if line.strip()}
    assert lines["ticks"][1:3] == ["7d", "7d"]
    assert lines["candles"][1:3] == ["forever", "forever"]
    assert "cleanup" in " ".join(lines["ticks"]) or "policy" in " ".join(lines["ticks"])


def test_a_retention_that_is_set_is_shown_and_cleaned_by(old_quotes: Database, arbstore: CommandLine) -> None:
    quotes = "book_ticker_snapshots"
    assert quotes_of(arbstore.json("db", "retention", quotes, "--clear"))["keep_for"] is None
    assert quotes_of(arbstore.json("db", "cleanup"))["retention"] is None
    assert quotes_of(arbstore.json("db", "stats"))["rows"] == OLD_QUOTES + 1
    assert "20d" in arbstore("db", "retention", quotes, "--set", "20d").stdout
    assert quotes_of(arbstore.json("db", "cleanup", "--dry-run"))["retention"] == "P20D"
    (status,) = [row for row in arbstore.json("db", "status")["tables"] if row["table"] == quotes]
    assert status["retention"] == "P20D"
    assert arbstore.json("db", "retention", quotes, "--reset")[0]["keep_for"] == "P3D"
    assert [row["keep_for"] for row in arbstore.json("db", "retention", quotes)] == ["P3D"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("tick", "--clear"), "tick: is not a time-series table"),
        (("exchanges",), "exchanges: is not a time-series table"),
        (("--set", "7d"), "name the table to change"),
        (("ticks", "--set", "7d", "--clear"), "use only one of them"),
        (("ticks", "--clear", "--reset"), "use only one of them"),
        (("ticks", "--set", "soon"), "'soon' is not a duration"),
        (("ticks", "--set", "0d"), "'0d' is not a duration"),
    ],
)
def test_a_change_of_retention_that_cannot_be_read_is_a_usage_error(
    words: tuple[str, ...], reason: str, bare: CommandLine
) -> None:
    assert reason in bare("db", "retention", *words, exits=2).stderr


def test_a_retention_without_the_schema_names_the_remedy(empty: CommandLine) -> None:
    assert "`arbstore db upgrade`" in empty("db", "retention", exits=3).stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--every", "soon"), "'soon' is not a duration"),
        (("--every", "0s"), "'0s' is not a duration"),
        (("--every", "500ms"), "'500ms' is too often: use 1s or more"),
        (("--every", "1h", "--dry-run"), "neither --dry-run nor --json"),
        (("--every", "1h", "--json"), "neither --dry-run nor --json"),
        (("--every", "1h", "--retention", "ticks=soon"), "'soon' is not a duration"),
    ],
)
def test_a_service_that_cannot_be_is_a_usage_error(words: tuple[str, ...], reason: str, bare: CommandLine) -> None:
    assert reason in bare("db", "cleanup", *words, exits=2).stderr


async def test_a_cleanup_beside_another_says_so(committed_db: Database, arbstore: CommandLine) -> None:
    async with committed_db.begin() as store:
        await store.maintenance.hold_cleanup_lock()
        result = await asyncio.to_thread(arbstore, "db", "cleanup", exits=1)
    assert "another cleanup of this database is under way" in result.stderr
