"""Exchanges and symbols as files name them, and how to read base, quote and contract from a spelling."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias

from arbstore.errors import UnknownSymbolError
from arbstore.records import Listing, MarketType, SymbolType

_QUOTES = (
    *("USDT", "USDC", "USD", "FDUSD", "TUSD", "BUSD", "DAI", "BTC", "ETH", "BNB", "SOL", "XRP", "TRX", "DOGE"),
    *("EUR", "GBP", "CHF", "JPY", "KRW", "AUD", "CAD", "TRY", "BRL", "ARS", "MXN", "COP", "ZAR", "PLN", "RON", "CZK"),
    *("UAH", "NGN", "IDR", "IDRT"),
)
# Binance quotes only its coin-margined contracts in dollars, and their names say that they are contracts.
_WITHOUT_DOLLARS = ("BINANCE_SPOT", "BINANCE_MARGIN", "BINANCE_FUTURES")
_OF_CONTRACTS = ("USDT", "USDC", "USD")
_PERPETUAL = re.compile(r"[-_](PERP|SWAP)$")
_DATED = re.compile(r"[-_](?:20)?(\d{6})$")
_SEPARATOR = re.compile(r"[-_/]")
_SETTLEMENT = timedelta(hours=8)  # Binance, OKX and Gate settle dated contracts at 08:00 UTC
_TYPES = {
    (MarketType.SPOT, False): SymbolType.SPOT,
    (MarketType.MARGIN, False): SymbolType.SPOT,
    (MarketType.FUTURES, False): SymbolType.PERPETUAL,
    (MarketType.FUTURES, True): SymbolType.FUTURE,
    (MarketType.FOREX, False): SymbolType.FOREX,
}  # by market, and whether it expires
_EXPIRING = (SymbolType.FUTURE, SymbolType.OPTION)


class SymbolName(NamedTuple):
    """A symbol as a file names it: by the exchange's own spelling, by its pair, or by both. None is unknown."""

    exchange: str
    spelling: str | None = None
    base: str | None = None
    quote: str | None = None
    symbol_type: SymbolType | None = None
    expiry: datetime | None = None


OwnerName: TypeAlias = str | SymbolName  # an exchange, by its enum value, or a symbol


def derive(name: SymbolName) -> Listing:
    """Return the symbol that a name describes: by its pair if it has one, else by its spelling.

    Understands BTCUSDT, BTC_USDT, BTC-USDT-SWAP, BTCUSD_PERP, BTCUSDT_240927 (which expires that day at 08:00 UTC) and
    EURUSD. Raises UnknownSymbolError for an ambiguous spelling: DOTUSD may be DOT/USD or DO/TUSD.
    """
    if name.base is not None and name.quote is not None:
        base, quote, expiry = name.base, name.quote, name.expiry
    else:
        base, quote, expiry = _parts(name)
    kind = name.symbol_type or _TYPES.get((_market(name), expiry is not None))
    if kind is None or (expiry is not None) != (kind in _EXPIRING):
        raise _unknown(name, f"its type is not known on {name.exchange}")
    suffix = f"_{expiry:%y%m%d}" if expiry else ""
    return Listing(
        symbol_base=base.upper(),
        symbol_quote=quote.upper(),
        exchange_symbol=name.spelling or f"{base}{quote}{suffix}".upper(),
        symbol_type=kind,
        expiry=expiry,
    )


def _market(name: SymbolName) -> MarketType:
    return MarketType(name.exchange.rpartition("_")[2])


def _parts(name: SymbolName) -> tuple[str, str, datetime | None]:
    rest, expiry = _without_date(name)
    contract = expiry is not None or _PERPETUAL.search(rest) is not None
    rest = _PERPETUAL.sub("", rest)
    parts = _SEPARATOR.split(rest)
    if len(parts) == 2 and all(parts):
        return parts[0], parts[1], expiry
    if _market(name) is MarketType.FOREX and len(rest) == 6:
        return rest[:3], rest[3:], expiry
    fitting = [quote for quote in _quotes(name.exchange, contract) if rest.endswith(quote) and rest != quote]
    if len(parts) > 1 or not fitting:
        raise _unknown(name, "no base and quote can be read from it")
    if len(fitting) > 1:
        pairs = " or ".join(f"{rest.removesuffix(quote)}/{quote}" for quote in fitting)
        raise _unknown(name, f"it may be {pairs}")
    return rest.removesuffix(fitting[0]), fitting[0], expiry


def _without_date(name: SymbolName) -> tuple[str, datetime | None]:
    spelling = (name.spelling or "").upper()
    found = _DATED.search(spelling)
    if found is None:
        return spelling, None
    try:
        day = datetime.strptime(found[1], "%y%m%d").replace(tzinfo=UTC)
    except ValueError:
        raise _unknown(name, f"{found[1]} is not a date") from None
    return spelling[: found.start()], day + _SETTLEMENT


def _quotes(exchange: str, contract: bool) -> tuple[str, ...]:
    if contract:
        return _OF_CONTRACTS
    return tuple(quote for quote in _QUOTES if quote != "USD") if exchange in _WITHOUT_DOLLARS else _QUOTES


def _unknown(name: SymbolName, reason: str) -> UnknownSymbolError:
    shown = name.spelling or f"{name.base}/{name.quote}"
    detail = f" on {name.exchange}, and cannot be derived: {reason}. Give a listing of {name.exchange}, or"
    return UnknownSymbolError(shown, detail, parameter="symbols")
