"""`arbstore db upgrade` and `current`."""

from __future__ import annotations

import pytest_asyncio
from sqlalchemy import text

from arbstore import migrations
from arbstore.database import Database
from tests.cli.conftest import CommandLine


@pytest_asyncio.fixture
async def newer(committed_db: Database) -> Database:
    """Yield a database that a later version of arbstore has deployed to."""
    async with committed_db.engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    return committed_db


def test_upgrade_deploys_the_schema_and_says_what_it_applied(empty: CommandLine) -> None:
    assert "revision none" in empty("db", "current", exits=1).stdout
    result = empty("db", "upgrade")
    assert "applied 0001: Exchanges and symbols\n" in result.stdout
    assert f"the schema is at {migrations.head()}\n" in result.stdout
    assert "Running upgrade" in result.stderr
    assert empty("symbols").stdout == "no symbols are registered\n"


def test_a_second_upgrade_has_nothing_to_do(arbstore: CommandLine) -> None:
    done = arbstore.json("db", "upgrade")
    assert (done["before"], done["after"], done["applied"]) == (migrations.head(), migrations.head(), [])
    assert "already" in arbstore("db", "upgrade").stdout


def test_upgrade_goes_to_the_revision_that_is_named(empty: CommandLine) -> None:
    assert [step["revision"] for step in empty.json("db", "upgrade", "0001")["applied"]] == ["0001"]
    assert "newest" in empty("db", "current", exits=1).stdout


def test_an_unknown_revision_is_a_usage_error(arbstore: CommandLine) -> None:
    assert "'4711'" in arbstore("db", "upgrade", "4711", exits=2).stderr


def test_a_database_of_a_later_version_is_left_alone(newer: Database, arbstore: CommandLine) -> None:
    assert "'9999'" in arbstore("db", "upgrade", exits=3).stderr
    assert arbstore.json("db", "current", exits=1)["revision"] == "9999"


def test_current_is_the_newest_after_an_upgrade(arbstore: CommandLine) -> None:
    head = migrations.head()
    assert arbstore.json("db", "current") == {"revision": head, "head": head, "up_to_date": True}
    assert arbstore("db", "current").stdout == f"revision {head}, newest {head}\n"


def test_a_missing_schema_names_its_remedy(empty: CommandLine) -> None:
    for words in (("latest",), ("db", "stats"), ("db", "cleanup")):
        assert "`arbstore db upgrade`" in empty(*words, exits=3).stderr


async def test_deploy_returns_the_steps_in_their_order(empty_db: Database) -> None:
    done = await migrations.deploy(empty_db)
    revisions = [step.revision for step in done.applied]
    assert revisions == sorted(revisions)
    assert (done.before, done.after) == (None, migrations.head())
