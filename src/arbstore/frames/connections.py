"""The ADBC connections that a Database's frames are read over: where they lead, how many, and which stay open."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from adbc_driver_manager import Error
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped] # it has no types

from arbstore.errors import PoolExhaustedError
from arbstore.settings import Settings

# The driver knows our types. If it asked the server for types, it would get every column of every chunk.
_OPTIONS = {"adbc.postgresql.type_resolver_mode": "builtin"}


def conninfo(given: Mapping[str, Any], settings: Settings, *, statement_timeout: float, address: Any = None) -> str:
    """Return libpq's connection string for the arguments `given` to asyncpg. It contains the password: never show it.

    `address` is the address that asyncpg is connected to. It is used when the URL names no host, because the two
    drivers would search in different places. libpq also reads variables that asyncpg ignores. Those that lead to
    another server (PGHOSTADDR) or change the session (PGOPTIONS) are overridden here. PGREQUIREAUTH and PGSERVICE
    cannot be overridden: the first can refuse a connection, the second can add parameters that are not set here.
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
        "connect_timeout": max(2, math.ceil(settings.connect_timeout)),  # libpq reads 1 as 2, and 0 as no limit
        "application_name": settings.application_name,
        "client_encoding": "UTF8",
        "options": "",
    }
    if settings.prepared_statements:  # without them there is PgBouncer, which refuses options
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
    """The connections of one Database. Reads take one each; idle ones are kept for the next reads.

    A server reads the catalog of every chunk once per connection, so a new connection is slower than most reads.
    `acquire` and `release` belong to one event loop, the other methods to any thread.
    """

    def __init__(self, settings: Settings) -> None:
        """Allow as many reads at once as the pool may have connections, and keep as many idle as the pool does."""
        self._settings = settings
        self._most = settings.pool_size + settings.max_overflow
        self._free = asyncio.Semaphore(self._most)
        self._reading = 0
        self._idle: list[tuple[str, Any]] = []
        self._disposed = False
        self._lock = threading.Lock()

    async def acquire(self) -> None:
        """Wait until another read may begin. Raises PoolExhaustedError after the pool's timeout."""
        try:
            async with asyncio.timeout(self._settings.pool_timeout):
                await self._free.acquire()
        except TimeoutError as error:
            raise PoolExhaustedError(
                f"{self._most} frames are being read, and none was finished in {self._settings.pool_timeout:g} seconds:"
                " raise ARBSTORE_POOL_SIZE or read fewer at once"
            ) from error
        self._reading += 1

    def release(self) -> None:
        """Let the next read begin."""
        self._reading -= 1
        self._free.release()

    def connect(self, where: str) -> Any:
        """Return a connection to the connection string `where`, in a transaction: an idle one, or a new one.

        An idle one is asked first whether it still works. Blocks, and raises the driver's errors.
        """
        if (kept := self._taken(where)) is not None:
            try:
                kept.adbc_connection.set_autocommit(False)
                with kept.cursor() as cursor:  # a read that fails later is not tried again
                    cursor.execute("SELECT 1")
                    cursor.fetchall()
            except (Error, OSError):
                _close([kept])
            else:
                return kept
        # In a transaction: without one, PgBouncer may send each step of a statement to another server.
        return dbapi.connect(where, db_kwargs=_OPTIONS)

    def _taken(self, where: str) -> Any:
        """Return an idle connection with these settings, or None after making room for a new one."""
        with self._lock:
            place = next((place for place, (there, _) in enumerate(self._idle) if there == where), None)
            if place is not None:
                return self._idle.pop(place)[1]
            surplus = self._surplus(self._most - self._reading)
        _close(surplus)
        return None

    def keep(self, where: str, connection: Any) -> None:
        """End the connection's transaction, and keep it. If too many are idle, the one idle longest is closed.

        Raises the driver's errors if the connection is lost; then the caller closes it.
        """
        connection.adbc_connection.set_autocommit(True)  # this commits
        with self._lock:
            self._idle.append((where, connection))
            surplus = self._surplus(0 if self._disposed else self._settings.pool_size)
        _close(surplus)

    def dispose(self) -> None:
        """Close the idle connections, and keep none from now on."""
        with self._lock:
            self._disposed = True
            surplus = self._surplus(0)
        _close(surplus)

    def _surplus(self, most: int) -> list[Any]:
        """Take all but `most` of the idle connections off the list, and return them."""
        count = max(0, len(self._idle) - most)
        surplus, self._idle = self._idle[:count], self._idle[count:]
        return [connection for _, connection in surplus]


def _close(connections: list[Any]) -> None:
    for connection in connections:
        with suppress(Error):  # it was lost already
            connection.close()
