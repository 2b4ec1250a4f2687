"""Pairs as callers name them, and the keys under which the reference cache keeps symbols.

The key of a symbol is its id, the key of a pair a text, and the key of a list a tuple. Ids and pairs are looked up most
often, and Python computes the hash of a tuple anew for each look-up.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from arbstore.records import Symbol, SymbolType


class Pair(NamedTuple):
    """A pair on one exchange. `symbol_type` None means any type, `expiry` None a contract without one."""

    exchange_id: int
    base: str
    quote: str
    symbol_type: SymbolType | None
    expiry: datetime | None
    key: str


@lru_cache(maxsize=2**15)
def named(exchange_id: int, base: str, quote: str, symbol_type: str | None, expiry: datetime | None) -> Pair:
    """Return the pair with these names, in any spelling of case and blanks. `expiry` must be in UTC.

    Raises ValueError for an unknown `symbol_type`.
    """
    kind = None if symbol_type is None else SymbolType(symbol_type.upper())
    base, quote = base.strip().upper(), quote.strip().upper()
    key = f"{exchange_id:d} {base} {quote} {kind} {expiry}"
    return Pair(exchange_id, base, quote, kind, expiry, key)


def spoken(pair: Pair) -> str:
    """Return the pair as people write it."""
    return " ".join(str(part) for part in (f"{pair.base}/{pair.quote}", pair.symbol_type, pair.expiry) if part)


def others(pair: Pair, symbols: Iterable[Symbol]) -> list[int]:
    """Return the ids of the pair's symbols that a look-up skips.

    These are inactive symbols, and dated contracts when no expiry was given.
    """
    return [
        symbol.id
        for symbol in symbols
        if pair.symbol_type in (None, symbol.symbol_type) and pair.expiry in (None, symbol.expiry)
        if not symbol.is_active or (symbol.expiry is not None and pair.expiry is None)
    ]


def keys_of(symbol: Symbol) -> list[Hashable]:
    """Return the keys whose answer is, or was, this symbol."""
    pair = (symbol.symbol_base, symbol.symbol_quote, symbol.symbol_type, symbol.expiry)
    return [symbol.id, *_pair_keys(symbol.exchange_id, *pair)]


def keys_of_row(exchange_id: int, row: Mapping[str, Any]) -> list[Hashable]:
    """Return the keys whose answers change when this row is added; its id is not known yet."""
    pair = (row["symbol_base"], row["symbol_quote"], row["symbol_type"], row["expiry"])
    return [*_pair_keys(exchange_id, *pair), *keys_of_lists(exchange_id)]


def keys_of_lists(exchange_id: int) -> list[Hashable]:
    """Return the keys of the lists of an exchange's symbols."""
    return [list_key(exchange_id, active_only=active) for active in (True, False)]


def list_key(exchange_id: int, *, active_only: bool) -> Hashable:
    """Return the key of the list of an exchange's symbols, or of its active ones."""
    return (exchange_id, active_only)


def _pair_keys(
    exchange_id: int, base: str, quote: str, symbol_type: SymbolType, expiry: datetime | None
) -> list[Hashable]:
    # The same objects as in `named`: Python finds them without comparing the texts.
    return [named(exchange_id, base, quote, kind, expiry).key for kind in (None, symbol_type)]
