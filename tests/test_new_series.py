"""A new time series, added to a scratch copy as the README says, works everywhere."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest

from arbstore.database import Database
from tests.test_readme import CHECKOUT, README, blocks, run

USE = """
import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from arbstore import Database, kinds
from arbstore.records import Liquidation, Side
from arbstore.ingest import IngestOptions, ingest

async def main():
    now = datetime.now(UTC)
    async with Database() as db:
        async with db.begin() as store:
            exchange = await store.exchanges.add("BINANCE_FUTURES")
            listing = {"symbol_base": "BTC", "symbol_quote": "USDT", "exchange_symbol": "BTCUSDT"}
            symbol = await store.symbols.add(exchange.id, listing | {"symbol_type": "PERPETUAL"})
            row = Liquidation(symbol_id=symbol.id, timestamp=now, price=1.5, quantity=2.0, side=Side.SELL)
            await store.liquidations.insert([row])
        Path("more.csv").write_text(
            "exchange,base,quote,timestamp,price,quantity,side\\n"
            f"BINANCE_FUTURES,BTC,USDT,{(now + timedelta(seconds=1)).isoformat()},2.5,1,buy\\n"
        )
        await ingest(db, [Path("more.csv")], IngestOptions())
        async with db.begin() as store:
            rows = await store.series(kinds.LIQUIDATIONS).history("BINANCE_FUTURES", "BTC", "USDT")
            sizes = {stats.table for stats in await store.maintenance.stats()}
        frame = await db.frames.history("liquidations", "BINANCE_FUTURES", "BTC", "USDT")
        print([row.price for row in rows], rows[0].symbol_base, frame["side"].to_pylist())
        print("liquidation_snapshots" in sizes)

asyncio.run(main())
"""


def scratch_copy(folder: Path) -> Path:
    """Return a checkout to which the README's blocks are added."""
    copy = folder / "checkout"
    for name in ("src", "alembic"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "alembic.ini", copy)
    section = README[README.index("### Adding a time series") :]
    for path, block in re.findall(r"```python\n# (src/\S+)\n(.*?)```", section, re.DOTALL):
        file = copy / path
        text = file.read_text()
        place = text.index("# Every row of this module") if path.endswith("kinds.py") else len(text)
        file.write_text(f"{text[:place]}\n\n{block}\n\n{text[place:]}")
    export(copy / "src/arbstore/records/__init__.py", "arbstore.records.snapshots", "Liquidation, StoredLiquidation")
    export(copy / "src/arbstore/models/__init__.py", "arbstore.models.series", "LiquidationSnapshot")
    return copy


def export(file: Path, module: str, names: str) -> None:
    file.write_text(f"{file.read_text()}\nfrom {module} import {names}\n")


async def test_a_new_series_is_a_record_a_model_a_revision_and_a_row(
    committed_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = scratch_copy(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(copy / "src"))
    url = committed_db.engine.url.render_as_string(hide_password=False)
    revision, upgrade, _ = blocks("bash")[-1].strip().splitlines()
    for command in (revision, upgrade, "alembic check"):
        done = await asyncio.to_thread(run, ["bash", "-euc", command], url, copy)
        assert done.returncode == 0, done.stderr
    used = await asyncio.to_thread(run, ["python", "-c", USE], url, copy)
    assert used.stdout.splitlines() == ["[1.5, 2.5] BTC ['sell', 'buy']", "True"], used.stderr
    shown = await asyncio.to_thread(run, ["arbstore", "latest", "liquidations", "--json"], url, copy)
    assert [row["price"] for row in json.loads(shown.stdout)] == [2.5], shown.stderr
