"""A query's result in Arrow batches, over an ADBC connection that it has to itself, read by threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped] # it has no types
from adbc_driver_manager import AdbcStatusCode, Error
from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped] # it has no types

from arbstore.errors import database_error
from arbstore.frames.connections import Connections
from arbstore.settings import Settings

# Of the types that the tables have. Asked instead, the server would send every column of every chunk there is.
_OPTIONS = {"adbc.postgresql.type_resolver_mode": "builtin"}
_BETWEEN_CANCELS = 0.1  # seconds; one that comes before the statement has begun does nothing


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


class Reading:
    """One query's result. `next` blocks and is for one thread at a time; `stop` is for another one, at any time."""

    def __init__(self, where: str, sql: str, connections: Connections) -> None:
        """Connect with the first `next`, or take one of the connections that are open."""
        self._where = where
        self._sql = sql
        self._connections = connections
        self._connection: Any = None
        self._cursor: Any = None
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._stopped = False
        self._ended = False
        self._complete = False
        self._free = threading.Lock()  # held while a thread reads

    @property
    def is_connecting(self) -> bool:
        """Whether it is at the one thing that nothing can cut short, save `connect_timeout`."""
        return self._free.locked() and self._connection is None

    def next(self) -> pa.RecordBatch | None:
        """Return the next batch, None after the last; connects and executes first."""
        with self._free, _translated():
            if self._batches is None:
                self._start()
            batch = None if self._stopped or self._batches is None else next(self._batches, None)
            self._complete = batch is None and not self._stopped
            self._ended = batch is None
            return batch

    def _start(self) -> None:
        if not self._stopped:
            # In a transaction: without one PgBouncer may take another server for each step of a statement.
            self._connection = self._begun() or dbapi.connect(self._where, db_kwargs=_OPTIONS)
        if not self._stopped:
            self._cursor = self._connection.cursor()
            self._cursor.execute(self._sql)
            # Not the public reader: its errors have lost their SQLSTATE.
            self._batches = iter(self._cursor._results.reader)

    def _begun(self) -> Any:
        """Return a kept connection in a transaction, None where there is none, or it was lost while it was idle."""
        kept = self._connections.take(self._where)
        if kept is None:
            return None
        try:
            kept.adbc_connection.set_autocommit(False)
            with kept.cursor() as cursor:  # as the pool asks too: what fails from here on is not tried again
                cursor.execute("SELECT 1")
                cursor.fetchall()
        except (Error, OSError):
            with suppress(Error):
                kept.close()
            return None
        return kept

    def stop(self) -> None:
        """Cancel what the server does, wait for the thread that reads, and close the connection.

        One whose result was read to its end, and that nothing was cancelled on, is kept for another reading.
        """
        self._stopped = True
        cancelled = False
        while True:
            if (cursor := self._cursor) is not None and not self._ended:
                cancelled = True  # it may come late, and would hit the next statement
                with suppress(Error):  # a connection that is lost: there is nothing to cancel
                    cursor.adbc_cancel()
            if self._free.acquire(timeout=_BETWEEN_CANCELS):
                break
        try:
            if self._complete and not cancelled:
                with suppress(Error):  # lost: it is closed
                    self._keep()
            self._close()
        finally:
            self._free.release()

    def _keep(self) -> None:
        self._cursor.close()
        self._connection.adbc_connection.set_autocommit(True)  # which commits
        self._connections.keep(self._where, self._connection)
        self._cursor = self._connection = None

    def _close(self) -> None:
        parts = self._cursor, self._connection
        self._cursor = self._connection = self._batches = None
        for part in parts:
            if part is not None:
                with suppress(Error):  # lost, or with a cancelled result: it is closed all the same
                    part.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Error as error:
        said = {name: value.decode(errors="replace") for name, value in _details(error)}
        text = said.get("PG_DIAG_MESSAGE_PRIMARY") or str(error).strip()
        if detail := said.get("PG_DIAG_MESSAGE_DETAIL"):
            text = f"{text}: {detail}"
        lost = error.sqlstate is None and error.status_code is AdbcStatusCode.IO
        raise database_error(" ".join(text.split()), error.sqlstate or "", lost=lost) from error
    except OSError as error:  # the driver's, where it has nothing better
        raise database_error(" ".join(str(error).split()), "", lost=True) from error


def _details(error: Error) -> Iterator[tuple[str, bytes]]:
    for name, value in error.details:
        yield (name.decode() if isinstance(name, bytes) else name), value
