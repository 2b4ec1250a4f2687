"""Exchanges: look-ups through the cache, and a table that follows a list of wanted exchanges."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Column, func, select, update
from sqlalchemy.dialects.postgresql import insert

from arbstore import models
from arbstore.errors import DuplicateError, UnknownExchangeError, ValidationError
from arbstore.postgres import Lock
from arbstore.records import Exchange, MarketType
from arbstore.records.reference import enum_value as enum_value
from arbstore.services import Service

_TABLE = models.Exchange.__table__
_NAME = re.compile("[A-Z0-9]+(_[A-Z0-9]+)*")
_LARGEST_ID = 2**15 - 1


class ExchangeSync(NamedTuple):
    """The exchanges that a sync added, updated and deactivated, and how many it left as they were."""

    added: tuple[Exchange, ...]
    updated: tuple[Exchange, ...]
    deactivated: tuple[Exchange, ...]
    unchanged: int


class Exchanges(Service):
    """Look-ups and writes of exchanges. The records may be up to `cache_ttl` seconds old."""

    async def get(self, exchange_id: int) -> Exchange | None:
        """Return the exchange by id, or None."""
        if not 0 < exchange_id <= _LARGEST_ID:
            return None  # the column's type cannot hold it: the server would raise an error
        kept: Exchange | None = self._cache.exchanges.kept(self._session, exchange_id)
        return kept or await self._load(exchange_id, _TABLE.c.id)

    async def get_one(self, exchange_id: int) -> Exchange:
        """Return the exchange by id; raise UnknownExchangeError if there is none."""
        if (found := await self.get(exchange_id)) is None:
            raise UnknownExchangeError(exchange_id)
        return found

    async def by_enum(self, exchange: str | Enum) -> Exchange | None:
        """Return the exchange by its enum value, such as BINANCE_SPOT, or None."""
        value = enum_value(exchange)
        kept: Exchange | None = self._cache.exchanges.kept(self._session, value)
        return kept or await self._load(value, _TABLE.c.enum_value)

    async def by_enum_one(self, exchange: str | Enum) -> Exchange:
        """Return the exchange by its enum value; raise UnknownExchangeError if there is none."""
        if (found := await self.by_enum(exchange)) is None:
            raise UnknownExchangeError(enum_value(exchange))
        return found

    async def all(self, *, active_only: bool = False) -> tuple[Exchange, ...]:
        """Return the exchanges, by enum value."""

        async def query() -> tuple[tuple[Exchange, ...], bool]:
            statement = select(_TABLE).order_by(_TABLE.c.enum_value)
            if active_only:
                statement = statement.where(_TABLE.c.is_active)
            found, is_current = await self._current(Exchange, statement)
            return tuple(found), is_current

        return await self._cache.exchanges.get(self._session, ("all", active_only), query)

    async def add(self, exchange: str | Enum) -> Exchange:
        """Register an exchange; name and market type are the parts of its enum value.

        Raises ValidationError unless it has the form {EXCHANGE_NAME}_{MARKET_TYPE}, DuplicateError if it is registered.
        """
        value = enum_value(exchange)
        if (added := await self._insert(value)) is None:
            # Another process may have registered it after this one kept the answer that there is none.
            self._cache.exchanges.invalidate([value, ("all", True), ("all", False)])
            raise DuplicateError(f"exchange {value!r} is registered already", constraint="uq_exchanges_enum_value")
        return added

    async def sync(self, exchanges: Iterable[str | Enum]) -> ExchangeSync:
        """Make exactly these exchanges active: add new ones, reactivate known ones, deactivate the others.

        Nothing is deleted. Raises ValidationError for an empty list, which would deactivate every exchange.
        """
        wanted = {enum_value(exchange) for exchange in exchanges}
        if not wanted:
            raise ValidationError("is empty: that would deactivate every exchange", field="exchanges")
        for value in wanted:
            _parts(value)
        # Locks on rows would not do: the rows that another sync is about to add have none yet.
        await self._execute(select(func.pg_advisory_xact_lock(Lock.EXCHANGES)))
        here = await self._records(Exchange, select(_TABLE))
        known = {exchange.enum_value for exchange in here}
        added = [await self._insert(value) for value in sorted(wanted - known)]
        back = [exchange.id for exchange in here if exchange.enum_value in wanted and not exchange.is_active]
        gone = [exchange.id for exchange in here if exchange.enum_value not in wanted and exchange.is_active]
        return ExchangeSync(
            tuple(exchange for exchange in added if exchange is not None),
            await self._activate(back, active=True),
            await self._activate(gone, active=False),
            len(known & wanted) - len(back),
        )

    async def _insert(self, value: str) -> Exchange | None:
        name, market_type = _parts(value)
        statement = (
            insert(_TABLE)
            .values(enum_value=value, exchange_name=name, market_type=market_type)
            # Catching an error would not do: the error ends the caller's transaction.
            .on_conflict_do_nothing(index_elements=["enum_value"])
            .returning(*_TABLE.c)
        )
        added = await self._record(Exchange, statement)
        if added is not None:
            self._changed([added])
        return added

    async def _activate(self, ids: list[int], *, active: bool) -> tuple[Exchange, ...]:
        statement = update(_TABLE).where(_TABLE.c.id.in_(ids)).values(is_active=active).returning(*_TABLE.c)
        changed = tuple(await self._records(Exchange, statement)) if ids else ()
        self._changed(changed)
        return changed

    def _changed(self, exchanges: Iterable[Exchange]) -> None:
        keys: set[Hashable] = set()
        for exchange in exchanges:
            keys |= {exchange.id, exchange.enum_value, ("all", True), ("all", False)}
        if keys:
            self._cache.changed(self._session, self._cache.exchanges, keys)

    async def _load(self, key: int | str, column: Column[Any]) -> Exchange | None:
        query = partial(self._current_one, Exchange, select(_TABLE).where(column == key))
        return await self._cache.exchanges.load(self._session, key, query)


def _parts(value: str) -> tuple[str, str]:
    name, _, market_type = value.rpartition("_")
    if not _NAME.fullmatch(name) or market_type not in list(MarketType):
        raise ValidationError(
            f"must be {{EXCHANGE_NAME}}_{{MARKET_TYPE}} with a market type of {', '.join(MarketType)}, is {value!r}",
            field="exchange",
        )
    return name, market_type
