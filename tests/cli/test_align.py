"""`arbstore db align`."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio
from alembic import command
from sqlalchemy import text

from alembic_timescaledb import Edition, Feature, server
from arbstore import migrations
from arbstore.database import Database
from arbstore.testing import skip_without
from tests.cli.conftest import CommandLine


@pytest_asyncio.fixture
async def plain(empty_db: Database) -> Database:
    """Return a database that was deployed on plain PostgreSQL; where the server is no more, leave the test out."""
    async with empty_db.engine.connect() as connection:
        await connection.run_sync(lambda sync: command.upgrade(migrations.config(sync, edition=Edition.PLAIN), "head"))
        await connection.commit()
        found = await connection.run_sync(server.enable)
        await connection.rollback()
        await connection.invalidate()  # it cannot create the extension again
    skip_without(found, Feature.HYPERTABLES)
    return empty_db


def whats(steps: list[dict[str, Any]]) -> list[str]:
    return [step["what"] for step in steps]


def test_a_fresh_deploy_has_nothing_to_do(arbstore: CommandLine) -> None:
    assert arbstore("db", "align").stdout == "nothing to do\n"
    found = arbstore.json("db", "align")
    assert (found["done"], found["steps"], found["left"]) == ([], [], [])


def test_the_old_name_goes_on_working_and_names_the_new_one(arbstore: CommandLine) -> None:
    result = arbstore("db", "sync")
    assert result.stdout == "nothing to do\n"
    assert result.stderr == "arbstore: `arbstore db sync` is now called `arbstore db align`\n"
    assert "sync" not in arbstore("db", "--help").stdout


@pytest.mark.usefixtures("plain")
def test_nothing_is_done_without_a_yes_where_nobody_can_be_asked(empty: CommandLine) -> None:
    result = empty("db", "align", exits=2)
    assert "--yes" in result.stderr
    assert "nobody can be asked here" in result.stderr
    assert "make ticks a hypertable, in chunks of 1 hour; its rows move into them: 0 rows" in result.stdout
    assert empty.json("db", "status")["edition"] == "plain"
    assert "--yes" in empty("db", "align", "--json", exits=2).stderr


@pytest.mark.usefixtures("plain")
def test_a_dry_run_shows_the_steps_and_does_none(empty: CommandLine) -> None:
    lines = empty("db", "align", "--dry-run").stdout.splitlines()
    assert lines[0].split(maxsplit=1) == ["1", "create the extension timescaledb"]
    found = empty.json("db", "align", "--dry-run")
    assert (len(found["steps"]), found["done"]) == (len(lines), [])
    assert empty.json("db", "status")["edition"] == "plain"


@pytest.mark.usefixtures("plain")
def test_an_upgrade_on_a_better_server_says_that_there_is_more_to_do(empty: CommandLine) -> None:
    assert "differences from the declared schema: run `arbstore db align`" in empty("db", "upgrade").stdout
    empty("db", "align", "--yes")
    assert "differences" not in empty("db", "upgrade").stdout


@pytest.mark.usefixtures("plain")
def test_the_steps_are_done_told_and_not_done_again(empty: CommandLine) -> None:
    planned = whats(empty.json("db", "align", "--dry-run")["steps"])
    result = empty("db", "align", "--yes")
    assert result.stdout.endswith("nothing is left to do\n")
    count = len(planned)
    assert result.stderr.splitlines() == [f"{n}/{count}  {what}" for n, what in enumerate(planned, 1)]
    assert empty("db", "align").stdout == "nothing to do\n"
    assert {table["kind"] for table in empty.json("db", "status")["tables"]} == {"hypertable"}


@pytest.mark.usefixtures("plain")
def test_what_was_done_is_one_document(empty: CommandLine) -> None:
    planned = empty.json("db", "align", "--dry-run")["steps"]
    found = empty.json("db", "align", "--yes")
    assert (whats(found["done"]), found["steps"], found["left"]) == (whats(planned), [], [])


def test_the_schema_comes_first(empty: CommandLine) -> None:
    assert "not deployed: run `arbstore db upgrade` first" in empty("db", "align", "--yes", exits=3).stderr
    empty("db", "upgrade", "0004")
    assert "at revision 0004" in empty("db", "align", "--yes", exits=3).stderr


async def test_what_is_left_is_told_by_the_exit_code(committed_db: Database) -> None:
    async with committed_db.engine.connect() as connection:
        skip_without(await connection.run_sync(server.edition), Feature.AGGREGATES)
        await connection.rollback()
        autonomous = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autonomous.execute(
            text(
                "CREATE MATERIALIZED VIEW mine WITH (timescaledb.continuous) AS SELECT symbol_id,"
                " time_bucket('1 day', timestamp) AS day, count(*) FROM ticks GROUP BY 1, 2 WITH NO DATA"
            )
        )
    url = committed_db.engine.url.render_as_string(hide_password=False)
    result = await _in_thread(CommandLine(("--database", url)))
    assert "left: drop the continuous aggregate mine" in result.stdout


async def _in_thread(arbstore: CommandLine) -> Any:
    import asyncio

    return await asyncio.to_thread(arbstore, "db", "align", "--yes", exits=1)
