"""How long the chunks of an aggregate are."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import MetaData, func, select, text

from alembic_timescaledb import ContinuousAggregate, DeclarationError, server, time_bucket
from alembic_timescaledb.compare import compare
from alembic_timescaledb.server import Feature
from arbstore.database import Database
from arbstore.models import Base, TradeSnapshot
from arbstore.testing import skip_without


async def test_another_length_of_an_aggregates_chunks_is_drift_and_is_mended(committed_db: Database) -> None:
    async with committed_db.engine.begin() as connection:
        skip_without(await connection.run_sync(server.edition), Feature.AGGREGATES)
        assert await connection.run_sync(lambda sync: compare(sync, Base.metadata)) == []
        await connection.execute(text("SELECT set_chunk_time_interval('trade_candles_1h', INTERVAL '1 day')"))
        (op,) = await connection.run_sync(lambda sync: compare(sync, Base.metadata))
        assert str(op) == "let new chunks of trade_candles_1h be of 365 days, not 1 day"
        for statement in op.statements():
            await connection.execute(text(statement))
        assert await connection.run_sync(lambda sync: compare(sync, Base.metadata)) == []


def test_chunks_of_no_length_are_refused() -> None:
    trades = TradeSnapshot.__table__
    bucket = time_bucket(timedelta(minutes=1), trades.c.timestamp)
    query = select(bucket.label("timestamp"), func.max(trades.c.price).label("high")).group_by(bucket)
    with pytest.raises(DeclarationError, match="chunk_interval must be more than zero"):
        ContinuousAggregate("wrong", MetaData(), query, chunk_interval=timedelta(0))
