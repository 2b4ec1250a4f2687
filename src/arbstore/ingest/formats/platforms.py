"""Files of several platforms: funding rates at one moment (`pair_tickers.csv`), and listings (`pair_info_*.csv`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path

from arbstore.errors import ValidationError
from arbstore.ingest.options import IngestOptions
from arbstore.ingest.reading import CsvRows, Format, MalformedLineError, Row, UnknownFormatError, aware, from_epoch
from arbstore.ingest.symbols import SymbolName
from arbstore.records import Listing, SymbolType, columns

_SHARED = frozenset({"date_time", "platform", "market_type", "pairId", "symbol"})
_PLATFORMS = {"gate": "GATEIO"}
_MARKETS = {"spot": "SPOT", "uFuture": "FUTURES"}
_TYPES = {"SPOT": SymbolType.SPOT, "FUTURES": SymbolType.PERPETUAL}
_NEVER = (0, 4_133_404_800_000)  # how Gate and Binance write that a contract has no settlement
_DATED = re.compile(r"_\d{6,8}$")
_EASTERNMOST = timedelta(hours=14)
_UTC = timedelta(0)


class Snapshot(Format):
    """Funding rates with mark and index prices, of several exchanges."""

    name = "funding rates of platforms"
    columns = _SHARED | {"funding_rate", "funding_rate_time", "mark_price", "index_price"}
    names_exchange = True

    def read(self, row: Mapping[str, str]) -> Row | str:
        """Return the rate."""
        exchange = _exchange(row)
        if self.options.exchange not in (None, exchange):
            return f"of {exchange}"
        funding_time = int(row["funding_rate_time"])
        if funding_time == 0:
            return "funding time 0 (dated contract)"
        values = {
            "timestamp": aware("date_time", row["date_time"], self.options.utc_offset),
            "funding_time": from_epoch(funding_time, a_second=1_000),
            "funding_rate": row["funding_rate"],
            "mark_price": _price(row, "mark_price"),
            "index_price": _price(row, "index_price"),
        }
        return Row("funding_rates", (("symbol_id", SymbolName(exchange, row["symbol"])),), values)


def _price(row: Mapping[str, str], column: str) -> Decimal | None:
    """Return the price of the symbol. For 1000SHIBUSDT the file has the price of one SHIB."""
    if not row[column]:
        return None
    try:
        price = Decimal(row[column])
    except InvalidOperation:
        raise ValueError(f"{column}: must be a number, is {row[column]!r}") from None
    units = re.match(rf"(\d+){re.escape(row['pairId'].partition('_')[0])}", row["symbol"])
    return price if units is None else price * int(units[1])


def _exchange(row: Mapping[str, str]) -> str:
    platform, market = row["platform"], row["market_type"]
    if not platform or market not in _MARKETS:
        raise ValueError(f"platform {platform!r} with market type {market!r}: known are {', '.join(_MARKETS)}")
    return f"{_PLATFORMS.get(platform, platform.upper())}_{_MARKETS[market]}"


class ListingFile(Format):
    """The listing of an exchange. It has no market data."""

    name = "listing of an exchange"
    columns = _SHARED | {"base", "quote", "mul", "settleDate"}

    def __init__(self, items: CsvRows, options: IngestOptions) -> None:
        """Refuse it."""
        reason = "is the listing of an exchange, not market data: give it as the listing of symbols"
        raise UnknownFormatError(f"{items.path} {reason}", parameter="symbols")


def read_listings(path: Path) -> dict[str, tuple[Listing, ...]]:
    """Return the listings of each exchange, by its enum value. Delisted symbols come last.

    `contract_size` is the column `mul`. A perpetual that was settled before the file was written is delisted. A base
    that stands for many units of an asset begins with their number, such as 1000SHIB. Raises MalformedLineError, and
    UnknownFormatError if the file has other columns.
    """
    found: dict[str, list[Listing]] = {}
    with closing(CsvRows(path)) as rows:
        if missing := ListingFile.columns.difference(rows.header):
            raise UnknownFormatError(f"{path} is not a listing: it has no column {', '.join(sorted(missing))}")
        try:
            for row in rows:
                if row:
                    found.setdefault(_exchange(row), []).append(_listing(row))
        except ValueError as error:
            reason = f"{error.field}: {error.reason}" if isinstance(error, ValidationError) else str(error)
            raise MalformedLineError(path, rows.number, reason) from error
    return {
        exchange: tuple(sorted(listings, key=lambda listing: not listing.is_active))
        for exchange, listings in found.items()
    }


def _listing(row: Mapping[str, str]) -> Listing:
    market = _exchange(row).rpartition("_")[2]
    settled = int(row["settleDate"] or 0)
    moment = None if settled in _NEVER else from_epoch(settled, a_second=1_000)
    dated = _DATED.search(row["symbol"]) is not None
    if dated and moment is None:
        raise ValueError(f"{row['symbol']} is a dated contract without a settleDate")
    # The file's clock has no zone: the settlement must be past in every zone.
    delisted = moment is not None and not dated and moment < aware("date_time", row["date_time"], _UTC) - _EASTERNMOST
    size = float(row["mul"] or 0)
    listing = Listing(
        symbol_base=_base(row),
        symbol_quote=row["quote"].upper(),
        exchange_symbol=row["symbol"],
        symbol_type=SymbolType.FUTURE if dated else _TYPES[market],
        expiry=moment if dated else None,
        contract_size=size if market == "FUTURES" and size > 0 else None,
        is_active=not delisted,
        delisted_at=moment if delisted else None,
    )
    columns(Listing, [listing])
    return listing


def _base(row: Mapping[str, str]) -> str:
    """Return the base. If one unit of it is many of the asset, their number stands before the asset's name."""
    base, asset = row["base"].upper(), row["pairId"].partition("_")[0].upper()
    units = float(row.get("pmul") or 1)
    return f"{units:.0f}{asset}" if units != 1 and base == asset else base
