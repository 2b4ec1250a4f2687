"""Pairs as callers name them and as symbols hold them, and the keys under which the reference cache keeps symbols.

A symbol is kept under its id, what a pair stands for under a text, and a list under a tuple. The first two are asked
for most, and a tuple works its hash out anew each time that it is wanted: three times a lookup.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from arbstore.records import Symbol, SymbolType


class Pair(NamedTuple):
    """A pair of one exchange: without `symbol_type` of any type, without `expiry` undated; `key` is the cache's."""

    exchange_id: int
    base: str
    quote: str
    symbol_type: SymbolType | None
    expiry: datetime | None
    key: str


@lru_cache(maxsize=2**15)
def named(exchange_id: int, base: str, quote: str, symbol_type: str | None, expiry: datetime | None) -> Pair:
    """Return the pair of these names, however they are written; each way of writing is worked out once.

    `expiry` is in UTC: of other zones two that are equal can be two instants, in the hour that clocks repeat.
    Raises ValueError for a `symbol_type` that is none.
    """
    kind = None if symbol_type is None else SymbolType(symbol_type.upper())
    base, quote = base.strip().upper(), quote.strip().upper()
    key = f"{exchange_id:d} {base} {quote} {kind} {expiry}"
    return Pair(exchange_id, base, quote, kind, expiry, key)


def spoken(pair: Pair) -> str:
    """Return what was asked for, as people write it."""
    return " ".join(str(part) for part in (f"{pair.base}/{pair.quote}", pair.symbol_type, pair.expiry) if part)


def others(pair: Pair, symbols: Iterable[Symbol]) -> list[int]:
    """Return the ids of those of the pair's symbols that it does not stand for: inactive, or dated where it is not."""
    return [
        symbol.id
        for symbol in symbols
        if pair.symbol_type in (None, symbol.symbol_type) and pair.expiry in (None, symbol.expiry)
        if not symbol.is_active or (symbol.expiry is not None and pair.expiry is None)
    ]


def keys_of(symbol: Symbol) -> list[Hashable]:
    """Return the keys whose answer this one symbol is, or was."""
    pair = (symbol.symbol_base, symbol.symbol_quote, symbol.symbol_type, symbol.expiry)
    return [symbol.id, *_pair_keys(symbol.exchange_id, *pair)]


def keys_of_row(exchange_id: int, row: Mapping[str, Any]) -> list[Hashable]:
    """Return the keys whose answer a symbol that is not known by its id would be, or be in."""
    pair = (row["symbol_base"], row["symbol_quote"], row["symbol_type"], row["expiry"])
    return [*_pair_keys(exchange_id, *pair), *keys_of_lists(exchange_id)]


def keys_of_lists(exchange_id: int) -> list[Hashable]:
    """Return the keys of the lists of an exchange's symbols."""
    return [list_key(exchange_id, active_only=active) for active in (True, False)]


def list_key(exchange_id: int, *, active_only: bool) -> Hashable:
    """Return the key of one of them."""
    return (exchange_id, active_only)


def _pair_keys(
    exchange_id: int, base: str, quote: str, symbol_type: SymbolType, expiry: datetime | None
) -> list[Hashable]:
    # Those of `named`, not their equals: the same object is found without being compared.
    return [named(exchange_id, base, quote, kind, expiry).key for kind in (None, symbol_type)]
