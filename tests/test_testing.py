"""The plugin, as an application's own test suite uses it."""

from __future__ import annotations

import pytest
from sqlalchemy import URL, text

from arbstore import testing
from arbstore.database import Database, Store
from arbstore.records import Symbol
from tests.conftest import quote

APPLICATION = """
import pytest
from sqlalchemy import text
from arbstore import Database, Store

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

def test_that_what_connects_by_itself_has_a_url(arbstore_url: str) -> None:
    assert arbstore_url.startswith("postgresql+asyncpg://")
"""
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


async def test_what_one_test_writes(store: Store, symbol: Symbol) -> None:
    assert (await store.book_tickers.insert([quote(symbol)])).written == 1


async def test_the_next_one_does_not_see(store: Store) -> None:
    assert await store.exchanges.all() == ()


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


@pytest.mark.parametrize("loop", [SESSION_LOOP, FUNCTION_LOOP], ids=["session loop", "function loop"])
def test_an_application_tests_against_it(pytester: pytest.Pytester, arbstore_server: URL, loop: str) -> None:
    pytester.makeini(loop)
    pytester.makepyfile(APPLICATION)
    url = arbstore_server.render_as_string(hide_password=False)
    result = pytester.runpytest_subprocess("-q", f"--database={url}", "-p", "no:xdist")
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(["arbstore: 7 tests passed on PostgreSQL *"])


def test_workers_of_xdist_share_the_server_and_have_databases_of_their_own(
    pytester: pytest.Pytester, arbstore_server: URL
) -> None:
    pytester.makeini(SESSION_LOOP)
    pytester.makepyfile(APPLICATION)
    url = arbstore_server.render_as_string(hide_password=False)
    result = pytester.runpytest_subprocess("-q", f"--database={url}", "-n", "2")
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(["arbstore: 7 tests passed on PostgreSQL *"])


def test_the_embedded_server_is_the_default(pytester: pytest.Pytester) -> None:
    pytester.makeini(SESSION_LOOP)
    pytester.makepyfile(APPLICATION)
    result = pytester.runpytest_subprocess("-q", "-p", "no:xdist")
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(["arbstore: 7 tests passed on PostgreSQL 18*, plain (embedded)"])


def test_a_suite_that_uses_none_of_it_starts_no_server(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing() -> None: pass")
    result = pytester.runpytest_subprocess("-q", "--database=postgresql://nobody@127.0.0.1:1/none")
    result.assert_outcomes(passed=1)
    assert "arbstore:" not in result.stdout.str()


def test_the_summary_names_the_tests_that_the_edition_left_out(pytester: pytest.Pytester, arbstore_server: URL) -> None:
    pytester.makepyfile(
        """
        from arbstore.testing import skip_without
        from alembic_timescaledb import Edition, Feature

        def test_of_candles(arbstore_url: str) -> None:
            skip_without(Edition.APACHE, Feature.HYPERTABLES)
            skip_without(Edition.APACHE, Feature.AGGREGATES)
        """
    )
    url = arbstore_server.render_as_string(hide_password=False)
    result = pytester.runpytest_subprocess("-q", f"--database={url}", "-p", "no:xdist")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        ["arbstore: 1 tests left out, the apache edition has no continuous aggregates:", "  *.py::test_of_candles"]
    )


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
