"""The command line on a real database: in this process, or as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
from sqlalchemy import URL
from typer.testing import CliRunner, Result

from arbstore import testing
from arbstore.cli.app import app
from arbstore.database import Database, Store
from arbstore.records import (
    Balance,
    Candle,
    CollectorState,
    CollectorStatus,
    Exchange,
    FundingRate,
    Opportunity,
    OrderFlow,
    Side,
    Symbol,
    Tick,
    Trade,
)
from tests.conftest import NOON, listing, quote

SECOND = timedelta(seconds=1)
PROGRAM = [sys.executable, "-c", "from arbstore.cli import main; main()"]
Shell: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class CommandLine:
    """`arbstore`, with the options that choose the test's database."""

    options: tuple[str, ...] = ()

    def __call__(self, *words: str, exits: int = 0) -> Result:
        result = CliRunner().invoke(app, [*self.options, *words], catch_exceptions=False)
        assert result.exit_code == exits, result.output
        return result

    def json(self, *words: str, exits: int = 0) -> Any:
        return msgspec.json.decode(self(*words, "--json", exits=exits).stdout)


@pytest.fixture(autouse=True)
def _nothing_is_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("ARBSTORE_", "POSTGRES_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)  # where there is no .env


@pytest.fixture
def bare() -> CommandLine:
    """`arbstore` without a database."""
    return CommandLine()


@pytest.fixture
def arbstore(committed_db: Database) -> CommandLine:
    """`arbstore` on a database of the test's own."""
    return CommandLine(("--database", url_of(committed_db)))


@pytest.fixture
def empty(empty_db: Database) -> CommandLine:
    """`arbstore` on a database without the schema."""
    return CommandLine(("--database", url_of(empty_db)))


@pytest.fixture
def shell(committed_db: Database) -> Shell:
    """`arbstore` as a process, on a database of the test's own."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {"ARBSTORE_DATABASE_URL": url_of(committed_db)} | environment
        return subprocess.run(  # noqa: S603 # our own program
            [*PROGRAM, *words], env={**os.environ, **settings}, capture_output=True, text=True, check=False
        )

    return run


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def market(arbstore_server: URL) -> Iterator[CommandLine]:
    """Yield `arbstore` on a database with a row or more of every kind, at noon of 2024-08-08; it is only read."""
    url = testing._in_thread(lambda: testing._clone(arbstore_server))
    filled = url.render_as_string(hide_password=False)
    testing._in_thread(lambda: _fill(filled))
    yield CommandLine(("--database", filled))
    testing._in_thread(lambda: testing._drop(arbstore_server, url))


async def _fill(url: str) -> None:
    async with Database(url) as database, database.begin() as store:
        await _fill_store(store)


async def _fill_store(store: Store) -> None:
    binance = await store.exchanges.add("BINANCE_SPOT")
    mexc = await store.exchanges.add("MEXC_SPOT")
    btc = await store.symbols.add(binance.id, listing("BTC"))
    cheap = await store.symbols.add(mexc.id, listing("PEPE"))
    await store.book_tickers.insert([quote(btc, 100.0 + n, NOON + n * SECOND) for n in range(30)])
    await store.book_tickers.insert([quote(cheap, 0.00000123, NOON)])
    await store.trades.insert([_trade(btc, n) for n in range(3)])
    await store.funding_rates.insert(
        [FundingRate(symbol_id=btc.id, timestamp=NOON, funding_rate=Decimal("0.000100"), funding_time=NOON)]
    )
    await store.balances.insert([_balance(binance, "USDT", "1.000000000000000001"), _balance(mexc, "BTC", "2")])
    await store.ticks.insert([Tick(symbol_id=btc.id, timestamp=NOON, bid=1.0, ask=1.1)])
    await store.candles.insert([_candle(btc, "1m"), _candle(btc, "1h")])
    await store.opportunities.insert([_opportunity(btc, binance, mexc)])
    await store.order_flow.insert([_order_flow(btc, window) for window in (1, 60)])
    await store.collectors.insert([_status(binance, "quotes"), _status(mexc, "quotes")])


def _trade(symbol: Symbol, number: int) -> Trade:
    return Trade(
        symbol_id=symbol.id, timestamp=NOON, trade_id=str(1000 + number), price=100.0, quantity=0.5, side=Side.SELL
    )


def _balance(exchange: Exchange, asset: str, amount: str) -> Balance:
    return Balance(exchange_id=exchange.id, asset_name=asset, timestamp=NOON, available_balance=Decimal(amount))


def _candle(symbol: Symbol, timeframe: str) -> Candle:
    return Candle(
        symbol_id=symbol.id,
        timestamp=NOON,
        timeframe=timeframe,
        open=10.0,
        high=12.0,
        low=9.0,
        close=11.0,
        num_trades=1234,
    )


def _opportunity(symbol: Symbol, buy: Exchange, sell: Exchange) -> Opportunity:
    return Opportunity(
        symbol_id=symbol.id,
        timestamp=NOON,
        buy_exchange_id=buy.id,
        sell_exchange_id=sell.id,
        buy_price=100.0,
        sell_price=101.0,
        quantity=1.0,
        spread_bps=100.0,
    )


def _order_flow(symbol: Symbol, window: int) -> OrderFlow:
    return OrderFlow(
        symbol_id=symbol.id,
        timestamp=NOON,
        window_seconds=window,
        ofi_score=0.5,
        microprice=100.0,
        mid_price=100.0,
        spread_bps=1.0,
        book_imbalance=0.25,
    )


def _status(exchange: Exchange, collector: str) -> CollectorStatus:
    return CollectorStatus(
        exchange_id=exchange.id, timestamp=NOON, collector=collector, status=CollectorState.FAILED, error="[red] gone"
    )
