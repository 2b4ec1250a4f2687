"""The editions that the tests of the package need, and a scratch project on each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from alembic_timescaledb import server
from alembic_timescaledb.server import Feature
from arbstore.database import Database
from arbstore.testing import skip_without
from tests.alembic_timescaledb.project import Project

Needs = Callable[[Feature], None]


@pytest_asyncio.fixture
async def project(empty_db: Database, tmp_path: Path) -> AsyncIterator[Project]:
    async with empty_db.engine.connect() as connection:
        edition = await connection.run_sync(server.enable)
        await connection.commit()
        yield Project(tmp_path / "migrations", connection, edition)


@pytest.fixture
def community(project: Project) -> Project:
    """Return the project where the server has all there is; elsewhere leave the test out."""
    skip_without(project.edition, Feature.AGGREGATES)
    return project


@pytest.fixture
def chunked(project: Project) -> Project:
    """Return the project where the server has hypertables; elsewhere leave the test out."""
    skip_without(project.edition, Feature.HYPERTABLES)
    return project
