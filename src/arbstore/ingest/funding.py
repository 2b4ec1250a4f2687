"""Funding rates: settled ones (`Symbol,Date,Funding Rate`), and snapshots of several platforms (`pair_tickers.csv`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from arbstore.ingest.listings import exchange_of
from arbstore.ingest.options import IngestOptions
from arbstore.ingest.rows import Ignored, Row, SymbolName
from arbstore.ingest.times import aware, from_milliseconds

SETTLED_COLUMNS = frozenset({"Symbol", "Date", "Funding Rate"})
SNAPSHOT_COLUMNS = frozenset(
    {"date_time", "platform", "market_type", "pairId", "symbol", "funding_rate", "funding_rate_time"}
    | {"mark_price", "index_price"}
)


class SettledParser:
    """Reads rates that have been settled: their time is the settlement's."""

    def __init__(self, options: IngestOptions) -> None:
        """Raise ConfigurationError if no exchange is given: the file names none."""
        self._exchange = options.required_exchange()
        self._utc_offset = options.utc_offset

    def __call__(self, row: Mapping[str, str], /) -> Row | Ignored:
        """Return the rate; raise ValueError with the reason if the row is malformed."""
        if not row:
            return "blank line"
        pair = row["Symbol"].strip().upper().split("-")
        if len(pair) != 2 or not all(pair):
            raise ValueError(f"{row['Symbol']!r} is no pair such as BTC-USDT")
        settlement = aware(row["Date"], self._utc_offset)
        values = {"timestamp": settlement, "funding_time": settlement, "funding_rate": row["Funding Rate"]}
        # The pair is the file's own spelling, the same for all exchanges.
        name = SymbolName(self._exchange, base=pair[0], quote=pair[1])
        return Row("funding_rates", (("symbol_id", name),), values)


class SnapshotParser:
    """Reads the rates, mark and index prices of one moment; of one exchange, if the options name one."""

    def __init__(self, options: IngestOptions) -> None:
        """Take the exchange and the offset of the snapshot's clock."""
        self._exchange = options.exchange
        self._utc_offset = options.utc_offset

    def __call__(self, row: Mapping[str, str], /) -> Row | Ignored:
        """Return the rate; raise ValueError with the reason if the row is malformed."""
        if not row:
            return "blank line"
        exchange = exchange_of(row)
        if self._exchange not in (None, exchange):
            return f"of {exchange}"
        funding_time = int(row["funding_rate_time"])
        if funding_time == 0:
            return "funding time 0 (dated contract)"
        values = {
            "timestamp": aware(row["date_time"], self._utc_offset),
            "funding_time": from_milliseconds(funding_time),
            "funding_rate": row["funding_rate"],
            "mark_price": _price(row, "mark_price"),
            "index_price": _price(row, "index_price"),
        }
        return Row("funding_rates", (("symbol_id", SymbolName(exchange, row["symbol"])),), values)


def _price(row: Mapping[str, str], column: str) -> Decimal | None:
    """Return the price of what the symbol trades: the file has that of one SHIB where the symbol is 1000SHIBUSDT."""
    if not row[column]:
        return None
    try:
        price = Decimal(row[column])
    except InvalidOperation:
        raise ValueError(f"{column}: must be a number, is {row[column]!r}") from None
    units = re.match(rf"(\d+){re.escape(row['pairId'].partition('_')[0])}", row["symbol"])
    return price if units is None else price * int(units[1])
