"""The connections that the frames of one Database are read over: so many at once, and some kept open for the next."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from adbc_driver_manager import Error
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine

from arbstore.database import Database
from arbstore.errors import PoolExhaustedError
from arbstore.settings import Settings


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

    def take(self, where: str) -> Any:
        """Return an idle connection to there; the server may have closed it meanwhile.

        Return None where there is none: then another may be made, and idle ones of other settings leave room for it.
        """
        with self._lock:
            place = next((place for place, (there, _) in enumerate(self._idle) if there == where), None)
            if place is not None:
                return self._idle.pop(place)[1]
            leaving = self._leaving(self._most - self._reading)
        _close(leaving)
        return None

    def keep(self, where: str, connection: Any) -> None:
        """Keep the connection, which is in no transaction; where there are enough, the one idle for longest goes."""
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
