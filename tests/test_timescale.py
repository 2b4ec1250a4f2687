"""The former name of `alembic_timescaledb` goes on working, with a warning."""

from __future__ import annotations

import subprocess
import sys

import pytest
from alembic.runtime.plugins import Plugin
from alembic.util.langhelpers import PriorityDispatcher

FORMER = """
import arbstore.timescale.operations  # as revisions had it
from arbstore.timescale import Columnstore, ContinuousAggregate, Hypertable, Refresh, time_bucket
from arbstore.timescale.catalog import hypertables
from arbstore.timescale.comparison import apply, compare, missing
from arbstore.timescale.edition import Edition
from arbstore.timescale.operations import edition_of
from arbstore.timescale.progress import refresh

import alembic_timescaledb
from alembic import op

assert Hypertable is alembic_timescaledb.Hypertable
assert Edition is alembic_timescaledb.server.Edition
assert arbstore.timescale.operations is alembic_timescaledb.operations
assert op.create_hypertable
"""


def test_former_imports_work_and_warn() -> None:
    done = subprocess.run(  # noqa: S603 # the text above
        [sys.executable, "-W", "always", "-c", FORMER], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert (done.returncode, done.stdout.count(b"DeprecationWarning")) == (0, 1), done.stdout
    assert b"arbstore.timescale is now called alembic_timescaledb" in done.stdout


@pytest.mark.parametrize("name", ["alembic_timescaledb", "arbstore.timescale"])
def test_the_plugin_is_found_by_both_names(name: str) -> None:
    Plugin.populate_autogenerate_priority_dispatch(PriorityDispatcher(), [name])
