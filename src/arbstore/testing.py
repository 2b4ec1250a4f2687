"""The pytest plugin: fixtures that give each test a real, migrated database.

- `arbstore_db`: a Database whose commits are undone after the test. It serves one session at a time.
- `arbstore_store`: a Store over a session of `arbstore_db`.
- `arbstore_committed_db`: a Database of the test's own. Commits are real: for concurrency, COPY and schema changes.
- `arbstore_url`: the URL of a migrated database for code that connects by itself. What it writes stays for the run.

The fixtures run on the test's event loop, of any loop scope. The schema is migrated once, into a template database.
All runs and workers of one version clone it.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import URL, NullPool, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from alembic_timescaledb import Edition, Feature
from alembic_timescaledb import server as timescale
from arbstore import embedded, migrations
from arbstore.database import Database, Store, engine_options
from arbstore.settings import EMBEDDED, Settings

T = TypeVar("T")
LoopScope = Literal["session", "package", "module", "class"]

# The data of tests need not outlive a crash.
_OPTIONS = {"fsync": "off", "wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "256MB"}
_MEMORY = Path("/dev/shm")  # noqa: S108 # a folder in memory; a test makes its own folder in it
_ENOUGH = 4 * 2**30  # bytes; the run of a large suite needs about one eighth
_WORKER_KEY = "arbstore_server"
_SERVER = pytest.StashKey["_Server"]()
_RAN_ON = pytest.StashKey[set[str]]()  # descriptions of the servers, for the summary


class _Server:
    """The server of the run's databases. The main process makes it and passes its URL to the workers."""

    def __init__(self, choice: str) -> None:
        self._folder: Path | None = None
        self._container: Any = None
        self.url = choice
        if choice == "docker":
            self.url = self._start_container(Settings.load().test_image)
        elif choice == EMBEDDED:
            # In memory a database is cloned in 6 ms, on some disks in 60. The first worker starts the server.
            roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ENOUGH
            self._folder = Path(tempfile.mkdtemp(prefix="arbstore-test-", dir=_MEMORY if roomy else None))
            self.url = f"{EMBEDDED}:{self._folder / 'postgres'}"

    def _start_container(self, image: str) -> str:
        from testcontainers.community.postgres import PostgresContainer

        options = " ".join(f"-c {name}={value}" for name, value in _OPTIONS.items())
        self._container = PostgresContainer(image, driver="asyncpg").with_command(f"postgres {options}")
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
        help="server of the arbstore fixtures: an embedded one, a container of ARBSTORE_TEST_IMAGE, or a URL whose"
        " role may create databases",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the server's URL to a worker of pytest-xdist."""
    node.workerinput[_WORKER_KEY] = _server_url(node.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Collect the server that a worker's tests ran on."""
    _ran_on(node.config).update(getattr(node, "workeroutput", {}).get(_WORKER_KEY, ()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Pass the server that this worker's tests ran on to the main process."""
    getattr(session.config, "workeroutput", {})[_WORKER_KEY] = [*_ran_on(session.config)]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print which server the tests ran on, and the tests that its edition left out."""
    for server in sorted(_ran_on(config)):
        passed = len(terminalreporter.stats.get("passed", ()))
        terminalreporter.write_line(f"arbstore: {passed} tests passed on {server}")
    left_out: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", ()):
        if isinstance(report.longrepr, tuple) and " edition has no " in (reason := str(report.longrepr[2])):
            left_out.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
    for reason, names in sorted(left_out.items()):
        terminalreporter.write_line(f"arbstore: {len(names)} tests left out, {reason}:")
        for name in names:
            terminalreporter.write_line(f"  {name}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server if this run started it."""
    if _SERVER in config.stash:
        config.stash[_SERVER].stop()


def skip_without(edition: Edition, feature: Feature) -> None:
    """Skip the test if the server's edition lacks the feature; the summary of the run then names the test."""
    if not edition.has(feature):
        pytest.skip(f"the {edition} edition has no {feature}")


def _ran_on(config: pytest.Config) -> set[str]:
    return config.stash.setdefault(_RAN_ON, set())


def _server_url(config: pytest.Config) -> str:
    if hasattr(config, "workerinput"):
        return str(config.workerinput[_WORKER_KEY])
    if _SERVER not in config.stash:
        config.stash[_SERVER] = _Server(config.getoption("--database"))
    return config.stash[_SERVER].url


def _in_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a thread of its own: this thread may be running the tests' event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()


def _loop_scope(fixture_name: str, config: pytest.Config) -> LoopScope | Literal["function"]:
    """Return the scope of the fixtures' event loop: its connections must be closed before it ends."""
    configured = config.getini("asyncio_default_fixture_loop_scope")
    return next((scope for scope in get_args(LoopScope) if scope == configured), "function")


@pytest.fixture(scope="session")
def arbstore_server(pytestconfig: pytest.Config) -> Iterator[URL]:
    """Yield the URL of a server that has the template database."""
    url = Settings.load(database_url=_server_url(pytestconfig)).url
    server = embedded.acquire(url.database, options=_OPTIONS) if url.drivername == EMBEDDED else None
    try:
        if server is not None:
            url = make_url(server.url).set(drivername="postgresql+asyncpg")
        description = _in_thread(lambda: _make_template(url))
        _ran_on(pytestconfig).add(description if server is None else f"{description} (embedded)")
        yield url
    finally:
        if server is not None:
            server.release()


@pytest.fixture(scope="session")
def arbstore_url(arbstore_server: URL) -> Iterator[str]:
    """Yield the URL of a migrated database. Each worker of a run has its own."""
    url = _in_thread(lambda: _clone(arbstore_server))
    yield url.render_as_string(hide_password=False)
    _in_thread(lambda: _drop(arbstore_server, url))


@pytest_asyncio.fixture(scope=_loop_scope)
async def _arbstore_engine(arbstore_url: str) -> AsyncIterator[AsyncEngine]:
    """Yield the engine that all tests of one event loop share: connecting takes longer than many tests."""
    options = engine_options(Settings.load(database_url=arbstore_url))
    kept = {name: options[name] for name in ("connect_args", "hide_parameters", "pool_pre_ping")}
    engine = create_async_engine(make_url(arbstore_url), pool_size=1, **kept)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def arbstore_db(arbstore_url: str, _arbstore_engine: AsyncEngine) -> AsyncIterator[Database]:
    """Yield a Database whose commits are undone after the test. It has one connection, so one session at a time."""
    engine = _arbstore_engine.execution_options()  # a copy: event listeners that a test adds end with the test
    async with engine.connect() as connection:
        transaction = await connection.begin()
        yield Database.over(connection, settings=Settings.load(database_url=arbstore_url))
        await transaction.rollback()
        if not connection.invalidated:
            raw = await connection.get_raw_connection()
            await raw.driver_connection.reset()  # type: ignore[union-attr]  # advisory locks outlive a rollback


@pytest_asyncio.fixture
async def arbstore_store(arbstore_db: Database) -> AsyncIterator[Store]:
    """Yield a Store whose writes are undone after the test."""
    async with arbstore_db.session() as session:
        yield Store(session, arbstore_db.cache)


@pytest_asyncio.fixture(scope=_loop_scope)
async def _arbstore_admin(arbstore_server: URL) -> AsyncIterator[AsyncConnection]:
    """Yield the connection that makes and drops the databases of one event loop's tests."""
    async with _administering(arbstore_server) as connection:
        yield connection


@pytest_asyncio.fixture
async def arbstore_committed_db(arbstore_server: URL, _arbstore_admin: AsyncConnection) -> AsyncIterator[Database]:
    """Yield an open Database of the test's own, migrated and empty, where commits are real."""
    async with _copied(arbstore_server, _arbstore_admin, _template_name()) as url, Database(url) as database:
        yield database


@asynccontextmanager
async def _copied(server: URL, admin: AsyncConnection, template: str) -> AsyncIterator[str]:
    url = server.set(database=await _create(admin, template))
    try:
        yield url.render_as_string(hide_password=False)
    finally:
        await admin.execute(text(f'DROP DATABASE IF EXISTS "{url.database}" WITH (FORCE)'))


@cache
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


async def _make_template(server: URL) -> str:
    """Make the template database unless it exists, and return the release and edition of the server."""
    name = _template_name()
    async with _administering(server) as connection:
        # Several workers, or runs, come here at once.
        await connection.execute(text("SELECT pg_advisory_lock(hashtext(:name))"), {"name": name})
        if not await connection.scalar(text("SELECT true FROM pg_database WHERE datname = :name"), {"name": name}):
            await _migrate_template(connection, server, name)
        await connection.execute(text("SELECT pg_advisory_unlock(hashtext(:name))"), {"name": name})
        release = await connection.scalar(text("SHOW server_version"))
        async with _copied(server, connection, name) as url, _administering(make_url(url)) as inside:
            extension = await inside.run_sync(timescale.version)
            edition = await inside.run_sync(timescale.edition)
    return f"PostgreSQL {release}, {edition if extension is None else f'TimescaleDB {extension}, {edition} edition'}"


async def _migrate_template(connection: AsyncConnection, server: URL, name: str) -> None:
    draft = f"arbstore_draft_{uuid4().hex[:12]}"
    await connection.execute(text(f'CREATE DATABASE "{draft}"'))
    url = server.set(database=draft).render_as_string(hide_password=False)
    async with Database(url) as database:
        await migrations.deploy(database)
        async with database.engine.begin() as drafted:
            # Tests often write old rows, and the server's background jobs would drop them during the test.
            await drafted.run_sync(timescale.pause_policies)
    # A template must have no connection, but TimescaleDB's scheduler connects to every database with its extension.
    await connection.execute(text(f'ALTER DATABASE "{draft}" ALLOW_CONNECTIONS false'))
    await connection.execute(
        text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :draft"), {"draft": draft}
    )
    # Renamed last, so that a template that was interrupted is never used.
    await connection.execute(text(f'ALTER DATABASE "{draft}" RENAME TO "{name}"'))


async def _create(admin: AsyncConnection, template: str) -> str:
    name = f"arbstore_test_{uuid4().hex[:12]}"
    # Copying files is the fastest way where its checkpoints need not reach the disk.
    strategy = "FILE_COPY" if await admin.scalar(text("SHOW fsync")) == "off" else "WAL_LOG"
    await admin.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY {strategy}'))
    return name


async def _clone(server: URL) -> URL:
    async with _administering(server) as admin:
        return server.set(database=await _create(admin, _template_name()))


async def _drop(server: URL, clone: URL) -> None:
    async with _administering(server) as admin:
        await admin.execute(text(f'DROP DATABASE IF EXISTS "{clone.database}" WITH (FORCE)'))
