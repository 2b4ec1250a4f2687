from __future__ import annotations

import asyncio
from pathlib import Path

from arbstore.database import Database
from arbstore.ingest import ingest
from tests.ingest.reading import historic


async def test_imports_that_register_the_same_exchange_and_symbol_at_once_all_go_in(
    committed_db: Database, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.csv" for number in range(4)]
    for number, file in enumerate(files):
        file.write_text(
            "exchange,base,quote,timestamp,bid,ask\n"
            + "".join(f"OANDA_FOREX,EUR,USD,2024-08-08T12:0{number}:{second:02}Z,1.1,1.2\n" for second in range(60))
        )

    async def run(file: Path) -> int:
        # A Database of its own, as another process would have: nothing is shared but the server.
        async with Database(settings=committed_db.settings) as db:
            report = await ingest(db, [file], historic())
            return len(report.total.exchanges) + len(report.total.symbols)

    registered = await asyncio.gather(*(run(file) for file in files))
    async with committed_db.begin() as store:
        rows = await store.ticks.history("OANDA_FOREX", "EUR", "USD")
    assert len(rows) == 240
    assert sum(registered) == 2
