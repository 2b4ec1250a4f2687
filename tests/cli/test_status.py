"""`arbstore db status`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from alembic_timescaledb import Feature, hypertables, server
from arbstore import migrations
from arbstore.database import Database
from arbstore.models import Base
from arbstore.records import Side, Trade
from arbstore.testing import skip_without
from tests.cli.conftest import CommandLine
from tests.conftest import listing

HOUR = timedelta(hours=1)


def of(status: dict[str, Any], table: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in status["tables"] if row["table"] == table)
    return found


def test_status_tells_of_server_and_tables(arbstore: CommandLine) -> None:
    status = arbstore.json("db", "status")
    assert (status["revision"], status["head"]) == (migrations.head(), migrations.head())
    assert int(status["postgresql"].split(".")[0]) >= 15
    assert {row["table"] for row in status["tables"]} == {table.name for table, _ in hypertables(Base.metadata)}
    assert of(status, "book_ticker_snapshots")["retention"] == "P3D"
    assert of(status, "candles")["retention"] is None
    assert of(status, "candles")["enforced_by"] is None
    assert status["drift"] == []


def test_what_an_edition_lacks_is_named_with_what_does_it_instead(arbstore: CommandLine) -> None:
    status = arbstore.json("db", "status")
    lacks = {lack["feature"]: lack["instead"] for lack in status["lacks"]}
    quotes = of(status, "book_ticker_snapshots")
    plain, policies = status["edition"] == "plain", status["edition"] == "community"
    assert quotes["kind"] == ("ordinary" if plain else "hypertable")
    assert quotes["enforced_by"] == ("a policy of the server" if policies else "`arbstore db cleanup`")
    assert ("hypertables" in lacks) is plain
    assert ("retention policies" in lacks) is not policies
    assert ("columnstore" in lacks) is not policies
    assert all("`arbstore " in instead for instead in lacks.values())
    for words in (("db", "status"), ("db", "upgrade")):
        assert all(f"lacks {feature}: {instead}" in arbstore(*words).stdout for feature, instead in lacks.items())


def test_all_that_an_edition_leaves_undone_is_on_record(arbstore: CommandLine) -> None:
    undone = {lack["feature"]: lack["missing"] for lack in arbstore.json("db", "status")["lacks"]}
    declared = [hypertable for _, hypertable in hypertables(Base.metadata)]
    counts = {
        "hypertables": len(declared),
        "retention policies": sum(one.retention is not None for one in declared),
        "columnstore": 2 * sum(one.columnstore is not None for one in declared),
    }
    assert {feature: len(missing) for feature, missing in undone.items()} == {name: counts[name] for name in undone}
    assert all(isinstance(what, str) for missing in undone.values() for what in missing)


def test_status_works_without_a_schema(empty: CommandLine) -> None:
    shown = empty("db", "status").stdout
    assert f"schema    not deployed, newest {migrations.head()}: run `arbstore db upgrade`" in shown
    assert {row["kind"] for row in empty.json("db", "status")["tables"]} == {"missing"}


async def test_drift_is_told_with_what_mends_it(committed_db: Database, arbstore: CommandLine) -> None:
    async with committed_db.engine.begin() as connection:
        skip_without(await connection.run_sync(server.edition), Feature.HYPERTABLES)
        await connection.execute(text("SELECT set_chunk_time_interval('ticks', INTERVAL '3 hours')"))
    what = "let new chunks of ticks be of 1 hour, not 3 hours"
    assert (await asyncio.to_thread(arbstore.json, "db", "status"))["drift"] == [
        {"what": what, "remedy": "`arbstore db align`"}
    ]
    assert f"not as declared: {what}; `arbstore db align`" in (await asyncio.to_thread(arbstore, "db", "status")).stdout


async def test_what_the_server_does_by_itself_is_told(committed_db: Database, arbstore: CommandLine) -> None:
    async with committed_db.engine.connect() as connection:
        skip_without(await connection.run_sync(server.edition), Feature.COLUMNSTORE)
    now = datetime.now(UTC)
    async with committed_db.begin() as store:
        exchange = await store.exchanges.add("BINANCE_SPOT")
        symbol = await store.symbols.add(exchange.id, listing("BTC"))
        trade = Trade(symbol_id=symbol.id, timestamp=now, trade_id="0", price=1.0, quantity=1.0, side=Side.BUY)
        await store.trades.insert(
            [_at(trade, now - 5 * HOUR - n * timedelta(seconds=1), str(n)) for n in range(20_000)]
        )
    status = await asyncio.to_thread(arbstore.json, "db", "status")
    assert [row["made_until"][:4] for row in status["candles"]] == ["1970", "1970"]
    assert of(status, "trade_snapshots")["columnstore"]["ratio"] is None
    async with committed_db.engine.connect() as connection:
        autonomous = await connection.execution_options(isolation_level="AUTOCOMMIT")
        found = (
            "SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_name = 'trade_snapshots'"
            " OR config ->> 'table' = 'trade_snapshots' ORDER BY proc_name DESC"
        )
        for job in (await autonomous.scalars(text(found))).all():
            await autonomous.execute(text(f"CALL run_job({job})"))
    status = await asyncio.to_thread(arbstore.json, "db", "status")
    (made,) = [row for row in status["candles"] if row["origin"] == "trades"]
    assert now - HOUR < datetime.fromisoformat(made["made_until"]) <= now
    trades = of(status, "trade_snapshots")["columnstore"]
    assert trades["chunks"] > 0
    assert trades["ratio"] == round(trades["bytes_before"] / trades["bytes_after"], 2)
    assert trades["ratio"] > 1
    shown = (await asyncio.to_thread(arbstore, "db", "status")).stdout
    assert any(line.split()[:2] == ["trade_snapshots", str(trades["chunks"])] for line in shown.splitlines())
    assert any(line.split()[:1] == ["trades"] for line in shown.splitlines())


def _at(trade: Trade, at: datetime, trade_id: str) -> Trade:
    return Trade(symbol_id=trade.symbol_id, timestamp=at, trade_id=trade_id, price=1.0, quantity=1.0, side=Side.BUY)
