"""Exchanges and symbols, which the time series refer to."""

from __future__ import annotations

from datetime import datetime
from enum import Enum, StrEnum
from functools import lru_cache
from typing import Annotated

from arbstore.errors import ValidationError
from arbstore.records import rules
from arbstore.records.batch import Record


class MarketType(StrEnum):
    """The market that an exchange account trades on. The enum value of an exchange ends with it."""

    SPOT = "SPOT"
    FUTURES = "FUTURES"
    MARGIN = "MARGIN"
    OPTIONS = "OPTIONS"
    FOREX = "FOREX"


class SymbolType(StrEnum):
    """The kind of contract that a symbol is."""

    SPOT = "SPOT"
    PERPETUAL = "PERPETUAL"
    FUTURE = "FUTURE"
    OPTION = "OPTION"
    FOREX = "FOREX"


class Exchange(Record, frozen=True, kw_only=True):
    """One market of one exchange, such as BINANCE_SPOT."""

    id: int
    enum_value: str
    exchange_name: str
    market_type: MarketType
    is_active: bool
    created_at: datetime


class Listing(Record, frozen=True, kw_only=True):
    """A symbol as an exchange lists it.

    `contract_size` is the worth of one contract, in the base currency (linear) or the quote currency (inverse); None
    if it is not known. Only dated contracts have an `expiry`.
    """

    symbol_base: Annotated[str, rules.ticker]
    symbol_quote: Annotated[str, rules.ticker]
    exchange_symbol: Annotated[str, rules.name]
    symbol_type: Annotated[SymbolType, rules.choice(SymbolType)]
    expiry: Annotated[datetime | None, rules.instant] = None
    contract_size: Annotated[float | None, rules.positive] = None
    is_active: Annotated[bool, rules.flag] = True
    listed_at: Annotated[datetime | None, rules.instant] = None
    delisted_at: Annotated[datetime | None, rules.instant] = None


class Symbol(Listing, frozen=True, kw_only=True):
    """A registered symbol."""

    id: int
    exchange_id: int
    created_at: datetime


def enum_value(exchange: str | Enum) -> str:
    """Return the enum value of an exchange in capitals. The exchange is a text, or an Enum whose value is a text.

    Raises ValidationError for anything else.
    """
    try:
        return _in_capitals(exchange)
    except TypeError as error:
        reason = f"must be a text such as BINANCE_SPOT, is {exchange!r}"
        raise ValidationError(reason, field="exchange") from error


@lru_cache(maxsize=2**10)
def _in_capitals(exchange: str | Enum) -> str:
    value = exchange.value if isinstance(exchange, Enum) else exchange
    return str.upper(str.strip(value))
