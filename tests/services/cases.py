"""A small market of two exchanges, and the nine time series told apart by how they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from arbstore import records
from arbstore.database import Store
from arbstore.records import (
    Balance,
    Candle,
    CollectorStatus,
    Exchange,
    Listing,
    Opportunity,
    OrderFlow,
    Record,
    Snapshot,
    Symbol,
    SymbolType,
)
from arbstore.services.series import Series
from tests.conftest import NOON
from tests.records.samples import REPRESENTATIVES, SAMPLES, SERVICES, mapping


@dataclass(frozen=True)
class Market:
    """BINANCE_SPOT with BTC and ETH, GATEIO_FUTURES with a perpetual BTC."""

    spot: Exchange
    futures: Exchange
    btc: Symbol
    eth: Symbol
    perpetual: Symbol


def perpetual(base: str, name: str | None = None, **fields: Any) -> Listing:
    given = {"symbol_base": base, "symbol_quote": "USDT", "exchange_symbol": name or f"{base}_USDT"}
    return Listing(**given | {"symbol_type": SymbolType.PERPETUAL} | fields)


async def open_market(store: Store) -> Market:
    spot = await store.exchanges.add("BINANCE_SPOT")
    futures = await store.exchanges.add("GATEIO_FUTURES")
    btc, eth = await store.symbols.add_many(
        spot.id, [perpetual(base, f"{base}USDT", symbol_type=SymbolType.SPOT) for base in ("BTC", "ETH")]
    )
    return Market(spot, futures, btc, eth, await store.symbols.add(futures.id, perpetual("BTC")))


@dataclass(frozen=True)
class Case:
    """One kind of time series and how its service is asked for it."""

    kind: type[Snapshot]

    @property
    def of_exchange(self) -> bool:
        return self.kind in (Balance, CollectorStatus)

    @property
    def part(self) -> tuple[str, Any, Any] | None:
        """Return the field between owner and time in the key, and two values of it."""
        parts: Mapping[type[Snapshot], tuple[str, Any, Any]] = {
            Balance: ("asset_name", "ETH", "USDT"),
            CollectorStatus: ("collector", "ws-1", "ws-2"),
            Candle: ("timeframe", "1s", "7s"),
            OrderFlow: ("window_seconds", 60, 300),
        }
        return parts.get(self.kind)

    @property
    def stored_kind(self) -> type[Record]:
        found: type[Record] = getattr(records, f"Stored{self.kind.__name__}")
        return found

    def service(self, store: Store) -> Series[Any, Any]:
        found: Series[Any, Any] = getattr(store, SERVICES[self.kind])
        return found

    def row(self, market: Market, at: datetime = NOON, symbol: Symbol | None = None, **fields: Any) -> Any:
        """Return the sample as one of the symbol (BTC on BINANCE_SPOT), or of its exchange."""
        owner = symbol or market.btc
        ids = {"symbol_id": owner.id, "exchange_id": owner.exchange_id, "buy_exchange_id": owner.exchange_id}
        ids["sell_exchange_id"] = market.futures.id
        known = mapping(SAMPLES[self.kind])
        given = {name: number for name, number in ids.items() if name in known}
        return self.kind(**known | given | {"timestamp": at} | fields)

    def other(self, market: Market, at: datetime = NOON, **fields: Any) -> Any:
        """Return a row of the same key with another value in it."""
        name = next(name for name in CHANGEABLE if name in mapping(SAMPLES[self.kind]))
        changed: dict[str, Any] = {name: CHANGEABLE[name]}
        return self.row(market, at, **changed | fields)

    def expected(self, market: Market, row: Record, symbol: Symbol | None = None) -> Record:
        """Return the row as it is to be read back."""
        owner = symbol or market.btc
        exchange = market.spot if owner.exchange_id == market.spot.id else market.futures
        names = {"exchange": exchange.enum_value}
        if not self.of_exchange:
            names |= {name: getattr(owner, name) for name in ("symbol_base", "symbol_quote", "exchange_symbol")}
        return self.stored_kind(**mapping(row) | names)

    async def history(self, store: Store, *wanted: Any, **window: Any) -> list[Any]:
        """Ask for the history of the row's series: BTC/USDT on BINANCE_SPOT, or what `wanted` says."""
        service: Any = self.service(store)
        found: list[Any] = await service.history(*(wanted or self.series), **window)
        return found

    @property
    def series(self) -> tuple[Any, ...]:
        if self.of_exchange:
            assert self.part is not None
            return "BINANCE_SPOT", self.part[1]
        rest = ("GATEIO_FUTURES",) if self.kind is Opportunity else ()
        return "BINANCE_SPOT", "BTC", "USDT", *((self.part[1],) if self.part else rest)

    async def latest(self, store: Store, *filters: Any, **more: Any) -> list[Any]:
        service: Any = self.service(store)
        found: list[Any] = await service.latest(*filters, **more)
        return found


CHANGEABLE = {
    "ask_qty": 7.0,
    "quantity": 7.0,
    "funding_rate": Decimal("0.0003"),
    "locked_balance": Decimal("2.25"),
    "ofi_score": 7.0,
    "error": "another",
    "bid": 1.09,
    "vwap": 3.5,
}
CASES = [Case(kind) for kind in SAMPLES]
every_series = pytest.mark.parametrize("case", CASES, ids=lambda case: SERVICES[case.kind])
every_symbol_series = pytest.mark.parametrize(
    "case", [case for case in CASES if not case.of_exchange], ids=lambda case: SERVICES[case.kind]
)
every_path = pytest.mark.parametrize(
    "case", [Case(kind) for kind in REPRESENTATIVES[:3]], ids=lambda case: SERVICES[case.kind]
)
every_path_and_decimals = pytest.mark.parametrize(
    "case", [Case(kind) for kind in REPRESENTATIVES], ids=lambda case: SERVICES[case.kind]
)
every_path_of_symbols = pytest.mark.parametrize(
    "case", [Case(kind) for kind in REPRESENTATIVES[:2]], ids=lambda case: SERVICES[case.kind]
)
every_series_with_parts = pytest.mark.parametrize(
    "case", [case for case in CASES if case.part], ids=lambda case: SERVICES[case.kind]
)
