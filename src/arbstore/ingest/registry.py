"""From the names in files to ids. Registers the exchanges and symbols that the database does not know yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from arbstore.errors import DuplicateError, ValidationError
from arbstore.ingest.report import Counts, RegisteredSymbol
from arbstore.ingest.symbols import OwnerName, SymbolName, derive
from arbstore.records import Exchange, Listing, Symbol

if TYPE_CHECKING:
    from arbstore.database import Store


class Registry:
    """The ids of one file's exchanges and symbols, in its transaction."""

    def __init__(self, store: Store, listings: Mapping[str, Sequence[Listing]], counts: Counts) -> None:
        """Take the listings of exchanges, by enum value. `counts` gets what is registered."""
        self._store = store
        self._listings = listings
        self._counts = counts
        self._exchanges: dict[str, Exchange] = {}
        self._symbols: dict[int, list[Symbol]] = {}
        self._registering = False
        self._ids: dict[OwnerName, int | ValidationError] = {}

    async def id_of(self, owner: OwnerName, at: object) -> int | ValidationError:
        """Return the id, or why there cannot be one. `at` is the time of the first row with this name.

        Raises UnknownSymbolError for a symbol that is neither registered nor listed, and whose spelling is ambiguous.
        """
        if owner not in self._ids:
            try:
                self._ids[owner] = await self._look_up(owner, at if isinstance(at, datetime) else None)
            except ValidationError as error:
                self._ids[owner] = error
        return self._ids[owner]

    async def exchange(self, name: str) -> Exchange:
        """Return the exchange, and register it if it is new. Raises ValidationError for an invalid enum value."""
        if name not in self._exchanges:
            self._exchanges[name] = await self._store.exchanges.by_enum(name) or await self._add_exchange(name)
        return self._exchanges[name]

    async def _add_exchange(self, name: str) -> Exchange:
        try:
            added = await self._store.exchanges.add(name)
        except DuplicateError:  # another import registered it in the meantime
            return await self._store.exchanges.by_enum_one(name)
        self._counts.exchanges.append(added.enum_value)
        return added

    async def _look_up(self, owner: OwnerName, at: datetime | None) -> int:
        exchange = await self.exchange(owner if isinstance(owner, str) else owner.exchange)
        if isinstance(owner, str):
            return exchange.id
        here = self._symbols.get(exchange.id) or await self._load(exchange)
        spelled = [symbol for symbol in here if symbol.exchange_symbol == owner.spelling and _agrees(symbol, owner)]
        symbol = _of_time(spelled, at)
        if symbol is None:
            listing, derived = self._listing(owner)
            symbol = _paired(here, listing, at) or await self._register(exchange, listing, derived=derived)
        return symbol.id

    async def _load(self, exchange: Exchange) -> list[Symbol]:
        self._symbols[exchange.id] = list(await self._store.symbols.by_exchange(exchange.id, active_only=False))
        return self._symbols[exchange.id]

    def _listing(self, owner: SymbolName) -> tuple[Listing, bool]:
        """Return the listing with that spelling or pair, else one derived from the name; and whether it is derived."""
        listed = self._listings.get(owner.exchange, ())
        for listing in listed:
            if owner.spelling == listing.exchange_symbol and _agrees(listing, owner):
                return listing, False
        derived = derive(owner)
        found = next((listing for listing in listed if _pair(listing) == _pair(derived)), None)
        return (derived, True) if found is None else (found, False)

    async def _register(self, exchange: Exchange, listing: Listing, *, derived: bool) -> Symbol:
        if not self._registering:
            # Imports that register the same symbols in different orders would deadlock.
            await self._store.symbols.lock(exchange.id)
            self._registering = True
        try:
            symbol = await self._store.symbols.add(exchange.id, listing)
        except DuplicateError:  # another import registered it in the meantime
            found = _paired(await self._load(exchange), listing, None)
            if found is None:
                raise
            return found
        self._symbols[exchange.id].append(symbol)
        self._counts.symbols.append(RegisteredSymbol(exchange.enum_value, symbol, derived))
        return symbol


def _paired(here: list[Symbol], listing: Listing, at: datetime | None) -> Symbol | None:
    """Return the symbol with the pair of the listing, whatever its spelling. It is the one traded at that time.

    If no symbol was traded at that time, a delisted listing is still found by its own delisting.
    """
    found = [symbol for symbol in here if _pair(symbol) == _pair(listing)]
    same = [symbol for symbol in found if not listing.is_active and symbol.delisted_at == listing.delisted_at]
    return _of_time(found, at) or next(iter(same), None)


def _of_time(symbols: list[Symbol], at: datetime | None) -> Symbol | None:
    """Return the symbol that was traded at that time.

    Preferred is the active one, if it was listed by then. Next come the one that was delisted soonest after that time,
    any active one, and an inactive one without a date.
    """
    active = [symbol for symbol in symbols if symbol.is_active]
    listed = [symbol for symbol in active if at is None or (symbol.listed_at is not None and symbol.listed_at <= at)]
    gone = [(symbol.delisted_at, symbol.id, symbol) for symbol in symbols if not symbol.is_active]
    delisted = sorted(one for one in gone if one[0] is not None and (at is None or at < one[0]))
    undated = [one for one in gone if one[0] is None]
    return next(iter([*listed, *(one[2] for one in delisted), *active, *(one[2] for one in undated)]), None)


def _agrees(listing: Listing, owner: SymbolName) -> bool:
    """Return whether the listing does not contradict what the name has beside its spelling."""
    return all(wanted in (None, found) for wanted, found in zip(owner[2:], _pair(listing), strict=True))


def _pair(listing: Listing) -> tuple[object, ...]:
    return (listing.symbol_base, listing.symbol_quote, listing.symbol_type, listing.expiry)
