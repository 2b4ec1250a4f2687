"""Listings of exchanges, `pair_info_*.csv`, to symbols that can be registered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from arbstore.errors import ValidationError
from arbstore.ingest.files import CsvRows, Lines, MalformedLineError, UnknownFormatError
from arbstore.ingest.times import from_milliseconds
from arbstore.records import Listing, SymbolType, columns

COLUMNS = frozenset(
    {"date_time", "platform", "market_type", "pairId", "symbol", "base", "quote", "mul", "settleDate"}
)  # fmt: skip # one line reads better
_PLATFORMS = {"gate": "GATEIO"}
_MARKETS = {"spot": "SPOT", "uFuture": "FUTURES"}
_TYPES = {"SPOT": SymbolType.SPOT, "FUTURES": SymbolType.PERPETUAL}
_NEVER = (0, 4_133_404_800_000)  # how Gate and Binance write that a contract has no settlement
_DATED = re.compile(r"_\d{6,8}$")
_EASTERNMOST = timedelta(hours=14)


class Catalogue:
    """The listings of exchanges, by exchange and name."""

    def __init__(self, listings: Mapping[str, tuple[Listing, ...]]) -> None:
        """Take the listings by the exchange's enum value."""
        self._listings = listings

    @property
    def exchanges(self) -> tuple[str, ...]:
        """The enum values of the exchanges that are listed."""
        return tuple(self._listings)

    def of(self, exchange: str) -> tuple[Listing, ...]:
        """Return what the exchange lists, delisted symbols last: of equal names the first is the one traded."""
        return self._listings.get(exchange, ())


def read_listings(path: Path) -> dict[str, tuple[Listing, ...]]:
    """Return what each exchange lists, by its enum value, delisted symbols last.

    `contract_size` is what the file calls `mul`. A perpetual that was settled before the file was written is delisted.
    A base that stands for many units of the asset says so, as 1000SHIB does. Raises MalformedLineError, and
    UnknownFormatError if the file has other columns.
    """
    found: dict[str, list[Listing]] = {}
    with closing(Lines(path)) as lines:
        rows = CsvRows(lines)
        if missing := COLUMNS.difference(rows.header):
            raise UnknownFormatError(f"{path} is no listing: it has no column {', '.join(sorted(missing))}")
        try:
            for row in rows:
                if row:
                    found.setdefault(exchange_of(row), []).append(_listing(row))
        except ValueError as error:
            reason = f"{error.field}: {error.reason}" if isinstance(error, ValidationError) else str(error)
            raise MalformedLineError(path, rows.number, reason) from error
    return {
        exchange: tuple(sorted(listings, key=lambda listing: not listing.is_active))
        for exchange, listings in found.items()
    }


def exchange_of(row: Mapping[str, str]) -> str:
    """Return the enum value of a row's platform and market type; raise ValueError if there is none."""
    platform, market = row["platform"], row["market_type"]
    if not platform or market not in _MARKETS:
        raise ValueError(f"platform {platform!r} with market type {market!r}: known are {', '.join(_MARKETS)}")
    return f"{_PLATFORMS.get(platform, platform.upper())}_{_MARKETS[market]}"


def _listing(row: Mapping[str, str]) -> Listing:
    market = exchange_of(row).rpartition("_")[2]
    settled = int(row["settleDate"] or 0)
    moment = None if settled in _NEVER else from_milliseconds(settled)
    dated = _DATED.search(row["symbol"]) is not None
    if dated and moment is None:
        raise ValueError(f"{row['symbol']} is a dated contract without a settleDate")
    delisted = moment is not None and not dated and _is_past(moment, row["date_time"])
    listing = Listing(
        symbol_base=_base(row),
        symbol_quote=row["quote"].upper(),
        exchange_symbol=row["symbol"],
        symbol_type=SymbolType.FUTURE if dated else _TYPES[market],
        expiry=moment if dated else None,
        contract_size=_contract_size(row["mul"]) if market == "FUTURES" else None,
        is_active=not delisted,
        delisted_at=moment if delisted else None,
    )
    columns(Listing, [listing])
    return listing


def _base(row: Mapping[str, str]) -> str:
    """Return the base; if one unit of it is many of the asset, with that number before the asset's name."""
    base, asset = row["base"].upper(), row["pairId"].partition("_")[0].upper()
    units = float(row.get("pmul") or 1)
    return f"{units:.0f}{asset}" if units != 1 and base == asset else base


def _contract_size(text: str) -> float | None:
    size = float(text or 0)
    return size if size > 0 else None


def _is_past(moment: datetime, written: str) -> bool:
    """Whether a time lies before that of the file, which has no zone: before it wherever its clock stood."""
    return moment < datetime.fromisoformat(written).replace(tzinfo=UTC) - _EASTERNMOST
