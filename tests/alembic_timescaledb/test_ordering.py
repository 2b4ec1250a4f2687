"""Changes of a table and of what TimescaleDB knows of it, in one revision: each works, and so does its way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Column, Constraint, DateTime, Float, Integer, MetaData, Table, UniqueConstraint, text

from alembic_timescaledb import Columnstore, Hypertable, Space
from alembic_timescaledb.server import state
from tests.alembic_timescaledb.models import DAY, HOUR
from tests.alembic_timescaledb.project import Project

PLAIN = Hypertable(HOUR, time_column="time")


def declare(project: Project, wanted: Hypertable | None, *more: Column[Any] | Constraint, time: str = "time") -> Table:
    """Declare it anew, with these columns and no key."""
    project.metadata = MetaData()
    return Table(
        "readings",
        project.metadata,
        Column("sensor", Integer, nullable=False),
        Column(time, DateTime(timezone=True), nullable=False),
        Column("value", Float),
        *more,
        info=wanted.info if wanted else {},
    )


async def forth_and_back(project: Project, *, rows: int, after_upgrade: str | None = None) -> None:
    """Deploy what is declared now, take it back, and deploy it again: rows stay."""

    async def now() -> object:
        found = await project.connection.run_sync(state)
        await project.connection.rollback()
        return found.hypertables, found.aggregates

    async def count() -> int:
        found = (await project.connection.scalars(text("SELECT count(*) FROM readings"))).one()
        await project.connection.rollback()
        return int(found)

    before = await now()
    await project.deploy()
    after = await now()
    assert await count() == rows
    if after_upgrade is not None:
        await project.execute(after_upgrade)
    await project.downgrade("0001")
    assert await now() == before
    assert await count() == rows
    await project.upgrade()
    await project.check()
    assert await now() == after
    assert await count() == rows


def stored(segment_by: Sequence[str], order_by: Sequence[str] = ()) -> Hypertable:
    store = Columnstore(DAY, segment_by=segment_by, order_by=order_by)
    return Hypertable(HOUR, time_column="time", columnstore=store)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (stored(["old"]), stored(["sensor"])),
        (stored(["sensor"]), stored(["new"])),
        (stored(["sensor"], ["old", "time DESC"]), stored(["sensor"], ["new", "time"])),
        (stored(["old"]), PLAIN),
        (PLAIN, stored(["new"])),
    ],
    ids=["leaves", "takes", "both", "ends", "begins"],
)
async def test_a_columnstore_and_the_columns_that_it_names(
    community: Project, before: Hypertable, after: Hypertable
) -> None:
    declare(community, before, Column("old", Integer))
    await community.deploy()
    await community.execute("INSERT INTO readings SELECT 1, now() - n * interval '1 day' FROM generate_series(1, 9) n")
    # The server's own job may have been at it meanwhile.
    converted = (
        "DO $$ DECLARE part regclass; BEGIN FOR part IN SELECT show_chunks('readings', interval '3 days') LOOP"
        " BEGIN PERFORM compress_chunk(part, true); EXCEPTION WHEN duplicate_object THEN NULL; END; END LOOP; END $$"
    )
    if before.columnstore is not None:
        await community.execute(converted)
    declare(community, after, Column("new", Integer))
    await forth_and_back(community, rows=9, after_upgrade=converted if after.columnstore else None)


async def test_a_new_time_column(chunked: Project) -> None:
    declare(chunked, PLAIN)
    await chunked.deploy()
    declare(chunked, Hypertable(HOUR, time_column="at"), time="at")
    await forth_and_back(chunked, rows=0)


async def test_a_space_column_that_goes(chunked: Project) -> None:
    declare(chunked, Hypertable(HOUR, time_column="time", space=Space("part", 2)), Column("part", Integer))
    await chunked.deploy()
    await chunked.execute("INSERT INTO readings SELECT 1, now() - n * interval '1 day' FROM generate_series(1, 9) n")
    declare(chunked, PLAIN)
    await forth_and_back(chunked, rows=9)


@pytest.mark.parametrize("comes", [True, False], ids=["comes", "goes"])
async def test_a_key_that_no_hypertable_can_have(chunked: Project, comes: bool) -> None:
    unique = UniqueConstraint("sensor", name="one_each")
    declare(chunked, *([PLAIN] if comes else [None, unique]))
    await chunked.deploy()
    await chunked.execute("INSERT INTO readings SELECT n, now() - n * interval '1 day' FROM generate_series(1, 9) n")
    declare(chunked, *([None, unique] if comes else [PLAIN]))
    await forth_and_back(chunked, rows=9)
