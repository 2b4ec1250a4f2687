"""The plugin, as an application's own test suite uses it."""

from __future__ import annotations

import pytest
from sqlalchemy import URL, text

from arbstore import testing
from arbstore.database import Database, Store

APPLICATION = """
import pytest
from alembic_timescaledb import Edition, Feature
from sqlalchemy import event, text
from arbstore import Database, Store
from arbstore.testing import skip_without

statements: list[int] = []
LOCKS = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(4))
async def test_that_every_test_starts_empty(arbstore_store: Store, number: int) -> None:
    assert await arbstore_store.exchanges.all() == ()
    await arbstore_store.exchanges.add("BINANCE_SPOT")

@pytest.mark.asyncio
async def test_that_code_which_commits_is_undone(arbstore_db: Database) -> None:
    async with arbstore_db.begin() as store:
        await store.exchanges.add("BINANCE_SPOT")
    async with arbstore_db.begin() as store:
        assert len(await store.exchanges.all()) == 1

@pytest.mark.asyncio
async def test_that_commits_are_real_where_asked_for(arbstore_committed_db: Database) -> None:
    async with arbstore_committed_db.begin() as store:
        await store.exchanges.add("BINANCE_SPOT")
    async with arbstore_committed_db.engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM exchanges")) == 1

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(4))
async def test_that_a_lock_and_a_listener_end_with_their_test(arbstore_db: Database, number: int) -> None:
    event.listen(arbstore_db.engine.sync_engine, "before_cursor_execute", lambda *_: statements.append(number))
    async with arbstore_db.session() as session:
        assert await session.scalar(LOCKS) == 0
        await session.execute(text("SELECT pg_advisory_lock(7)"))
        assert await session.scalar(LOCKS) == 1
    assert set(statements) == {number}
    statements.clear()

def test_that_code_which_connects_by_itself_has_a_url(arbstore_url: str) -> None:
    assert arbstore_url.startswith("postgresql+asyncpg://")

def test_of_candles(arbstore_url: str) -> None:
    skip_without(Edition.APACHE, Feature.HYPERTABLES)
    skip_without(Edition.APACHE, Feature.AGGREGATES)
"""
PASSED = 11
LEFT_OUT = ["arbstore: 1 tests left out, the apache edition has no continuous aggregates:", "  *.py::test_of_candles"]
SESSION_LOOP = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = session
asyncio_default_test_loop_scope = session
"""
FUNCTION_LOOP = """
[pytest]
asyncio_default_fixture_loop_scope = function
"""


async def test_a_commit_is_a_savepoint_of_the_test(db: Database, arbstore_url: str) -> None:
    async with db.begin() as store:
        await store.exchanges.add("BINANCE_SPOT")
    async with Database(arbstore_url) as other, other.begin() as outsider:
        assert await outsider.exchanges.all() == ()


async def test_an_error_rolls_back_what_its_block_wrote_and_no_more(db: Database) -> None:
    async with db.begin() as store:
        await store.exchanges.add("KEPT_SPOT")
    async with db.session() as session:
        await Store(session, db.cache).exchanges.add("LOST_SPOT")
        await session.rollback()
    async with db.begin() as store:
        assert [exchange.enum_value for exchange in await store.exchanges.all()] == ["KEPT_SPOT"]


async def test_closing_it_in_the_code_under_test_does_no_harm(db: Database) -> None:
    async with db:
        pass
    async with db.begin() as store:
        assert await store.exchanges.all() == ()


async def test_committed_databases_are_apart_from_one_another(committed_db: Database, db: Database) -> None:
    async with committed_db.begin() as store:
        await store.exchanges.add("BINANCE_SPOT")
    async with db.begin() as store:
        assert await store.exchanges.all() == ()


def test_workers_on_session_loops_share_the_server_and_have_databases_of_their_own(
    pytester: pytest.Pytester, arbstore_server: URL
) -> None:
    pytester.makeini(SESSION_LOOP)
    pytester.makepyfile(APPLICATION)
    url = arbstore_server.render_as_string(hide_password=False)
    result = pytester.runpytest_subprocess("-q", f"--database={url}", "-n", "2")
    result.assert_outcomes(passed=PASSED, skipped=1)
    result.stdout.fnmatch_lines([f"arbstore: {PASSED} tests passed on PostgreSQL *", *LEFT_OUT])


def test_one_process_has_an_embedded_server_by_default_and_a_loop_for_each_test(pytester: pytest.Pytester) -> None:
    pytester.makeini(FUNCTION_LOOP)
    pytester.makepyfile(APPLICATION)
    result = pytester.runpytest_subprocess("-q", "-p", "no:xdist")
    result.assert_outcomes(passed=PASSED, skipped=1)
    result.stdout.fnmatch_lines([f"arbstore: {PASSED} tests passed on PostgreSQL 18*, plain (embedded)", *LEFT_OUT])


def test_a_suite_that_uses_none_of_it_starts_no_server(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing() -> None: pass")
    result = pytester.runpytest_subprocess("-q", "--database=postgresql://nobody@127.0.0.1:1/none")
    result.assert_outcomes(passed=1)
    assert "arbstore:" not in result.stdout.str()


async def test_a_template_is_made_once_and_kept_from_connections(arbstore_server: URL, arbstore_url: str) -> None:
    query = text("SELECT datallowconn FROM pg_database WHERE datname = :name")
    async with testing._administering(arbstore_server) as connection:
        assert (await connection.scalars(query, {"name": testing._template_name()})).all() == [False]


async def test_an_applications_own_session_can_join_the_tests_transaction(db: Database) -> None:
    async with db.session() as session:
        await Store(session, db.cache).exchanges.add("BINANCE_SPOT")
        await session.commit()
    async with db.begin() as store:
        assert len(await store.exchanges.all()) == 1
