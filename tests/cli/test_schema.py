"""`arbstore db upgrade`, `current` and `status`."""

from __future__ import annotations

import pytest_asyncio
from sqlalchemy import text

from arbstore import migrations
from arbstore.cli.schema import deploy
from arbstore.database import Database
from arbstore.models import Base
from arbstore.timescale import hypertables
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


def test_status_tells_of_server_and_tables(arbstore: CommandLine) -> None:
    status = arbstore.json("db", "status")
    tables = {table["table"]: table for table in status["tables"]}
    assert (status["revision"], status["head"]) == (migrations.head(), migrations.head())
    assert int(status["postgresql"].split(".")[0]) >= 15
    assert set(tables) == {table.name for table, _ in hypertables(Base.metadata)}
    assert tables["book_ticker_snapshots"]["retention"] == "P3D"
    assert tables["candles"]["retention"] is None
    assert tables["candles"]["enforced_by"] is None


def test_what_an_edition_lacks_is_named_with_what_does_it_instead(arbstore: CommandLine) -> None:
    status = arbstore.json("db", "status")
    lacks = {lack["feature"]: lack["instead"] for lack in status["lacks"]}
    tables = {table["table"]: table for table in status["tables"]}
    kind, enforced_by = (tables["book_ticker_snapshots"][name] for name in ("kind", "enforced_by"))
    plain, policies = status["edition"] == "plain", status["edition"] == "community"
    assert kind == ("ordinary" if plain else "hypertable")
    assert enforced_by == ("a policy of the server" if policies else "`arbstore db cleanup`")
    assert ("hypertables" in lacks) is plain
    assert ("retention policies" in lacks) is not policies
    assert all("`arbstore db cleanup`" in instead for instead in lacks.values())
    for words in (("db", "status"), ("db", "upgrade")):
        assert all(f"lacks {feature}: {instead}" in arbstore(*words).stdout for feature, instead in lacks.items())


def test_status_works_without_a_schema(empty: CommandLine) -> None:
    text = empty("db", "status").stdout
    assert f"schema    not deployed, newest {migrations.head()}: run `arbstore db upgrade`" in text
    assert {table["kind"] for table in empty.json("db", "status")["tables"]} == {"missing"}


async def test_deploy_returns_the_steps_in_their_order(empty_db: Database) -> None:
    done = await deploy(empty_db)
    revisions = [step.revision for step in done.applied]
    assert revisions == sorted(revisions)
    assert (done.before, done.after) == (None, migrations.head())
