"""The pytest plugin: a real database for each test run, a transaction that is rolled back for each test.

The fixtures, for applications and for arbstore's own tests:

- `arbstore_db`: a Database whose commits are undone after the test. One session at a time.
- `arbstore_store`: a Store over a session of it.
- `arbstore_committed_db`: a Database of the test's own, where commits are real; for concurrency, COPY and DDL.
- `arbstore_url`: the URL of the run's database, for what connects by itself; what it writes stays for the run.

They are function-scoped and follow the test's event loop, whatever its scope; the schema is migrated once, into a
template database that all runs and workers of one version clone.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import URL, NullPool, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from alembic_timescaledb import Edition, Feature
from alembic_timescaledb import server as timescale
from arbstore import embedded, migrations
from arbstore.database import Database, Store
from arbstore.postgres.engine import engine_options
from arbstore.settings import EMBEDDED, Settings

T = TypeVar("T")

_EDITION = " edition "  # in the reason of each test that is left out for the server's sake
_DRIVER = "postgresql+asyncpg"
_WORKER_KEY = "arbstore_server"
_SERVER = pytest.StashKey["_Server"]()
_RAN_ON: pytest.StashKey[set[str]] = pytest.StashKey()


class _Server:
    """The server that the run's databases are made on. Made in the main process, named to its workers."""

    def __init__(self, choice: str) -> None:
        self._folder: Path | None = None
        self._container: Any = None
        if choice == "docker":
            self.url = self._start_container(Settings.load().test_image)
        elif choice == EMBEDDED:
            # Shared by the workers, and started by the first that needs it.
            self._folder = Path(tempfile.mkdtemp(prefix="arbstore-test-"))
            self.url = f"{EMBEDDED}:{self._folder / 'postgres'}"
        else:
            self.url = choice

    def _start_container(self, image: str) -> str:
        from testcontainers.community.postgres import PostgresContainer

        # The data of tests outlives no crash: without fsync they take half the time.
        self._container = PostgresContainer(image, driver="asyncpg").with_command("postgres -c fsync=off")
        self._container.start()
        return str(self._container.get_connection_url())

    def stop(self) -> None:
        if self._container is not None:
            self._container.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --database."""
    parser.getgroup("arbstore").addoption(
        "--database",
        default=EMBEDDED,
        metavar="embedded|docker|URL",
        help="the server that the arbstore fixtures use: a wheel's, a container's (ARBSTORE_TEST_IMAGE), or a URL's;"
        " of a URL the role must be allowed to create databases",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make room for what the summary says."""
    config.stash[_RAN_ON] = set()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist which server to use."""
    node.workerinput[_WORKER_KEY] = _server_url(node.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take from a worker what its tests ran on."""
    node.config.stash[_RAN_ON].update(getattr(node, "workeroutput", {}).get(_WORKER_KEY, ()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the main process what this worker's tests ran on."""
    if hasattr(session.config, "workeroutput"):
        ran_on = session.config.stash[_RAN_ON]
        session.config.workeroutput[_WORKER_KEY] = sorted(ran_on)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say how many tests ran on which server, and which its edition left out."""
    ran_on = config.stash[_RAN_ON]
    for server in sorted(ran_on):
        passed = len(terminalreporter.stats.get("passed", ()))
        terminalreporter.write_line(f"arbstore: {passed} tests passed on {server}")
    for reason, names in sorted(_left_out(terminalreporter.stats.get("skipped", ())).items()):
        terminalreporter.write_line(f"arbstore: {len(names)} tests left out, {reason}:")
        for name in names:
            terminalreporter.write_line(f"  {name}")


def skip_without(edition: Edition, feature: Feature) -> None:
    """Leave the test out where the server's edition lacks the feature; the run's summary names it then."""
    if not edition.has(feature):
        pytest.skip(f"the {edition} edition has no {feature}")


def _left_out(skipped: Iterable[Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for report in skipped:
        if isinstance(report.longrepr, tuple) and _EDITION in (reason := str(report.longrepr[2])):
            found.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
    return found


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server, if this run started it."""
    if (server := config.stash.get(_SERVER, None)) is not None:
        server.stop()


def _server_url(config: pytest.Config) -> str:
    given: dict[str, str] = getattr(config, "workerinput", {})
    if _WORKER_KEY in given:
        return given[_WORKER_KEY]
    if _SERVER not in config.stash:
        config.stash[_SERVER] = _Server(config.getoption("--database"))
    return config.stash[_SERVER].url


def _in_thread(work: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine on a loop of its own: the tests' loop may be this thread's."""

    async def run() -> T:
        return await work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()


@pytest.fixture(scope="session")
def arbstore_server(pytestconfig: pytest.Config) -> Iterator[URL]:
    """Yield the URL of a server whose template is ready."""
    url = Settings.load(database_url=_server_url(pytestconfig)).url
    if url.drivername != EMBEDDED:
        pytestconfig.stash[_RAN_ON].add(_in_thread(lambda: _make_template(url)))
        yield url
        return
    server = embedded.acquire(url.database)
    try:
        url = make_url(server.url).set(drivername=_DRIVER)
        pytestconfig.stash[_RAN_ON].add(f"{_in_thread(lambda: _make_template(url, careless=True))} (embedded)")
        yield url
    finally:
        server.release()


@pytest.fixture(scope="session")
def arbstore_url(arbstore_server: URL) -> Iterator[str]:
    """Yield the URL of a migrated database that this run (of a worker, if there are several) has to itself."""
    url = _in_thread(lambda: _clone(arbstore_server))
    yield url.render_as_string(hide_password=False)
    _in_thread(lambda: _drop(arbstore_server, url))


@pytest_asyncio.fixture
async def arbstore_db(arbstore_url: str) -> AsyncIterator[Database]:
    """Yield a Database whose commits are undone after the test; it has one connection, so one session at a time."""
    settings = Settings.load(database_url=arbstore_url)
    options = engine_options(settings)
    kept = {name: options[name] for name in ("connect_args", "hide_parameters")}
    engine = create_async_engine(make_url(arbstore_url), poolclass=NullPool, **kept)
    async with engine.connect() as connection:
        transaction = await connection.begin()
        yield Database.over(connection, settings=settings)
        await transaction.rollback()
    await engine.dispose()


@pytest_asyncio.fixture
async def arbstore_store(arbstore_db: Database) -> AsyncIterator[Store]:
    """Yield a Store whose writes are undone after the test."""
    async with arbstore_db.session() as session:
        yield Store(session, arbstore_db.cache)


@pytest_asyncio.fixture
async def arbstore_committed_db(arbstore_server: URL) -> AsyncIterator[Database]:
    """Yield an open Database of the test's own, migrated and empty, where commits are real."""
    url = await _clone(arbstore_server)
    try:
        async with Database(url.render_as_string(hide_password=False)) as database:
            yield database
    finally:
        await _drop(arbstore_server, url)


def _template_name() -> str:
    revisions = sorted(migrations.script_location().glob("versions/*.py"))
    content = b"".join(path.read_bytes() for path in [*revisions, Path(__file__)])
    return f"arbstore_template_{hashlib.sha256(content).hexdigest()[:12]}"


@asynccontextmanager
async def _administering(server: URL) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()


async def _make_template(server: URL, *, careless: bool = False) -> str:
    """Make the template unless it is there, and return what the server is; `careless` turns off fsync."""
    name = _template_name()
    async with _administering(server) as connection:
        if careless:
            await connection.execute(text("ALTER SYSTEM SET fsync = off"))
            await connection.execute(text("SELECT pg_reload_conf()"))
        # Several workers, or runs, come here at once.
        await connection.execute(text("SELECT pg_advisory_lock(hashtext(:name))"), {"name": name})
        there = await connection.scalar(text("SELECT true FROM pg_database WHERE datname = :name"), {"name": name})
        if not there:
            await _migrate_template(connection, server, name)
        await connection.execute(text("SELECT pg_advisory_unlock(hashtext(:name))"), {"name": name})
        release = await connection.scalar(text("SHOW server_version"))
    return f"PostgreSQL {release}, {await _edition(server)}"


async def _migrate_template(connection: AsyncConnection, server: URL, name: str) -> None:
    draft = f"arbstore_draft_{uuid4().hex[:12]}"
    await connection.execute(text(f'CREATE DATABASE "{draft}"'))
    url = server.set(database=draft).render_as_string(hide_password=False)
    async with Database(url) as database:
        await migrations.deploy(database)
        async with database.engine.begin() as drafted:
            # What tests write is often old, and the server's own jobs would drop it under them.
            await drafted.run_sync(timescale.pause_policies)
    # TimescaleDB's scheduler connects to every database that has the extension; a template must have no connection.
    await connection.execute(text(f'ALTER DATABASE "{draft}" ALLOW_CONNECTIONS false'))
    await connection.execute(
        text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :draft"), {"draft": draft}
    )
    # Last, and at once: whoever finds the name finds it finished.
    await connection.execute(text(f'ALTER DATABASE "{draft}" RENAME TO "{name}"'))


async def _edition(server: URL) -> str:
    clone = await _clone(server)
    try:
        async with _administering(clone) as connection:
            version = await connection.run_sync(timescale.version)
            edition = await connection.run_sync(timescale.edition)
    finally:
        await _drop(server, clone)
    return "plain" if version is None else f"TimescaleDB {version}, {edition} edition"


async def _clone(server: URL) -> URL:
    name = f"arbstore_test_{uuid4().hex[:12]}"
    async with _administering(server) as connection:
        await connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{_template_name()}"'))
    return server.set(database=name)


async def _drop(server: URL, clone: URL) -> None:
    async with _administering(server) as connection:
        await connection.execute(text(f'DROP DATABASE IF EXISTS "{clone.database}" WITH (FORCE)'))
