"""Connections that the server ends: the error that is raised, and the connection that replaces them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from typing import NamedTuple

import pytest
import pytest_asyncio
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from arbstore.database import Database, Store
from arbstore.errors import DatabaseConnectionError, QueryError


class Line:
    """A proxy that passes on the server's last message, but does not close the connection after it.

    A backend that is terminated sends a message and then closes. The driver may receive one long before the other.
    """

    def __init__(self, server: URL) -> None:
        self._server = server
        self._gone = asyncio.Event()
        self._over = asyncio.Event()

    async def __aenter__(self) -> Line:
        self._listener = await asyncio.start_server(self._connect, "127.0.0.1")
        host, port = self._listener.sockets[0].getsockname()
        self.url = self._server.set(host=host, port=port, query={})
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        self._over.set()

    async def last_words(self) -> None:
        async with asyncio.timeout(30):
            await self._gone.wait()
        await asyncio.sleep(0.05)  # the loop reads in its next round what has arrived

    async def _connect(self, asked: asyncio.StreamReader, heard: asyncio.StreamWriter) -> None:
        host, port = self._server.query.get("host", self._server.host), self._server.port or 5432
        if str(host).startswith("/"):
            said, asks = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            said, asks = await asyncio.open_connection(str(host), port)
        with closing(heard), closing(asks):
            asking = asyncio.create_task(_carry(asked, asks))
            await _carry(said, heard)
            if not self._gone.is_set():  # only for the first: the others were closed by the client
                self._gone.set()
                await self._over.wait()
            asking.cancel()


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while block := await source.read(65_536):
        target.write(block)
        await target.drain()


class Served(NamedTuple):
    """A database, a second connection to the same one, and the proxy in front of the first, if there is one."""

    db: Database
    other: Database
    line: Line | None

    async def end(self, pid: int) -> None:
        """Terminate the connection, and return when the client has received everything that it will."""
        async with self.other.begin() as store:
            await store.session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        if self.line is not None:
            await self.line.last_words()


@pytest_asyncio.fixture(params=["gone", "saying so"])
async def served(request: pytest.FixtureRequest, committed_db: Database) -> AsyncIterator[Served]:
    if request.param == "gone":
        async with Database(settings=committed_db.settings) as db:
            yield Served(db, committed_db, None)
    else:
        async with (
            Line(committed_db.engine.url) as line,
            Database(line.url.render_as_string(hide_password=False), settings=committed_db.settings) as db,
        ):
            yield Served(db, committed_db, line)


async def process(session: AsyncSession) -> int:
    return int(await session.scalar(text("SELECT pg_backend_pid()")) or 0)


async def test_a_statement_tells_of_it_and_what_follows_in_its_transaction_to_begin_another(served: Served) -> None:
    async with served.db.session() as session:
        store = Store(session, served.db.cache)
        await served.end(await process(session))
        with pytest.raises(DatabaseConnectionError):
            await store.exchanges.all()
        with pytest.raises(QueryError, match="begin another"):
            await store.exchanges.all()


async def test_a_commit_tells_of_it_and_nothing_is_stored(served: Served) -> None:
    with pytest.raises(DatabaseConnectionError):  # noqa: PT012 # it is the end of the block that fails
        async with served.db.begin() as store:
            await store.exchanges.add("MEXC_SPOT")
            await served.end(await process(store.session))
    async with served.db.begin() as store:
        assert await store.exchanges.by_enum("MEXC_SPOT") is None


async def test_an_error_in_the_block_is_the_one_that_is_told(served: Served) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 # the server has to go first
        async with served.db.begin() as store:
            lost = await process(store.session)
            await served.end(lost)
            raise ZeroDivisionError
    async with served.db.begin() as store:
        assert await process(store.session) != lost


async def test_a_connection_that_nobody_used_is_replaced(served: Served) -> None:
    async with served.db.begin() as store:
        idle = await process(store.session)
    await served.end(idle)
    async with served.db.begin() as store:
        assert await store.exchanges.all() == ()


async def test_a_session_of_the_users_own_engine_tells_of_it(served: Served) -> None:
    engine = create_async_engine(served.db.engine.url)
    async with AsyncSession(engine) as session:
        await served.end(await process(session))
        with pytest.raises(DatabaseConnectionError):
            await Store(session).exchanges.all()
    await engine.dispose()
