"""The walk of docs/timescale.md, taken as it stands there, by the `alembic` command."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import alembic
import pytest

from arbstore.database import Database
from arbstore.timescale import ContinuousAggregate, catalog
from arbstore.timescale.edition import Edition
from tests.timescale.project import LEFT

GUIDE = (Path(__file__).parents[2] / "docs" / "timescale.md").read_text()
SAID = dict(re.findall(r"```(?:python|text)\n# (\S+)\n(.*?)```", GUIDE, re.DOTALL))


async def run(folder: Path, *arguments: str) -> str:
    program = str(Path(sys.executable).with_name("alembic"))
    done = await asyncio.to_thread(
        subprocess.run, [program, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def revision(folder: Path, message: str) -> tuple[list[str], str]:
    """Return the operations of a revision's upgrade, but for Alembic's own, and its downgrade."""
    text = next((folder / "migrations" / "versions").glob(f"*_{message}.py")).read_text()
    upgrade, _, downgrade = text.partition("def downgrade")
    own = ("op.create_table", "op.drop_table")
    lines = [line.strip() for line in upgrade.splitlines() if line.strip().startswith("op.")]
    return [line for line in lines if not line.startswith(own)], downgrade


@pytest.fixture
def folder(tmp_path: Path, empty_db: Database) -> Path:
    template = Path(alembic.__file__).parent / "templates" / "generic" / "script.py.mako"
    url = empty_db.engine.url.render_as_string(hide_password=False).replace("%", "%%")
    (tmp_path / "alembic.ini").write_text(
        f"[alembic]\nscript_location = %(here)s/migrations\nprepend_sys_path = .\nsqlalchemy.url = {url}\n"
        "path_separator = os\n"
    )
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    (tmp_path / "migrations" / "env.py").write_text(SAID["env.py"])
    shutil.copy(template, tmp_path / "migrations")
    (tmp_path / "models.py").write_text(SAID["models.py"])
    return tmp_path


async def test_the_walk_of_the_guide(folder: Path, empty_db: Database) -> None:
    async with empty_db.engine.begin() as connection:
        edition = await connection.run_sync(catalog.enable)
    await run(folder, "revision", "--autogenerate", "-m", "readings")
    upgrade, _ = revision(folder, "readings")
    assert upgrade == SAID["upgrade"].strip().splitlines()
    await run(folder, "upgrade", "head")
    assert "No new upgrade operations detected" in await run(folder, "check")

    models = folder / "models.py"
    changed = models.read_text().replace("timedelta(hours=1)", "timedelta(hours=2)")
    models.write_text(changed.replace("timedelta(days=7)", "timedelta(days=3)"))
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)  # two changes within a second look the same to it
    await run(folder, "revision", "--autogenerate", "-m", "change")
    upgrade, downgrade = revision(folder, "change")
    seen = {Edition.PLAIN: 0, Edition.APACHE: 1, Edition.COMMUNITY: 3}[edition]
    assert upgrade == SAID["change"].strip().splitlines()[:seen]
    assert len(re.findall(r"^    op\.", downgrade, re.MULTILINE)) == seen
    await run(folder, "upgrade", "head")
    assert "No new upgrade operations detected" in await run(folder, "check")

    await run(folder, "downgrade", "base")
    async with empty_db.engine.connect() as connection:
        assert (await connection.scalars(LEFT, {"schemas": ["public"]})).all() == []


def test_the_aggregate_of_the_guide_can_be_declared() -> None:
    names: dict[str, object] = {}
    code = compile(SAID["models.py"] + SAID["aggregate"], "models.py", "exec", dont_inherit=True)
    exec(code, names)  # noqa: S102 # the guide's own
    assert isinstance(names["hourly"], ContinuousAggregate)
    assert "GROUP BY readings.sensor, time_bucket(INTERVAL '1 hour', readings.time)" in names["hourly"].sql
