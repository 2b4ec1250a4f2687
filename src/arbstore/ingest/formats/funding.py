"""Settled funding rates: CSV files with the columns `Symbol,Date,Funding Rate`."""

from __future__ import annotations

from collections.abc import Mapping

from arbstore.ingest.reading import Format, Row, aware
from arbstore.ingest.symbols import SymbolName


class SettledRates(Format):
    """Funding rates of one exchange. Their time is that of the settlement."""

    name = "settled funding rates"
    columns = frozenset({"Symbol", "Date", "Funding Rate"})

    def read(self, row: Mapping[str, str]) -> Row:
        """Return the rate. The pair is not a spelling: these files spell the pairs of all exchanges alike."""
        pair = row["Symbol"].strip().upper().split("-")
        if len(pair) != 2 or not all(pair):
            raise ValueError(f"{row['Symbol']!r} is not a pair such as BTC-USDT")
        settlement = aware("Date", row["Date"], self.options.utc_offset)
        values = {"timestamp": settlement, "funding_time": settlement, "funding_rate": row["Funding Rate"]}
        symbol = SymbolName(self.exchange, base=pair[0], quote=pair[1])
        return Row("funding_rates", (("symbol_id", symbol),), values)
