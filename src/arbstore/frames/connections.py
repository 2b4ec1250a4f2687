"""The ADBC connections that the frames of a Database are read over: where they lead, how many, and which are kept."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from adbc_driver_manager import Error
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped] # it has no types
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine

from arbstore.database import Database
from arbstore.errors import PoolExhaustedError
from arbstore.settings import Settings

# Of the types that the tables have. Asked instead, the server would send every column of every chunk there is.
_OPTIONS = {"adbc.postgresql.type_resolver_mode": "builtin"}


def conninfo(given: Mapping[str, Any], settings: Settings, *, statement_timeout: float, address: Any = None) -> str:
    """Return libpq's connection string for what asyncpg is given, with the password in it: it is to be shown nowhere.

    `address` is where asyncpg is connected to, for a URL that names no host: the two search in other places. What libpq
    has variables for that asyncpg does not read is said here too, if only to be nothing, where they would lead to
    another server (PGHOSTADDR) or change the session (PGOPTIONS). It still obeys those that make it refuse, such as
    PGREQUIREAUTH, and PGSERVICE, which cannot be nothing: it has to be in the file, and gives what is not said here.
    """
    host, port = given.get("host"), given.get("port")
    if not host and address is not None:
        host, port = _host_and_port(address)
    values = {
        "host": ",".join(host) if isinstance(host, list) else host,
        "hostaddr": "",
        "port": ",".join(map(str, port)) if isinstance(port, list) else port,
        "user": given.get("user"),
        "password": given.get("password"),
        "dbname": given.get("database"),
        "sslmode": settings.ssl_mode or given.get("ssl"),
        "connect_timeout": max(2, math.ceil(settings.connect_timeout)),  # 1 is 2 to libpq, and 0 for ever
        "application_name": settings.application_name,
        "client_encoding": "UTF8",
        "options": "",
    }
    if settings.prepared_statements:  # else there is PgBouncer, which refuses options; the same as in `engine`
        values["options"] = f"-c jit=off -c statement_timeout={statement_timeout * 1000:.0f}"
    return " ".join(f"{name}={_quoted(value)}" for name, value in values.items() if value is not None)


def _host_and_port(address: Any) -> tuple[str, Any]:
    if isinstance(address, tuple):
        return address[0], address[1]
    folder, _, name = str(address).rpartition("/")
    return folder, name.rpartition(".")[2]  # /run/postgresql, .s.PGSQL.5432


def _quoted(value: Any) -> str:
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


class Connections:
    """Turns of reads, for one event loop; and connections that are idle, for all threads.

    A server learns of every chunk it reads once a connection: a new one takes longer to begin than most reads to end.
    """

    def __init__(self, settings: Settings) -> None:
        """Let in as many as the pool may have connections, and keep as many as it keeps."""
        self._settings = settings
        self._most = settings.pool_size + settings.max_overflow
        self._turns = asyncio.Semaphore(self._most)
        self._reading = 0
        self._idle: list[tuple[str, Any]] = []
        self._disposed = False
        self._lock = threading.Lock()

    @classmethod
    def of(cls, database: Database) -> Connections:
        """Return those of the Database; they are closed with its engine."""
        found = _of_engines.get(database.engine)
        if found is None:
            found = _of_engines[database.engine] = cls(database.settings)
            event.listen(database.engine.sync_engine, "engine_disposed", found.dispose)
        return found

    async def begin(self) -> None:
        """Wait for a turn, to be given back by `end`. Raises PoolExhaustedError after the pool's timeout."""
        try:
            async with asyncio.timeout(self._settings.pool_timeout):
                await self._turns.acquire()
        except TimeoutError as error:
            raise PoolExhaustedError(
                f"{self._most} reads of frames are under way, and none ended in"
                f" {self._settings.pool_timeout:g} seconds: raise ARBSTORE_POOL_SIZE or read fewer at once"
            ) from error
        self._reading += 1

    def end(self) -> None:
        """Give the turn to the next."""
        self._reading -= 1
        self._turns.release()

    def connect(self, where: str) -> Any:
        """Return a connection to there, in a transaction: an idle one that still lives, or a new one.

        Blocks, and raises the driver's errors. To make room for a new one, idle ones of other settings are closed.
        """
        if (kept := self._taken(where)) is not None:
            try:
                kept.adbc_connection.set_autocommit(False)
                with kept.cursor() as cursor:  # as the pool asks too; what fails later is not tried again
                    cursor.execute("SELECT 1")
                    cursor.fetchall()
            except (Error, OSError):
                _close([kept])
            else:
                return kept
        # In a transaction: without one PgBouncer may take another server for each step of a statement.
        return dbapi.connect(where, db_kwargs=_OPTIONS)

    def _taken(self, where: str) -> Any:
        with self._lock:
            place = next((place for place, (there, _) in enumerate(self._idle) if there == where), None)
            if place is not None:
                return self._idle.pop(place)[1]
            leaving = self._leaving(self._most - self._reading)
        _close(leaving)
        return None

    def keep(self, where: str, connection: Any) -> None:
        """End its transaction, and keep it; where there are enough, the one idle for longest is closed.

        Raises the driver's errors where it is lost; then it is still to be closed.
        """
        connection.adbc_connection.set_autocommit(True)  # which commits
        with self._lock:
            self._idle.append((where, connection))
            leaving = self._leaving(0 if self._disposed else self._settings.pool_size)
        _close(leaving)

    def dispose(self, _engine: Engine) -> None:
        """Close those that are idle, and keep none from now on."""
        with self._lock:
            self._disposed = True
            leaving = self._leaving(0)
        _close(leaving)

    def _leaving(self, most: int) -> list[Any]:
        """Return those beyond so many, which are idle no longer."""
        count = max(0, len(self._idle) - most)
        leaving, self._idle = self._idle[:count], self._idle[count:]
        return [connection for _, connection in leaving]


def _close(connections: list[Any]) -> None:
    for connection in connections:
        with suppress(Error):  # lost meanwhile
            connection.close()


_of_engines: WeakKeyDictionary[AsyncEngine, Connections] = WeakKeyDictionary()
