"""The simulated market, what is found in its quotes, and the demo of both."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arbstore.database import Database
from arbstore.demo import SimulatedMarket, Spread, feed, look, opportunities, widest_spread
from arbstore.records import BookTicker, Exchange, StoredBookTicker, Trade
from tests.conftest import NOON

PROGRAM = [sys.executable, "-c", "from arbstore.cli import main; main()"]
MARKET = {"book_ticker_snapshots": "book_tickers", "trade_snapshots": "trades"}


def demo(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 # our own program
        [*PROGRAM, "demo", *words], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def quoted(exchange: str, bid: float, ask: float, *, after: float = 0, quantity: float = 1) -> StoredBookTicker:
    return StoredBookTicker(
        symbol_id={"A_SPOT": 1, "B_SPOT": 2}[exchange],
        timestamp=NOON + timedelta(seconds=after),
        created_at=NOON,
        bid_price=bid,
        bid_qty=quantity,
        ask_price=ask,
        ask_qty=quantity,
        exchange=exchange,
        symbol_base="BTC",
        symbol_quote="USDT",
        exchange_symbol="BTCUSDT",
    )


@pytest.fixture
def exchanges() -> Mapping[str, Exchange]:
    return {
        name: Exchange(id=number, enum_value=name, created_at=NOON, **_parts(name))
        for number, name in ((11, "A_SPOT"), (12, "B_SPOT"))
    }


def _parts(name: str) -> dict[str, Any]:
    return {"exchange_name": name[0], "market_type": "SPOT", "is_active": True}


async def simulated(db: Database, seed: int) -> tuple[list[BookTicker], list[Trade]]:
    async with db.begin() as store:
        return (await SimulatedMarket.open(store, seed=seed, start=NOON)).advance(100)


async def test_a_seed_is_one_market(db: Database) -> None:
    assert await simulated(db, 7) == await simulated(db, 7)
    assert await simulated(db, 7) != await simulated(db, 8)


async def test_the_simulated_market_quotes_every_symbol_at_every_step(db: Database) -> None:
    quotes, trades = await simulated(db, 7)
    assert len(quotes) == 100 * 3 * 5
    assert len({(quote.symbol_id, quote.timestamp) for quote in quotes}) == len(quotes)
    assert all(quote.bid_price < quote.ask_price for quote in quotes)
    assert 0 < len(trades) < len(quotes)


async def test_the_simulated_market_registers_only_what_is_missing(db: Database) -> None:
    await simulated(db, 7)
    await simulated(db, 8)
    async with db.begin() as store:
        found = await store.exchanges.all()
        assert [exchange.enum_value for exchange in found] == ["BINANCE_SPOT", "GATEIO_SPOT", "MEXC_SPOT"]
        assert [len(await store.symbols.by_exchange(exchange.id)) for exchange in found] == [5, 5, 5]


async def test_what_is_fed_is_stored_and_arbitrage_is_found_in_it(db: Database) -> None:
    told: list[tuple[int, int]] = []
    written = await feed(db, seconds=0.4, seed=7, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 2), (2, 2)]
    assert written.rows["book_tickers"] == 100 * 3 * 5
    found = await look(db)
    stored = {MARKET[table.table]: table.rows for table in found.tables if table.table in MARKET}
    assert stored == written.rows
    assert [spread.buy.symbol_base for spread in found.spreads] == ["BTC", "DOGE", "ETH", "SOL", "XRP"]
    assert found.opportunities_found > 0
    kept = next(table.rows for table in found.tables if table.table == "arbitrage_opportunities")
    assert kept == found.opportunities_found


def test_the_widest_spread_buys_at_the_ask_and_sells_at_the_bid() -> None:
    best = widest_spread([quoted("A_SPOT", 99.0, 100.0, quantity=3), quoted("B_SPOT", 101.0, 102.0, quantity=2)])
    assert best is not None
    assert (best.buy.exchange, best.sell.exchange) == ("A_SPOT", "B_SPOT")
    assert best.bps == pytest.approx(100)
    assert best.quantity == 2
    assert best.net_profit == pytest.approx(2 * (1 - 0.0005 * 201))


def test_one_exchange_has_no_spread_across_exchanges() -> None:
    assert widest_spread([quoted("A_SPOT", 99.0, 100.0)]) is None


def test_a_spread_that_does_not_pay_is_below_zero() -> None:
    assert Spread(buy=quoted("A_SPOT", 99.0, 100.0), sell=quoted("B_SPOT", 99.0, 100.0)).bps == pytest.approx(-100)


def test_an_opportunity_is_a_spell_with_its_best_prices(exchanges: Mapping[str, Exchange]) -> None:
    quotes = [
        quoted("A_SPOT", 99.0, 100.0),
        quoted("B_SPOT", 101.0, 102.0, after=1),
        quoted("B_SPOT", 102.0, 103.0, after=2),
        quoted("B_SPOT", 100.5, 101.5, after=3),
        quoted("B_SPOT", 99.0, 100.0, after=4),
        quoted("A_SPOT", 102.0, 103.0, after=5),
    ]
    first, second = opportunities(quotes, exchanges)
    assert (first.timestamp, first.duration_ms) == (NOON + timedelta(seconds=1), 2000)
    assert (first.buy_price, first.sell_price, first.spread_bps) == (100.0, 102.0, 200.0)
    assert (first.symbol_id, first.buy_exchange_id, first.sell_exchange_id) == (1, 11, 12)
    assert (second.symbol_id, second.buy_exchange_id, second.sell_exchange_id) == (2, 12, 11)


def test_a_spread_within_the_fees_is_no_opportunity(exchanges: Mapping[str, Exchange]) -> None:
    assert opportunities([quoted("A_SPOT", 99.0, 100.0), quoted("B_SPOT", 100.09, 101.0)], exchanges) == []
    assert opportunities([quoted("A_SPOT", 99.0, 100.0), quoted("B_SPOT", 100.11, 101.0)], exchanges) != []


def test_what_is_quoted_at_one_time_is_one_state_of_the_market(exchanges: Mapping[str, Exchange]) -> None:
    both = [quoted("A_SPOT", 99.0, 100.0), quoted("B_SPOT", 99.0, 100.0)]
    moved = [quoted("A_SPOT", 109.0, 110.0, after=1), quoted("B_SPOT", 109.0, 110.0, after=1)]
    assert opportunities([*both, *moved], exchanges) == []


async def test_the_demo_on_a_terminal_fits_80_columns_and_leaves_its_rows_where_it_is_sent(
    committed_db: Database,
) -> None:
    url = committed_db.engine.url.render_as_string(hide_password=False)
    words = ("demo", "--seconds", "0.4", "--seed", "3", "--database", url)
    code, text = await asyncio.to_thread(on_terminal, *words, columns=80)
    assert code == 0
    assert "SIMULATED market (seed 3)" in text
    assert "rows a second" in text
    assert "arbitrage_opportunities" in text
    assert max(map(len, shown(text))) <= 80
    async with committed_db.begin() as store:
        assert len(await store.book_tickers.latest()) == 15


def test_the_demo_for_programs_counts_what_it_wrote_and_deletes_its_database() -> None:
    with tempfile.TemporaryDirectory() as folder:
        unused = "postgresql://localhost:1/unused"
        done = demo("--json", "--seconds", "0.4", TMPDIR=folder, ARBSTORE_DATABASE_URL=unused)
        assert list(Path(folder).iterdir()) == []
    assert done.returncode == 0, done.stderr
    found = msgspec.json.decode(done.stdout)
    rows = {MARKET[table["table"]]: table["rows"] for table in found["tables"] if table["table"] in MARKET}
    assert (found["simulated"], found["seed"]) == (True, 7)
    assert rows == found["written"]
    assert found["rows_per_second"] > 0
    assert {quote["exchange"] for quote in found["quotes"]} == {"BINANCE_SPOT", "GATEIO_SPOT", "MEXC_SPOT"}
    assert len(found["spreads"]) == 5
    assert found["opportunities"][0]["spread_bps"] > 10


async def test_the_demo_of_recordings_stores_all_three_markets(recordings: Path, committed_db: Database) -> None:
    url = committed_db.engine.url.render_as_string(hide_password=False)
    done = await asyncio.to_thread(demo, "--json", "--data", str(recordings), "--database", url)
    assert done.returncode == 0, done.stderr
    found = msgspec.json.decode(done.stdout)
    assert (found["simulated"], found["seed"]) == (False, None)
    assert found["written"]["trades"] == 8_709
    assert sorted({quote["exchange"] for quote in found["quotes"]}) == [
        "BINANCE_COINM_FUTURES",
        "BINANCE_FUTURES",
        "BINANCE_SPOT",
    ]
    assert [spread["pair"] for spread in found["spreads"]] == ["BTC/USDT", "ETH/USDT"]


def test_a_folder_without_recordings_is_a_usage_error(tmp_path: Path) -> None:
    done = demo("--data", str(tmp_path))
    assert done.returncode == 2
    assert "has no recordings" in done.stderr


def on_terminal(*words: str, columns: int) -> tuple[int, str]:
    """Run the command with a terminal of that width for its input and output; return its code and its output."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR"}}
    with subprocess.Popen(  # noqa: S603 # our own program
        [*PROGRAM, *words], stdin=its, stdout=its, stderr=its, env={**environment, "TERM": "xterm"}
    ) as process:
        os.close(its)
        text = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    return process.returncode, text.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # Linux says so when the other side has closed
        return b""


def shown(text: str) -> list[str]:
    """Return the lines that stay on the terminal: without colours, and without what was drawn over."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\r", plain)
    return [line.rstrip("\r").rpartition("\r")[2] for line in drawn.split("\n")]
