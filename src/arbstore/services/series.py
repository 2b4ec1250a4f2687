"""What all time series share: checked inserts, the latest row of each series, and the history of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import (
    CTE,
    Column,
    ColumnElement,
    Row,
    Select,
    Table,
    any_,
    func,
    lateral,
    literal,
    null,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY

from arbstore import models
from arbstore.errors import ValidationError
from arbstore.postgres import upsert
from arbstore.postgres.upsert import InsertResult
from arbstore.records import Snapshot, columns
from arbstore.services import reach
from arbstore.services.exchanges import Exchanges, enum_value
from arbstore.services.query import Query, Window, history, within
from arbstore.services.service import Service, ago, as_records
from arbstore.services.symbols import Symbols

In = TypeVar("In", bound=Snapshot)
Out = TypeVar("Out", bound=Snapshot)


_EXCHANGE = models.Exchange.__table__
_SYMBOL = models.Symbol.__table__


class Series(Service, Generic[In, Out]):
    """Time series of one table. A series is an owner (a symbol, an exchange) and, in some tables, a `part` of it."""

    table: ClassVar[Table]
    record: type[In]
    stored: type[Out]
    part: ClassVar[str | None] = None  # the key's column between owner and time, such as timeframe

    async def insert(self, rows: Iterable[In | Mapping[str, Any]]) -> InsertResult:
        """Write records, or mappings with their fields, in the session's transaction.

        The batch is checked whole before anything is sent: a bad row raises ValidationError with its index, field
        and reason, and nothing is written; a series that is not registered raises UnknownSymbolError or
        UnknownExchangeError. Of rows with equal keys the last one wins, in the batch and over what is stored.
        """
        return await upsert.upsert(self._session, self.table, columns(self.record, rows))

    async def query(self, read: str, *given: Any, **options: Any) -> Query | None:
        """Return what `history` or `history_by_id`, whichever `read` names, so called, asks the server for.

        Looks up, checks and raises what they do; the query itself is not run. None: what is asked for is not one query.
        """
        asked = copy(self)
        asked._fetch = _unrun  # type: ignore[assignment, method-assign] # every signature would be there twice
        found: Query = await getattr(asked, read)(*given, **options)
        return found

    async def _fetch(self, query: Query) -> list[Out]:
        rows: Sequence[Row[Any]] = ()
        for statement in query.from_each_start():
            rows = (await self._execute(statement)).all()
            if len(rows) == query.limit:
                break
        found = as_records(self.stored, rows, **query.constants)
        if query.newest_first:
            found.reverse()
        return found

    async def _latest(self, owners: Select[Any], part: object | None, max_age: timedelta | None) -> list[Out]:
        """Return the newest row of each series of the owners, whose first column is the owner's id.

        One index probe a series: history is not scanned, however long it is.
        """
        since = None if max_age is None else ago(_positive(max_age, "max_age"))
        bounds = within(self.table.c.timestamp, since, None)
        if self.part is not None and part is None:
            owned = owners.cte("owned")
            return self._found(await self._execute(self._newest(owned, self._parts(owned), bounds)))
        if self.part is not None:
            bounds.append(self.table.c[self.part] == part)
        return self._found(await self._newest_of_each(owners, bounds, since))

    async def _newest_of_each(
        self, owners: Select[Any], bounds: list[ColumnElement[bool]], since: datetime | None
    ) -> Iterable[Row[Any]]:
        """Return the newest row of each owner: further back is looked only for those that have none nearer."""
        found: dict[Any, Row[Any]] = {}
        owner = owners.selected_columns[0]
        for start in reach.starts(self.table, since):
            owned = owners.cte("owned")
            result = await self._execute(
                self._newest(owned, owned, [*bounds, *reach.after(self.table.c.timestamp, start)])
            )
            found |= {row[0]: row for row in result}
            missing = [key for key, row in found.items() if row.timestamp is None]
            if not missing:
                break
            owners = owners.where(owner == any_(literal(missing, ARRAY(owner.type))))
        return found.values()

    def _newest(self, owned: CTE, series: CTE, bounds: list[ColumnElement[bool]]) -> Select[Any]:
        """Return each series' newest row within the bounds, nulls where it has none, in the order of the names."""
        newest = self._rows(self._owner() == series.c[0], *bounds)
        if series is not owned:
            newest = newest.where(self.table.c[str(self.part)] == series.c.part)
        row = lateral(newest.order_by(self.table.c.timestamp.desc()).limit(1), name="newest")
        names = [column for column in owned.c if column.name not in row.c and column is not owned.c[0]]
        owner = owned.c[0].label(self._owner().name)
        values = [column for column in row.c if column.name != owner.name]
        source = series if series is owned else series.join(owned, owned.c[0] == series.c[0])
        return (
            select(owner, *values, *names).select_from(source.outerjoin(row, true())).order_by(*names, owner, *values)
        )

    def _found(self, rows: Iterable[Row[Any]]) -> list[Out]:
        return as_records(self.stored, (row for row in rows if row.timestamp is not None))

    def _parts(self, owned: CTE) -> CTE:
        """Return (owner, part) of every series, by skipping along the key from one part to the next."""
        assert self.part is not None  # noqa: S101 # callers look
        part = self.table.c[self.part]

        def first(owner: ColumnElement[Any], *beyond: ColumnElement[bool]) -> Any:
            return select(func.min(part)).where(self._owner() == owner, *beyond).scalar_subquery()

        found = select(owned.c[0].label("owner"), first(owned.c[0]).label("part")).cte("series", recursive=True)
        following = first(found.c.owner, part > found.c.part)
        return found.union_all(select(found.c.owner, following).where(found.c.part.is_not(null())))

    def _owner(self) -> Column[Any]:
        return next(iter(self.table.primary_key.columns))

    def _rows(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        return select(self.table).where(*conditions)

    async def _history(
        self,
        series: Mapping[str, Any],
        window: Window,
        names: Mapping[str, str],
    ) -> list[Out]:
        """Return the rows of a series, given by columns of the key, which are not sent once a row."""
        return await self._fetch(history(self.table, series, window, names))


class SymbolSeries(Series[In, Out]):
    """Time series of symbols."""

    async def _latest_of_pairs(
        self,
        exchange: str | Enum | None,
        base: str | None,
        quote: str | None,
        max_age: timedelta | None,
        part: object | None = None,
    ) -> list[Out]:
        owners = (
            select(_SYMBOL.c.id, _EXCHANGE.c.enum_value.label("exchange"))
            .add_columns(_SYMBOL.c.symbol_base, _SYMBOL.c.symbol_quote, _SYMBOL.c.exchange_symbol)
            .join(_EXCHANGE, _EXCHANGE.c.id == _SYMBOL.c.exchange_id)
            .where(_SYMBOL.c.is_active, _EXCHANGE.c.is_active)
        )
        if exchange is not None:
            known = await Exchanges(self._session, self._cache).by_enum_one(exchange)
            owners = owners.where(_SYMBOL.c.exchange_id == known.id)
        for column, wanted in ((_SYMBOL.c.symbol_base, base), (_SYMBOL.c.symbol_quote, quote)):
            if wanted is not None:
                owners = owners.where(column == wanted.strip().upper())
        return await self._latest(owners, part, max_age)

    async def history_by_id(
        self,
        symbol_id: int,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[Out]:
        """Return what `history` does, of any symbol: dated contracts and delisted ones have only this way."""
        return await self._history_of(symbol_id, (since, until, limit))

    async def _history_of_pair(
        self,
        pair: tuple[str | Enum, str, str],
        window: Window,
        **part: Any,
    ) -> list[Out]:
        return await self._history_of(await self._symbol_id(*pair), window, **part)

    async def _history_of(
        self,
        symbol_id: int,
        window: Window,
        **part: Any,
    ) -> list[Out]:
        names = await self._names(symbol_id)
        return await self._history({self._owner().name: symbol_id, **part}, window, names)

    async def _names(self, symbol_id: int) -> dict[str, str]:
        """Return what all rows of the symbol share."""
        symbol = await Symbols(self._session, self._cache).get_one(symbol_id)
        exchange = await Exchanges(self._session, self._cache).get_one(symbol.exchange_id)
        return {
            "exchange": exchange.enum_value,
            "symbol_base": symbol.symbol_base,
            "symbol_quote": symbol.symbol_quote,
            "exchange_symbol": symbol.exchange_symbol,
        }

    async def _symbol_id(self, exchange: str | Enum, base: str, quote: str) -> int:
        known = await Exchanges(self._session, self._cache).by_enum_one(exchange)
        return (await Symbols(self._session, self._cache).by_pair_one(known.id, base, quote)).id


class PairSeries(SymbolSeries[In, Out]):
    """Time series that a symbol has one of."""

    async def latest(
        self,
        exchange: str | Enum | None = None,
        base: str | None = None,
        quote: str | None = None,
        *,
        max_age: timedelta | None = None,
    ) -> list[Out]:
        """Return the newest row of each active symbol that the filters leave, by exchange, base and quote.

        Symbols without a row, or without one younger than `max_age`, are left out. Raises UnknownExchangeError.
        """
        return await self._latest_of_pairs(exchange, base, quote, max_age)

    async def history(
        self,
        exchange: str | Enum,
        base: str,
        quote: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> list[Out]:
        """Return the rows of [since, until) of the pair's active, undated symbol, oldest first.

        With `limit`, the newest that many of them. Raises UnknownExchangeError and UnknownSymbolError.
        """
        return await self._history_of_pair((exchange, base, quote), (since, until, limit))


class ExchangeSeries(Series[In, Out]):
    """Time series of exchanges, each with a part of its own: an asset, a collector."""

    async def _latest_of_exchange(
        self, exchange: str | Enum | None, part: str | None, max_age: timedelta | None
    ) -> list[Out]:
        owners = select(_EXCHANGE.c.id, _EXCHANGE.c.enum_value.label("exchange")).where(_EXCHANGE.c.is_active)
        if exchange is not None:
            known = await Exchanges(self._session, self._cache).by_enum_one(exchange)
            owners = owners.where(_EXCHANGE.c.id == known.id)
        return await self._latest(owners, part, max_age)

    async def _history_of_part(
        self,
        exchange: str | Enum,
        part: str,
        window: Window,
    ) -> list[Out]:
        assert self.part is not None  # noqa: S101 # each of these series has one
        known = await Exchanges(self._session, self._cache).by_enum_one(exchange)
        series = {self._owner().name: known.id, self.part: part}
        return await self._history(series, window, {"exchange": enum_value(exchange)})


async def _unrun(query: Query) -> Query:
    return query


def _positive(age: timedelta, name: str) -> timedelta:
    if not isinstance(age, timedelta):
        raise ValidationError(f"must be a timedelta, is {age!r}", field=name)
    if age <= timedelta(0):
        raise ValidationError(f"must be more than zero, is {age}", field=name)
    return age
