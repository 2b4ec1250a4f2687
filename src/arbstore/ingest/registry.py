"""From the names in files to ids: what is registered, and the registering of what is not."""

from __future__ import annotations

from datetime import datetime

from arbstore.database import Store
from arbstore.errors import DuplicateError, ValidationError
from arbstore.ingest.listings import Catalogue
from arbstore.ingest.report import Counts, RegisteredSymbol
from arbstore.ingest.rows import ExchangeName, Owner, SymbolName
from arbstore.ingest.symbols import derive
from arbstore.records import Exchange, Listing, Symbol


class Registry:
    """The ids of one file's exchanges and symbols, in its transaction."""

    def __init__(self, store: Store, catalogue: Catalogue, counts: Counts) -> None:
        """Register in `store` what neither it nor an earlier row knows, and note it in `counts`."""
        self._store = store
        self._catalogue = catalogue
        self._counts = counts
        self._exchanges: dict[str, Exchange] = {}
        self._symbols: dict[int, list[Symbol]] = {}
        self._registering = False
        self._ids: dict[Owner, int | ValidationError] = {}

    async def id_of(self, owner: Owner, at: object) -> int | ValidationError:
        """Return the id, or why there can be none; `at` is the time of the first row that names it.

        Raises UnknownSymbolError for a symbol that is neither registered nor listed and whose spelling tells nothing.
        """
        if owner not in self._ids:
            try:
                self._ids[owner] = await self._look_up(owner, at if isinstance(at, datetime) else None)
            except ValidationError as error:
                self._ids[owner] = error
        return self._ids[owner]

    async def exchange(self, name: str) -> Exchange:
        """Return the exchange, registered if it was not; raise ValidationError if it is no enum value."""
        if name not in self._exchanges:
            found = await self._store.exchanges.by_enum(name) or await self._add_exchange(name)
            self._exchanges[name] = found
        return self._exchanges[name]

    async def _add_exchange(self, name: str) -> Exchange:
        try:
            added = await self._store.exchanges.add(name)
        except DuplicateError:  # another import registered it meanwhile
            return await self._store.exchanges.by_enum_one(name)
        self._counts.exchanges.append(added.enum_value)
        return added

    async def _look_up(self, owner: Owner, at: datetime | None) -> int:
        exchange = await self.exchange(owner.exchange)
        if isinstance(owner, ExchangeName):
            return exchange.id
        if exchange.id not in self._symbols:
            self._symbols[exchange.id] = list(await self._store.symbols.by_exchange(exchange.id, active_only=False))
        here = self._symbols[exchange.id]
        symbol = _spelled(here, owner, at)
        if symbol is None:
            listing, derived = self._listing(owner)
            symbol = _paired(here, listing, at) or await self._register(exchange, listing, derived=derived)
        return symbol.id

    def _listing(self, owner: SymbolName) -> tuple[Listing, bool]:
        """Return the listed symbol of that spelling or pair, else what the name says; and whether it is the latter."""
        listed = self._catalogue.of(owner.exchange)
        for listing in listed:
            if owner.spelling == listing.exchange_symbol and _agrees(listing, owner):
                return listing, False
        derived = derive(owner)
        same = (listing for listing in listed if _pair(listing) == _pair(derived))
        found = next(same, None)
        return (derived, True) if found is None else (found, False)

    async def _register(self, exchange: Exchange, listing: Listing, *, derived: bool) -> Symbol:
        if not self._registering:
            # Imports that register the same symbols in different orders would deadlock.
            await self._store.symbols.lock(exchange.id)
            self._registering = True
        try:
            symbol = await self._store.symbols.add(exchange.id, listing)
        except DuplicateError:  # another import registered it meanwhile
            self._symbols[exchange.id] = list(await self._store.symbols.by_exchange(exchange.id, active_only=False))
            found = _paired(self._symbols[exchange.id], listing, None)
            if found is None:
                raise
            return found
        self._symbols[exchange.id].append(symbol)
        self._counts.symbols.append(RegisteredSymbol(exchange.enum_value, symbol, derived))
        return symbol


def _spelled(here: list[Symbol], owner: SymbolName, at: datetime | None) -> Symbol | None:
    found = [symbol for symbol in here if symbol.exchange_symbol == owner.spelling and _agrees(symbol, owner)]
    return _of_time(found, at)


def _paired(here: list[Symbol], listing: Listing, at: datetime | None) -> Symbol | None:
    """Return the symbol of the listing's contract, whatever it is called; of a delisted one, also that very listing."""
    found = [symbol for symbol in here if _pair(symbol) == _pair(listing)]
    same = [symbol for symbol in found if not listing.is_active and symbol.delisted_at == listing.delisted_at]
    return _of_time(found, at) or next(iter(same), None)


def _of_time(symbols: list[Symbol], at: datetime | None) -> Symbol | None:
    """Return the one that was to be delisted next at that time, else the active one: it was listed after them."""
    active = [symbol for symbol in symbols if symbol.is_active]
    listed = [symbol for symbol in active if at is None or (symbol.listed_at is not None and symbol.listed_at <= at)]
    delisted = [(symbol.delisted_at, symbol.id, symbol) for symbol in symbols if _was_listed(symbol, at)]
    undated = [symbol for symbol in symbols if not symbol.is_active and symbol.delisted_at is None]
    return next(iter([*listed, *(symbol for _, _, symbol in sorted(delisted)), *active, *undated]), None)


def _was_listed(symbol: Symbol, at: datetime | None) -> bool:
    return not symbol.is_active and symbol.delisted_at is not None and (at is None or at < symbol.delisted_at)


def _agrees(listing: Listing, owner: SymbolName) -> bool:
    """Whether the listing is what the name says beside the spelling."""
    said = (
        (owner.base, listing.symbol_base),
        (owner.quote, listing.symbol_quote),
        (owner.symbol_type, listing.symbol_type),
        (owner.expiry, listing.expiry),
    )
    return all(wanted in (None, found) for wanted, found in said)


def _pair(listing: Listing) -> tuple[object, ...]:
    return (listing.symbol_base, listing.symbol_quote, listing.symbol_type, listing.expiry)
