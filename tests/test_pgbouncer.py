"""PgBouncer in transaction mode, the real one, in front of the server under test."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, text

from arbstore import migrations
from arbstore.database import Database
from arbstore.errors import ArbstoreError
from arbstore.settings import Settings
from tests.conftest import listing, quote

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")

pytestmark = pytest.mark.skipif(
    PGBOUNCER is None, reason="pgbouncer is not installed (Debian: apt-get install pgbouncer)"
)


@pytest.fixture
def bouncer(committed_db: Database) -> Iterator[URL]:
    """Yield a URL that leads through a PgBouncer with one server connection, in transaction mode."""
    server = committed_db.engine.url
    host = server.query.get("host", server.host)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    config = folder / "pgbouncer.ini"
    login = f"user={server.username}" + (f" password={server.password}" if server.password else "")
    config.write_text(
        f"[databases]\n* = host={host} port={server.port or 5432} {login}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
        "pool_mode = transaction\ndefault_pool_size = 1\n"
    )
    folder.chmod(0o755)  # whom it runs as must reach it
    assert PGBOUNCER is not None
    process = subprocess.Popen([PGBOUNCER, "-q", str(config)], **not_root(str(host)))  # noqa: S603 # found above
    try:
        wait_for(port)
        yield server.set(host="127.0.0.1", port=port, query={})
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def not_root(host: str) -> dict[str, Any]:
    """Return what makes the process another user's than root's, which PgBouncer refuses: whom the socket is open to."""
    if os.geteuid() != 0:
        return {}
    owner = Path(host).stat().st_uid if host.startswith("/") else 65534
    return {"user": owner, "group": owner, "extra_groups": []}


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "pgbouncer does not listen"
        time.sleep(0.01)


async def use(db: Database, name: str) -> int:
    async with db.begin() as store:
        exchange = await store.exchanges.add(name)
        symbol = await store.symbols.add(exchange.id, listing("BTC"))
        await store.book_tickers.insert([quote(symbol)])
        return len(await store.book_tickers.latest(name))


async def test_it_works_without_prepared_statements(bouncer: URL) -> None:
    url = bouncer.render_as_string(hide_password=False)
    settings = Settings.load(database_url=url, prepared_statements=False)
    async with Database(settings=settings) as one, Database(settings=settings) as other:
        for number in range(3):
            written = await asyncio.gather(use(one, f"ONE{number}_SPOT"), use(other, f"OTHER{number}_SPOT"))
            assert list(written) == [1, 1]


async def test_frames_come_through_it(bouncer: URL) -> None:
    url = bouncer.render_as_string(hide_password=False)
    async with Database(settings=Settings.load(database_url=url, prepared_statements=False)) as db:
        assert await use(db, "BINANCE_SPOT") == 1
        reads = [db.frames.history("book_tickers", "BINANCE_SPOT", "BTC", "USDT") for _ in range(3)]
        assert [len(table) for table in await asyncio.gather(*reads)] == [1, 1, 1]


async def test_a_deploy_through_it_leaves_no_lock_behind(bouncer: URL, empty_db: Database) -> None:
    url = bouncer.set(database=empty_db.engine.url.database).render_as_string(hide_password=False)
    async with Database(settings=Settings.load(database_url=url, prepared_statements=False)) as db:
        await migrations.deploy(db)
        async with empty_db.engine.connect() as connection:
            held = (
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database"
            )
            assert await connection.scalar(text(f"{held} WHERE datname = current_database())")) == 0
            assert await connection.run_sync(migrations.current) == migrations.head()


async def test_with_them_it_is_an_error_and_not_a_wrong_answer(bouncer: URL) -> None:
    settings = Settings.load(database_url=bouncer.render_as_string(hide_password=False), connect_timeout=1)
    with pytest.raises(ArbstoreError):
        async with Database(settings=settings) as db:
            await use(db, "REFUSED_SPOT")
