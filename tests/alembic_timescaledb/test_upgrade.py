"""What a server that can do more than before is given, and in which order."""

from __future__ import annotations

from alembic_timescaledb.server import Edition
from alembic_timescaledb.upgrade import steps_now
from tests.alembic_timescaledb.models import BY_JOB, DAY, KEEP, per_minute, readings
from tests.alembic_timescaledb.project import Project


async def test_the_job_that_drops_rows_comes_last(community: Project) -> None:
    table = readings(community.metadata, BY_JOB)
    per_minute(table, retention=None)
    community.options = {"timescale_edition": Edition.PLAIN}
    await community.execute(KEEP)
    await community.deploy()
    steps, left = await community.connection.run_sync(steps_now, community.metadata)
    assert left == ()
    kinds = [step.ops[0].name if step.ops else "compute" for step in steps]
    assert kinds.index("create_hypertable") < kinds.index("compute") < kinds.index("add_retention_job")
    assert [step.drops_after for step in steps] == [None] * (len(steps) - 1) + [7 * DAY]
