"""Changes of a table and of its hypertable in one revision: they work in both directions, or are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from alembic.util import CommandError
from sqlalchemy import Column, Constraint, DateTime, Float, Integer, MetaData, Table, UniqueConstraint, text

from alembic_timescaledb import Columnstore, DeclarationError, Hypertable
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
    ("before", "after"), [(stored(["old"]), PLAIN), (PLAIN, stored(["new"]))], ids=["ends", "begins"]
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


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (stored(["old"]), stored(["sensor"]), "old"),
        (stored(["sensor"], ["old", "time DESC"]), stored(["sensor"], ["new", "time"]), "new, old"),
    ],
    ids=["leaves", "both"],
)
async def test_columns_that_change_together_with_the_columnstore_need_two_revisions(
    community: Project, before: Hypertable, after: Hypertable, named: str
) -> None:
    declare(community, before, Column("old", Integer))
    await community.deploy()
    declare(community, after, Column("new", Integer))
    with pytest.raises(DeclarationError, match=rf"readings: its columnstore .*\({named}\); make two revisions"):
        await community.revise()


async def test_a_new_time_column_waits_for_the_manual_steps(chunked: Project) -> None:
    declare(chunked, PLAIN)
    await chunked.deploy()
    declare(chunked, Hypertable(HOUR, time_column="at"), time="at")
    written = await chunked.revise()
    assert written.index("op.revert_hypertable('readings')") < written.index("op.create_hypertable('readings', 'at'")
    with pytest.raises(CommandError, match=r"readings is a hypertable.*by hand"):
        await chunked.upgrade()
    await chunked.connection.rollback()
    columns = '"time" timestamptz NOT NULL, sensor int NOT NULL, value float8'
    await chunked.execute("DROP TABLE readings", f"CREATE TABLE readings ({columns})")
    await chunked.upgrade()
    await chunked.check()


async def test_a_key_that_no_hypertable_can_have_goes(chunked: Project) -> None:
    declare(chunked, None, UniqueConstraint("sensor", name="one_each"))
    await chunked.deploy()
    await chunked.execute("INSERT INTO readings SELECT n, now() - n * interval '1 day' FROM generate_series(1, 9) n")
    declare(chunked, PLAIN)
    await chunked.deploy()
    assert await chunked.connection.scalar(text("SELECT count(*) FROM readings")) == 9
