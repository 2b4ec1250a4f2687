"""Each operation: its SQL on each edition, its reverse, its line in a revision, and what it does where it cannot."""

from __future__ import annotations

import inspect
import io
import logging
import re
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import alembic.op
import pytest
from alembic.autogenerate import render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.operations.ops import UpgradeOps
from alembic.util import CommandError
from sqlalchemy import Connection, text

from alembic_timescaledb import autogenerate  # noqa: F401 # renders operations
from alembic_timescaledb import operations as ops
from alembic_timescaledb.names import DeclarationError
from alembic_timescaledb.operations import TimescaleOp
from alembic_timescaledb.server import Edition
from tests.alembic_timescaledb.models import KEEP, readings
from tests.alembic_timescaledb.project import Project

JOBS = text("SELECT count(*) FROM timescaledb_information.jobs WHERE proc_name = 'keep'")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
QUERY = "SELECT time_bucket('1 hour', time) AS time, max(x) FILTER (WHERE s <> ':a 5%') FROM t\nGROUP BY 1"

CREATED = ops.CreateHypertableOp("t", "time", chunk_interval=HOUR, migrate_data=True, schema="a b")
ENABLED = ops.EnableColumnstoreOp("t", segment_by=("s", "Odd"), order_by=("time DESC", "s NULLS FIRST"), schema="x")
ON_VIEW = ops.EnableColumnstoreOp("v", aggregate=True)
MOVED = ops.AddColumnstorePolicyOp("t", after=timedelta(seconds=90))
KEPT = ops.AddRetentionPolicyOp("t", drop_after=timedelta(days=1, microseconds=5))
JOB = ops.AddRetentionJobOp("t", "keep", every=HOUR, drop_after=DAY)
VIEW = ops.CreateContinuousAggregateOp("v", QUERY, materialized_only=True)
REFRESHED = ops.AddContinuousAggregatePolicyOp("v", start_offset=None, end_offset=timedelta(0), every=HOUR)
EVERY_OP: list[TimescaleOp] = [
    CREATED,
    ops.RevertHypertableOp("t", schema="a b", former=CREATED),
    ops.SetChunkIntervalOp("t", HOUR, before=DAY),
    KEPT,
    ops.RemoveRetentionPolicyOp("t", former=KEPT),
    JOB,
    ops.RemoveRetentionJobOp("t", "keep", former=JOB),
    ENABLED,
    ON_VIEW,
    ops.DisableColumnstoreOp("t", schema="x", former=ENABLED),
    MOVED,
    ops.RemoveColumnstorePolicyOp("t", former=MOVED),
    VIEW,
    ops.DropContinuousAggregateOp("v", former=VIEW),
    ops.SetMaterializedOnlyOp("v", True),
    REFRESHED,
    ops.RemoveContinuousAggregatePolicyOp("v", former=REFRESHED),
    ops.RefreshContinuousAggregateOp("v"),
]


def sql(op: TimescaleOp, edition: Edition) -> str:
    written = io.StringIO()
    options = {"as_sql": True, "output_buffer": written, "timescale_edition": edition}
    context = MigrationContext.configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, opts=options)
    Operations(context).invoke(op)
    return written.getvalue().strip()


def test_every_operation_is_tested_here() -> None:
    known = {value for name, value in vars(ops).items() if name.endswith("Op")}
    assert known - {TimescaleOp, ops.GoneWithRelationOp} == {type(op) for op in EVERY_OP}


def test_help_shows_what_each_does() -> None:
    """Its example is in docs/timescale.md, which is run."""
    for op in EVERY_OP:
        shown = getattr(Operations, op.name).__doc__
        assert shown == type(op).__doc__
        assert re.match(r"[A-Z].*[.;]", shown), op.name


def run(code: str) -> list[TimescaleOp]:
    """Run what a revision says, and return the operations that it invokes."""

    class Recorder(Operations):
        def invoke(self, operation: Any) -> None:  # type: ignore[override] # it returns nothing
            found.append(operation)

    found: list[TimescaleOp] = []
    recorder = Recorder(MigrationContext.configure(dialect_name="postgresql"))
    exec(code, {"op": recorder, "timedelta": timedelta, "datetime": datetime, "UTC": UTC})  # noqa: S102 # as Alembic
    return found


def test_its_line_in_a_revision_makes_it_again() -> None:
    for op in EVERY_OP:
        assert run("if True:\n" + render_python_code(UpgradeOps([op]))) == [op]


def test_the_reverse_of_its_reverse_is_itself() -> None:
    *reversible, refresh = EVERY_OP
    for op in reversible:
        assert op.reverse() != op
        assert op.reverse().reverse() == op
        assert op.to_diff_tuple() == (op.name, op.place, str(op))
    with pytest.raises(ValueError, match="computed buckets stay"):
        refresh.reverse()


def test_its_signature_and_documentation_are_those_of_its_fields() -> None:
    shown: Any = alembic.op
    methods: Any = Operations
    assert str(inspect.signature(shown.create_hypertable)) == (
        "(table: 'str', time_column: 'str', *, chunk_interval: 'timedelta', migrate_data: 'bool' = False,"
        " schema: 'str | None' = None) -> 'None'"
    )
    assert list(inspect.signature(methods.set_materialized_only).parameters) == [
        "self",
        "view",
        "materialized_only",
        "schema",
    ]
    assert "Reversed by dropping the table." in " ".join(shown.create_hypertable.__doc__.split())
    with pytest.raises(TypeError, match=r"missing a required (keyword-only )?argument: 'chunk_interval'"):
        run("op.create_hypertable('t', 'time')")
    with pytest.raises(TypeError, match="unexpected keyword argument 'former'"):
        run("op.remove_retention_policy('t', former=None)")


def test_a_second_dimension_is_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"create_hypertable: space_column is not supported: .*add_dimension"):
        run("op.create_hypertable('t', 'time', chunk_interval=timedelta(hours=1), space_column='s', partitions=4)")


def test_what_was_written_by_hand_is_reversed_by_hand() -> None:
    with pytest.raises(ValueError, match=r"remove_retention_policy of t cannot be reversed"):
        ops.RemoveRetentionPolicyOp("t").reverse()


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (
            CREATED,
            "SELECT create_hypertable('\"a b\".t', by_range('time', INTERVAL '1 hour'),"
            " create_default_indexes => false, if_not_exists => true, migrate_data => true);",
        ),
        (ops.SetChunkIntervalOp("t", 36 * HOUR), "SELECT set_chunk_time_interval('t', INTERVAL '36 hours');"),
        (ops.SetChunkIntervalOp("it's", HOUR), "SELECT set_chunk_time_interval('\"it''s\"', INTERVAL '1 hour');"),
        (
            ENABLED,
            "ALTER TABLE x.t SET (timescaledb.enable_columnstore = true, timescaledb.segmentby = 's, \"Odd\"',"
            " timescaledb.orderby = 'time DESC NULLS FIRST, s ASC NULLS FIRST');",
        ),
        (
            ON_VIEW,
            "ALTER MATERIALIZED VIEW v SET (timescaledb.enable_columnstore = true, timescaledb.segmentby = '');",
        ),
        (MOVED, "CALL add_columnstore_policy('t', after => INTERVAL '90 seconds', if_not_exists => true);"),
        (
            KEPT,
            "SELECT add_retention_policy('t', drop_after => INTERVAL '86400000005 microseconds',"
            " if_not_exists => true);",
        ),
        (
            ops.AddRetentionJobOp("it's", 'Bob\'s "job"', every=HOUR, schema="x"),
            "SELECT add_job('\"Bob''s \"\"job\"\"\"', INTERVAL '1 hour', config => jsonb_build_object('schema', 'x',"
            " 'table', 'it''s', 'drop_after', CAST(NULL AS text)), initial_start => now() + INTERVAL '1 hour')"
            " WHERE NOT EXISTS (SELECT FROM timescaledb_information.jobs WHERE proc_name = 'Bob''s \"job\"'"
            " AND config ->> 'table' = 'it''s' AND config ->> 'schema' = 'x');",
        ),
        (
            VIEW,
            "CREATE MATERIALIZED VIEW IF NOT EXISTS v WITH (timescaledb.continuous,"
            f" timescaledb.materialized_only = true) AS\n{QUERY}\nWITH NO DATA;",
        ),
        (
            REFRESHED,
            "SELECT add_continuous_aggregate_policy('v', start_offset => NULL, end_offset => INTERVAL '0 days',"
            " schedule_interval => INTERVAL '1 hour', if_not_exists => true);",
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_offline_it_prints_its_sql(op: TimescaleOp, expected: str) -> None:
    assert sql(op, Edition.COMMUNITY) == expected


def test_offline_an_edition_gets_what_it_can_do() -> None:
    for op, edition in product(EVERY_OP, Edition):
        assert bool(sql(op, edition)) == edition.has(op.needs), (op, edition)


async def migrate(project: Project, *done: TimescaleOp) -> None:
    def invoke(connection: Connection) -> None:
        context = MigrationContext.configure(connection)
        with context.begin_transaction():
            for op in done:
                Operations(context).invoke(op)

    await project.connection.run_sync(invoke)
    await project.connection.commit()


async def test_an_ordinary_table_is_left_alone_and_it_is_said(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a database was deployed on plain PostgreSQL, and its server has TimescaleDB now."""
    caplog.set_level(logging.INFO, "alembic_timescaledb")
    await project.execute("CREATE TABLE t (s int, time timestamptz NOT NULL, x int, PRIMARY KEY (s, time))")
    table = [ops.SetChunkIntervalOp("t", HOUR), MOVED, KEPT, JOB, ops.EnableColumnstoreOp("t"), VIEW, REFRESHED]
    await migrate(project, *table)
    for op in table:
        waits = f"this waits until it is: {op}"
        assert (waits if project.edition.has(op.needs) else op.lack(project.edition)) in caplog.text
    await migrate(project, *(op.reverse() for op in EVERY_OP if op in (KEPT, JOB, MOVED, VIEW, REFRESHED)))


async def test_a_refresh_runs_outside_the_transaction(community: Project) -> None:
    readings(community.metadata)
    await community.deploy()
    await community.execute("INSERT INTO readings SELECT 1, now() - interval '1 day', 5")
    query = "SELECT time_bucket('1 hour', time) AS time, max(\"Odd, value%\") AS x FROM readings GROUP BY 1"
    await migrate(
        community,
        ops.CreateContinuousAggregateOp("v", query, materialized_only=True),
        ops.RefreshContinuousAggregateOp("v"),
    )
    rows = (await community.connection.exec_driver_sql("SELECT x FROM v")).all()
    assert [tuple(row) for row in rows] == [(5.0,)]


@pytest.mark.parametrize(
    ("taken", "kind"),
    [("VIEW v AS SELECT 1", "view"), ("MATERIALIZED VIEW v AS SELECT 1", "materialized view"), ("TABLE v ()", "table")],
)
async def test_an_aggregate_is_never_taken_for_what_has_its_name(community: Project, taken: str, kind: str) -> None:
    readings(community.metadata)
    await community.deploy()
    await community.execute(f"CREATE {taken}")
    view = ops.CreateContinuousAggregateOp("v", "SELECT time_bucket('1 h', time) AS time FROM readings GROUP BY 1")
    with pytest.raises(DeclarationError, match=f"v cannot be created: there is a {kind} of that name"):
        await migrate(community, view)


async def test_policies_by_creation_give_way(community: Project) -> None:
    readings(community.metadata)
    await community.deploy()
    await community.execute(
        "SELECT remove_retention_policy('readings')",
        "SELECT add_retention_policy('readings', drop_created_before => interval '7 days')",
        "CALL remove_columnstore_policy('readings')",
        "CALL add_columnstore_policy('readings', created_before => interval '1 day')",
    )
    written = await community.deploy()
    assert "op.add_retention_policy" in written
    assert "op.add_columnstore_policy" in written


async def test_each_can_be_repeated(community: Project) -> None:
    """A deploy after what was put right by hand, or by an interrupted run, finds it done."""
    await community.execute("CREATE TABLE t (s int, time timestamptz NOT NULL, x int, PRIMARY KEY (s, time))", KEEP)
    created = ops.CreateHypertableOp("t", "time", chunk_interval=HOUR)
    enabled = ops.EnableColumnstoreOp("t", segment_by=("s",), order_by=("time DESC",))
    query = "SELECT time_bucket('1 hour', time) AS time, max(x) FROM t GROUP BY 1"
    view = ops.CreateContinuousAggregateOp("v", query)
    refreshed = ops.AddContinuousAggregatePolicyOp("v", start_offset=DAY, end_offset=HOUR, every=HOUR)
    forth: list[TimescaleOp] = [created, enabled, MOVED, KEPT, JOB, view, refreshed]
    await migrate(community, *forth, *forth)
    assert await community.connection.scalar(JOBS) == 1
    undone = [op.reverse() for op in reversed(forth) if op is not created]
    await migrate(community, *undone)
    await migrate(community, *undone)
    assert await community.connection.scalar(JOBS) == 0
    assert await community.left() == ["public.t", "public.t_pkey"]
    with pytest.raises(CommandError, match=r"t is a hypertable.*by hand"):
        await migrate(community, created.reverse())
    assert "t is a hypertable" in sql(created.reverse(), Edition.COMMUNITY)
