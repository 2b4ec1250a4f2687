"""What all time series share: checked inserts, the latest row of each series, and the history of one series.

Everything that differs between series is in their row of `kinds`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache
from inspect import Parameter, Signature
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import CTE, ColumnElement, Row, Select, any_, func, lateral, literal, null, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from arbstore import models
from arbstore.cache import ReferenceCache, ticker
from arbstore.errors import ValidationError
from arbstore.kinds import Kind, Owner
from arbstore.postgres.history import HistoryQuery, Window, after, starts, statements, within
from arbstore.postgres.upsert import InsertResult, upsert
from arbstore.records import Exchange, Snapshot, Symbol, columns, parse, rules
from arbstore.services import Service, as_records
from arbstore.services.exchanges import Exchanges
from arbstore.services.symbols import Symbols

In = TypeVar("In", bound=Snapshot)
Out = TypeVar("Out", bound=Snapshot)

_EXCHANGE = models.Exchange.__table__
_SYMBOL = models.Symbol.__table__
_SYMBOL_NAMES = ("symbol_base", "symbol_quote", "exchange_symbol")


class Series(Service, Generic[In, Out]):
    """The time series of one kind. One series is an owner (a symbol or an exchange) and, in some kinds, a part of it.

    Calls name a series by `kind.arguments`, in that order or by name: `history("BINANCE_SPOT", "BTC", "USDT")`.
    """

    def __init__(self, session: AsyncSession, cache: ReferenceCache, kind: Kind[In, Out]) -> None:
        """Read and write the rows of `kind` in `session`."""
        super().__init__(session, cache)
        self.kind = kind
        self.table = kind.table

    async def insert(self, rows: Iterable[In | Mapping[str, Any]]) -> InsertResult:
        """Write records, or mappings with their fields, in the session's transaction.

        The batch is checked as a whole before anything is sent. A bad row raises ValidationError with its index, field
        and reason, and nothing is written. So does an id without an exchange or symbol: UnknownExchangeError or
        UnknownSymbolError. If keys are equal, the last row wins, both in the batch and over the stored row.
        """
        values = self._checked(rows)
        return await upsert(self._session, self.table, values, makes=self.kind.makes, final=self.kind.final)

    def _checked(self, rows: Iterable[In | Mapping[str, Any]]) -> dict[str, list[Any]]:
        """Return the columns of the batch, in the form that is stored."""
        return columns(self.kind.record, rows)

    # mypy lets subclasses write the arguments out only if the base takes any.
    async def latest(self, *filters: Any, **named: Any) -> list[Out]:
        """Return the newest row of each series that the filters leave, in the order of the names.

        Filters are `kind.arguments`, all of them optional, and `max_age`, a timedelta. Inactive symbols and exchanges
        are left out, and so are series without a row, or without one younger than `max_age`. Raises
        UnknownExchangeError.
        """
        max_age: timedelta | None = named.pop("max_age", None)
        wanted = _bound(self.kind, filters, named, optional=True)
        owners = await self._owners(wanted)
        parts = await self._parts(wanted)
        since = None if max_age is None else rules.ago(_positive(max_age, "max_age"))
        bounds = within(self.table.c.timestamp, since, None)
        bounds += [self.table.c[name] == value for name, value in parts.items()]
        free = [part.column for part in self.kind.parts if part.column not in parts]
        if free:
            owned = owners.cte("owned")
            series = self._series(owned, free[0], parts)
            return self._found(await self._execute(self._newest(owned, series, bounds, free[0])))
        return self._found(await self._newest_of_each(owners, bounds, since))

    async def history(self, *series: Any, **named: Any) -> list[Out]:
        """Return the rows of one series with `since <= timestamp < until`, oldest first; see `query`."""
        return await self.fetch(await self.query(*series, **named))

    async def history_by_id(self, symbol_id: int, **named: Any) -> list[Out]:
        """Return what `history` returns, for a symbol by its id: delisted symbols and dated contracts need this.

        The part and the window are given by name. Without the part, rows of all parts are returned. Raises
        UnknownSymbolError.
        """
        return await self.fetch(await self.query_by_id(symbol_id, **named))

    async def query(self, *series: Any, **named: Any) -> HistoryQuery:
        """Look the series up, and return the query that `history` runs.

        A pair stands for its active symbol without expiry. The window is given by name: `since`, `until`, `limit`.
        Raises UnknownExchangeError and UnknownSymbolError, ValidationError for a bad value, and TypeError unless
        exactly the `kind.arguments` are given.
        """
        window = _window(named)
        given = _bound(self.kind, series, named)
        exchange = await Exchanges(self._session, self._cache).by_enum_one(given["exchange"])
        if self.kind.of_symbols:
            symbols = Symbols(self._session, self._cache)
            owner: Exchange | Symbol = await symbols.by_pair_one(exchange.id, given["base"], given["quote"])
        else:
            owner = exchange
        key = {self.kind.owner: owner.id, **await self._parts(given)}
        return HistoryQuery.of(self.kind, key, _names(exchange, owner), **window)

    async def query_by_id(self, symbol_id: int, **named: Any) -> HistoryQuery:
        """Return the query that `history_by_id` runs. Raises ValidationError if the kind has no symbols."""
        if not self.kind.of_symbols:
            raise ValidationError(f"is not possible for {self.kind.name}, which belong to exchanges", field="symbol_id")
        window = _window(named)
        given = _bound(self.kind, (None, None, None), named, optional=True)
        symbol = await Symbols(self._session, self._cache).get_one(symbol_id)
        exchange = await Exchanges(self._session, self._cache).get_one(symbol.exchange_id)
        key = {self.kind.owner: symbol.id, **await self._parts(given)}
        return HistoryQuery.of(self.kind, key, _names(exchange, symbol), **window)

    async def fetch(self, query: HistoryQuery) -> list[Out]:
        """Run a query of this kind, and return its rows, oldest first. Raises ValidationError for another kind's."""
        if query.kind is not self.kind:
            raise ValidationError(f"is for {query.kind.name}, not for {self.kind.name}", field="query")
        rows: Sequence[Row[Any]] = ()
        for statement in statements(query):
            rows = (await self._execute(statement)).all()
            if len(rows) == query.limit:
                break
        found = as_records(self.kind.stored, rows, **query.constants)
        if query.limit is not None:
            found.reverse()
        return found

    async def _parts(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of the parts with the values to look for, without a part that is not given."""
        found: dict[str, Any] = {}
        for part in self.kind.parts:
            value = part.default if given.get(part.argument) is None else given[part.argument]
            if self.kind.owners.get(part.column) is Owner.EXCHANGE and value is not None:
                found[part.column] = (await Exchanges(self._session, self._cache).by_enum_one(value)).id
            elif value is not None:
                found[part.column] = parse(self.kind.record, part.column, value, argument=part.argument)
        return found

    async def _owners(self, wanted: Mapping[str, Any]) -> Select[Any]:
        """Select the ids of the active owners that the filters leave, with their names."""
        exchange: str | Enum | None = wanted.get("exchange")
        known = None if exchange is None else await Exchanges(self._session, self._cache).by_enum_one(exchange)
        name = _EXCHANGE.c.enum_value.label("exchange")
        if not self.kind.of_symbols:
            owners = select(_EXCHANGE.c.id, name).where(_EXCHANGE.c.is_active)
            return owners if known is None else owners.where(_EXCHANGE.c.id == known.id)
        owners = (
            select(_SYMBOL.c.id, name, *(_SYMBOL.c[field] for field in _SYMBOL_NAMES))
            .join(_EXCHANGE, _EXCHANGE.c.id == _SYMBOL.c.exchange_id)
            .where(_SYMBOL.c.is_active, _EXCHANGE.c.is_active)
        )
        if known is not None:
            owners = owners.where(_SYMBOL.c.exchange_id == known.id)
        for argument, column in (("base", _SYMBOL.c.symbol_base), ("quote", _SYMBOL.c.symbol_quote)):
            if argument in wanted:
                owners = owners.where(column == ticker(wanted[argument], argument))
        return owners

    async def _newest_of_each(
        self, owners: Select[Any], bounds: list[ColumnElement[bool]], since: datetime | None
    ) -> Iterable[Row[Any]]:
        """Return the newest row of each owner, by one index probe each, however long the history is.

        The search goes back further only for owners that have no row in the newest chunks.
        """
        found: dict[Any, Row[Any]] = {}
        owner = owners.selected_columns[0]
        for start in starts(self.table, since):
            owned = owners.cte("owned")
            nearby = [*bounds, *after(self.table.c.timestamp, start)]
            found |= {row[0]: row for row in await self._execute(self._newest(owned, owned, nearby))}
            missing = [key for key, row in found.items() if row.timestamp is None]
            if not missing:
                break
            owners = owners.where(owner == any_(literal(missing, ARRAY(owner.type))))
        return found.values()

    def _newest(
        self, owned: CTE, series: CTE, bounds: list[ColumnElement[bool]], free: str | None = None
    ) -> Select[Any]:
        """Select each series' newest row within the bounds, nulls if it has none, in the order of the names."""
        owner_column = self.table.c[self.kind.owner]
        newest = select(*self.kind.columns).where(owner_column == series.c[0], *bounds)
        if free is not None:
            newest = newest.where(self.table.c[free] == series.c.part)
        row = lateral(newest.order_by(self.table.c.timestamp.desc()).limit(1), name="newest")
        names = [column for column in owned.c if column.name not in row.c and column is not owned.c[0]]
        owner = owned.c[0].label(self.kind.owner)
        values = [column for column in row.c if column.name != owner.name]
        source = series if series is owned else series.join(owned, owned.c[0] == series.c[0])
        return (
            select(owner, *values, *names).select_from(source.outerjoin(row, true())).order_by(*names, owner, *values)
        )

    def _found(self, rows: Iterable[Row[Any]]) -> list[Out]:
        return as_records(self.kind.stored, (row for row in rows if row.timestamp is not None))

    def _series(self, owned: CTE, free: str, parts: Mapping[str, Any]) -> CTE:
        """Select (owner, part) of every series, by skipping along the key from one value of `free` to the next."""
        part = self.table.c[free]
        fixed = [self.table.c[name] == value for name, value in parts.items()]

        def first(owner: ColumnElement[Any], *beyond: ColumnElement[bool]) -> Any:
            which = [self.table.c[self.kind.owner] == owner, *fixed, *beyond]
            return select(func.min(part)).where(*which).scalar_subquery()

        found = select(owned.c[0].label("owner"), first(owned.c[0]).label("part")).cte("series", recursive=True)
        following = first(found.c.owner, part > found.c.part)
        return found.union_all(select(found.c.owner, following).where(found.c.part.is_not(null())))


def _window(named: dict[str, Any]) -> Window:
    """Take the window out of the arguments that were given by name."""
    return cast("Window", {name: named.pop(name) for name in Window.__annotations__ if name in named})


def _bound(
    kind: Kind[Any, Any], given: Sequence[Any], named: Mapping[str, Any], *, optional: bool = False
) -> dict[str, Any]:
    """Return the arguments by name; raise Python's own TypeError for one that is missing, unknown or given twice."""
    bound = _signature(kind, optional=optional).bind(*given, **named).arguments
    return {name: value for name, value in bound.items() if not optional or value is not None}


@lru_cache(maxsize=64)
def _signature(kind: Kind[Any, Any], *, optional: bool) -> Signature:
    default = None if optional else Parameter.empty
    places = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default) for name in kind.arguments]
    return Signature([*places, *(Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in kind.options)])


def _names(exchange: Exchange, owner: Exchange | Symbol) -> dict[str, str]:
    """Return the names that a stored record shows beside its columns."""
    names = {"exchange": exchange.enum_value}
    if isinstance(owner, Symbol):
        names |= {field: getattr(owner, field) for field in _SYMBOL_NAMES}
    return names


def _positive(age: timedelta, name: str) -> timedelta:
    if not isinstance(age, timedelta):
        raise ValidationError(f"must be a timedelta, is {age!r}", field=name)
    if age <= timedelta(0):
        raise ValidationError(f"must be more than zero, is {age}", field=name)
    return age
