"""Symbols: look-ups through the cache, and a table that follows an exchange's listing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Integer, Select, any_, func, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert

from arbstore import models
from arbstore.cache import Pair, keys_of, keys_of_lists, keys_of_row, list_key, pair_of, skipped, spoken
from arbstore.errors import DuplicateError, UnknownExchangeError, UnknownSymbolError, ValidationError
from arbstore.records import Listing, Symbol, SymbolType, columns
from arbstore.records.rules import in_utc
from arbstore.services import Service, as_records
from arbstore.services.exchanges import Exchanges

T = TypeVar("T")

_TABLE = models.Symbol.__table__
_LARGEST_ID = 2**31 - 1


class SymbolSync(NamedTuple):
    """The symbols that a sync added, updated and deactivated, and how many it left as they were."""

    added: tuple[Symbol, ...]
    updated: tuple[Symbol, ...]
    deactivated: tuple[Symbol, ...]
    unchanged: int


class Symbols(Service):
    """Look-ups and writes of symbols. The records may be up to `cache_ttl` seconds old."""

    async def get(self, symbol_id: int) -> Symbol | None:
        """Return the symbol by id, active or not, or None."""
        if not 0 < symbol_id <= _LARGEST_ID:
            return None  # the column's type cannot hold it: the server would raise an error
        kept: Symbol | None = self._cache.symbols.kept(self._session, symbol_id)
        return kept or await self._load(symbol_id, _of_id, symbol_id)

    async def get_one(self, symbol_id: int) -> Symbol:
        """Return the symbol by id, active or not; raise UnknownSymbolError if there is none."""
        if (found := await self.get(symbol_id)) is None:
            raise UnknownSymbolError(symbol_id)
        return found

    async def by_exchange(self, exchange_id: int, *, active_only: bool = True) -> tuple[Symbol, ...]:
        """Return the symbols of an exchange, by base, quote, type and expiry."""

        async def query() -> tuple[tuple[Symbol, ...], bool]:
            statement = _of_exchange(exchange_id).order_by(
                _TABLE.c.symbol_base, _TABLE.c.symbol_quote, _TABLE.c.symbol_type, _TABLE.c.expiry, _TABLE.c.id
            )
            if active_only:
                statement = statement.where(_TABLE.c.is_active)
            found, is_current = await self._current(Symbol, statement)
            return tuple(found), is_current

        return await self._cache.symbols.get(self._session, list_key(exchange_id, active_only=active_only), query)

    async def by_pair(
        self,
        exchange_id: int,
        base: str,
        quote: str,
        symbol_type: SymbolType | None = None,
        expiry: datetime | None = None,
    ) -> Symbol | None:
        """Return the active symbol of the pair, or None.

        Without `expiry` only undated contracts count. Without `symbol_type` any type counts, perpetuals first.
        """
        pair = pair_of(exchange_id, base, quote, symbol_type, expiry and in_utc(expiry, "expiry"))
        kept: Symbol | None = self._cache.symbols.kept(self._session, pair.key)
        return kept or await self._load(pair.key, _of_pair, pair)

    async def by_pair_one(
        self,
        exchange_id: int,
        base: str,
        quote: str,
        symbol_type: SymbolType | None = None,
        expiry: datetime | None = None,
    ) -> Symbol:
        """Return what `by_pair` returns; raise UnknownSymbolError instead of returning None."""
        if (found := await self.by_pair(exchange_id, base, quote, symbol_type, expiry)) is None:
            raise await self._unknown(pair_of(exchange_id, base, quote, symbol_type, expiry))
        return found

    async def _unknown(self, pair: Pair) -> UnknownSymbolError:
        named = _of_exchange(pair.exchange_id).where(
            _TABLE.c.symbol_base == pair.base, _TABLE.c.symbol_quote == pair.quote
        )
        others = skipped(pair, await self._records(Symbol, named.order_by(_TABLE.c.id)))
        owner = _possible(pair.exchange_id) and await Exchanges(self._session, self._cache).get(pair.exchange_id)
        exchange = owner.enum_value if owner else f"exchange {pair.exchange_id}"
        return UnknownSymbolError(f"{spoken(pair)} of {exchange}", others=others)

    async def warm(self, exchange_id: int) -> None:
        """Put the active symbols of an exchange into the cache, by id and by pair, with one query."""
        generation = self._cache.symbols.generation
        answers: dict[Hashable, Symbol] = {}
        # Sorted as `by_pair` prefers them.
        for symbol in sorted(await self.by_exchange(exchange_id), key=_preference):
            for key in keys_of(symbol):
                answers.setdefault(key, symbol)
        if not self._cache.reads_past(self._session):
            for key, answer in answers.items():
                self._cache.symbols.put(key, answer, generation)

    async def add(self, exchange_id: int, listing: Listing | Mapping[str, Any]) -> Symbol:
        """Register a symbol; raise DuplicateError if its name or its pair is active already."""
        (added,) = await self.add_many(exchange_id, [listing])
        return added

    async def add_many(self, exchange_id: int, listings: Iterable[Listing | Mapping[str, Any]]) -> tuple[Symbol, ...]:
        """Register symbols, all or none; raise DuplicateError, which names those that are active already."""
        rows = _rows(listings)
        if not rows:
            return ()
        statement = (
            insert(_TABLE)
            # Catching an error would not do: the error ends the caller's transaction.
            .on_conflict_do_nothing()
            .returning(*_TABLE.c)
        )
        async with self._session.begin_nested() as savepoint:
            result = await self._execute(statement, [row | {"exchange_id": exchange_id} for row in rows])
            added = tuple(as_records(Symbol, result))
            self._changed(added)
            if len(added) == len(rows):
                return added
            await savepoint.rollback()
        # Another process may have registered them after this one kept the answer that there are none.
        self._cache.symbols.invalidate(key for row in rows for key in keys_of_row(exchange_id, row))
        refused = {row["exchange_symbol"] for row in rows} - {symbol.exchange_symbol for symbol in added}
        raise DuplicateError(f"exchange {exchange_id} already has these symbols or their pairs: {sorted(refused)}")

    async def sync(self, exchange_id: int, listings: Iterable[Listing | Mapping[str, Any]]) -> SymbolSync:
        """Make exactly the listed symbols active: add new ones, update changed ones, deactivate the others.

        Nothing is deleted. A name that now stands for another pair becomes a new symbol; the old symbol is deactivated
        and keeps its history. A name that returns after a delisting is a new symbol too, unless both listings give the
        same `listed_at`. Raises ValidationError for an empty listing, which would deactivate every symbol.
        """
        rows = [row for row in _rows(listings) if row["is_active"]]
        if not rows:
            raise ValidationError("is empty: that would deactivate every symbol", field="listings")
        await self.lock(exchange_id)
        here = await self._records(Symbol, _of_exchange(exchange_id).order_by(_TABLE.c.id))
        plan = _Plan(rows, here)
        # Deactivate first: a symbol that leaves may free the name of one that comes.
        deactivated = await self._deactivate(plan.gone)
        updated = [await self._update(symbol, values) for symbol, values in plan.changed]
        added = await self.add_many(exchange_id, plan.new)
        return SymbolSync(added, tuple(updated), deactivated, plan.unchanged)

    async def lock(self, exchange_id: int) -> None:
        """Let only one sync of an exchange run at a time, until the transaction ends.

        Keep that transaction short. A new chunk's foreign key waits for transactions that have written symbols, and so
        does the writer of market data that needs the chunk.
        """
        exchange = models.Exchange.__table__
        wanted = exchange.c.id == _possible(exchange_id)
        statement = select(exchange.c.id).where(wanted).with_for_update(key_share=True)
        if (await self._execute(statement)).first() is None:
            raise UnknownExchangeError(exchange_id)

    async def _deactivate(self, symbols: list[Symbol]) -> tuple[Symbol, ...]:
        if not symbols:
            return ()
        statement = (
            update(_TABLE)
            # An array is one parameter, however many symbols there are.
            .where(_TABLE.c.id == any_(literal([symbol.id for symbol in symbols], ARRAY(Integer))))
            .values(is_active=False, delisted_at=func.coalesce(_TABLE.c.delisted_at, func.now()))
            .returning(*_TABLE.c)
        )
        changed = tuple(await self._records(Symbol, statement))
        self._changed(changed)
        return changed

    async def _update(self, symbol: Symbol, values: dict[str, Any]) -> Symbol:
        statement = update(_TABLE).where(_TABLE.c.id == symbol.id).values(values).returning(*_TABLE.c)
        (changed,) = await self._records(Symbol, statement)
        self._changed([symbol, changed])
        return changed

    def _changed(self, symbols: Iterable[Symbol]) -> None:
        keys: set[Hashable] = set()
        for symbol in symbols:
            keys |= {*keys_of(symbol), *keys_of_lists(symbol.exchange_id)}
        if keys:
            self._cache.changed(self._session, self._cache.symbols, keys)

    async def _load(self, key: Hashable, statement: Callable[[T], Select[Any]], asked: T) -> Symbol | None:
        query = partial(self._current_one, Symbol, statement(asked))
        return await self._cache.symbols.load(self._session, key, query)


class _Plan:
    """The changes that make the registered symbols follow a listing."""

    def __init__(self, rows: list[dict[str, Any]], here: list[Symbol]) -> None:
        active = [symbol for symbol in here if symbol.is_active]
        by_name = {symbol.exchange_symbol: symbol for symbol in active}
        by_pair = {_pair(symbol): symbol for symbol in active}
        former = {(symbol.exchange_symbol, _pair(symbol)): symbol for symbol in here if not symbol.is_active}
        self.new: list[dict[str, Any]] = []
        self.changed: list[tuple[Symbol, dict[str, Any]]] = []
        self.unchanged = 0
        kept: set[int] = set()
        names = {row["exchange_symbol"] for row in rows}
        for row in rows:
            found = by_name.get(row["exchange_symbol"])
            if found is None and (renamed := by_pair.get(_pair_of(row))) and renamed.exchange_symbol not in names:
                found = renamed
            if found is None or _pair(found) != _pair_of(row):
                found = _same_listing(former.get((row["exchange_symbol"], _pair_of(row))), row)
            self._place(found, row)
            if found is not None:
                kept.add(found.id)
        self.gone = [symbol for symbol in active if symbol.id not in kept]

    def _place(self, found: Symbol | None, row: dict[str, Any]) -> None:
        if found is None:
            self.new.append(row)
            return
        # A field that the listing leaves out is unknown, not changed.
        given = {name: value for name, value in row.items() if value is not None}
        values = {name: value for name, value in given.items() if getattr(found, name) != value}
        if not found.is_active:
            values["delisted_at"] = None
        if values:
            self.changed.append((found, values))
        else:
            self.unchanged += 1


def _pair(symbol: Symbol) -> tuple[Any, ...]:
    return (symbol.symbol_base, symbol.symbol_quote, symbol.symbol_type, symbol.expiry)


def _pair_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["symbol_base"], row["symbol_quote"], row["symbol_type"], row["expiry"])


def _same_listing(former: Symbol | None, row: dict[str, Any]) -> Symbol | None:
    if former is None or former.listed_at is None or former.listed_at != row["listed_at"]:
        return None
    return former


def _rows(listings: Iterable[Listing | Mapping[str, Any]]) -> list[dict[str, Any]]:
    table = columns(Listing, listings)
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    seen: set[object] = set()
    for number, row in enumerate(rows):
        if not row["is_active"]:
            continue
        for field, name in (("exchange_symbol", row["exchange_symbol"]), ("symbol_base", _pair_of(row))):
            if name in seen:
                raise ValidationError(f"{name} is listed twice", field=field, row=number)
            seen.add(name)
    return rows


def _possible(exchange_id: int) -> int:
    """Return the id, or 0, which no exchange has, if the column's type cannot hold it."""
    return exchange_id if 0 < exchange_id < 2**15 else 0


def _of_exchange(exchange_id: int) -> Select[Any]:
    return select(_TABLE).where(_TABLE.c.exchange_id == _possible(exchange_id))


def _of_id(symbol_id: int) -> Select[Any]:
    return select(_TABLE).where(_TABLE.c.id == symbol_id)


def _of_pair(pair: Pair) -> Select[Any]:
    statement = _of_exchange(pair.exchange_id).where(
        _TABLE.c.is_active,
        _TABLE.c.symbol_base == pair.base,
        _TABLE.c.symbol_quote == pair.quote,
        _TABLE.c.expiry.is_not_distinct_from(pair.expiry),
    )
    if pair.symbol_type is not None:
        statement = statement.where(_TABLE.c.symbol_type == pair.symbol_type)
    return statement.order_by(_TABLE.c.symbol_type != SymbolType.PERPETUAL, _TABLE.c.symbol_type).limit(1)


def _preference(symbol: Symbol) -> tuple[bool, str]:
    return (symbol.symbol_type is not SymbolType.PERPETUAL, symbol.symbol_type)
