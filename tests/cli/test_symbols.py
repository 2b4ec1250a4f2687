"""`arbstore symbols`."""

from __future__ import annotations

import pytest_asyncio

from arbstore.database import Database
from tests.cli.conftest import CommandLine
from tests.conftest import listing


@pytest_asyncio.fixture
async def delisted(committed_db: Database) -> Database:
    """Yield a database with two exchanges; the first has listed ETH instead of BTC."""
    async with committed_db.begin() as store:
        binance = await store.exchanges.add("BINANCE_SPOT")
        mexc = await store.exchanges.add("MEXC_SPOT")
        await store.symbols.add(mexc.id, listing("PEPE"))
        for base in ("BTC", "ETH"):
            await store.symbols.sync(binance.id, [listing(base)])
    return committed_db


def test_symbols_are_those_that_are_active(arbstore: CommandLine, delisted: Database) -> None:
    found = arbstore.json("symbols")
    assert [(row["exchange"], row["exchange_symbol"]) for row in found] == [
        ("BINANCE_SPOT", "ETHUSDT"),
        ("MEXC_SPOT", "PEPEUSDT"),
    ]
    assert "ETH/USDT" in arbstore("symbols").stdout
    assert "BTC/USDT" not in arbstore("symbols").stdout


def test_all_symbols_are_shown_where_that_is_asked(arbstore: CommandLine, delisted: Database) -> None:
    found = arbstore.json("symbols", "--all", "--exchange", "binance_spot")
    assert [(row["symbol_base"], row["is_active"]) for row in found] == [("BTC", False), ("ETH", True)]
    assert found[0]["delisted_at"] is not None


def test_no_symbols_are_no_error(arbstore: CommandLine) -> None:
    assert arbstore("symbols").stdout == "no symbols are registered\n"
    assert arbstore.json("symbols") == []


def test_an_unknown_exchange_is_not_an_empty_list(arbstore: CommandLine) -> None:
    assert "'NO_SPOT' is not registered" in arbstore("symbols", "--exchange", "NO_SPOT", exits=4).stderr
