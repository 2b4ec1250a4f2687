"""What a checkout becomes: a wheel that deploys by itself, and files for Docker."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from build import ProjectBuilder

from arbstore import migrations
from arbstore.database import Database
from arbstore.settings import Settings

CHECKOUT = Path(__file__).parents[1]

DEPLOY = """
import asyncio, sys
from arbstore import Database, migrations
async def main():
    async with Database(sys.argv[1]) as db, db.engine.connect() as connection:
        await migrations.deploy(db)
        print(migrations.__file__, await connection.run_sync(migrations.current))
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the hatchling that is installed, and unpack it as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    built = ProjectBuilder(CHECKOUT).build("wheel", str(folder))
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_is_typed_and_carries_its_revisions(wheel: Path) -> None:
    assert (wheel / "arbstore" / "py.typed").is_file()
    packed = {path.name for path in (wheel / "arbstore" / "alembic" / "versions").glob("*.py")}
    assert packed == {path.name for path in (CHECKOUT / "alembic" / "versions").glob("*.py")}


def test_the_wheel_has_the_licence_and_its_description_links_the_other_pages(wheel: Path) -> None:
    (info,) = wheel.glob("*.dist-info")
    metadata = (info / "METADATA").read_text()
    assert "\nLicense-Expression: MIT\nLicense-File: LICENSE\n" in metadata
    assert (info / "licenses" / "LICENSE").read_text() == (CHECKOUT / "LICENSE").read_text()
    assert all(f"({name})" in metadata for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"))


async def test_an_application_that_only_has_the_wheel_deploys_the_schema(wheel: Path, empty_db: Database) -> None:
    url = empty_db.engine.url.render_as_string(hide_password=False)
    # -P and the folder first in the path: nothing of the checkout is found.
    script = f"import sys; sys.path.insert(0, {str(wheel)!r})\n{DEPLOY}"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-P", "-c", script, url], capture_output=True, text=True, cwd=wheel
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(wheel / "arbstore" / "migrations.py"), migrations.head()]


def test_no_password_is_in_what_docker_reads() -> None:
    compose = (CHECKOUT / "docker" / "compose.yaml").read_text()
    assert re.findall(r"PASSWORD:\s*(.*)", compose) == ["${POSTGRES_PASSWORD:?set it}"]
    assert "PASSWORD=" not in (CHECKOUT / "docker" / "Dockerfile.timescaledb").read_text()


def test_compose_and_the_tests_name_the_same_image() -> None:
    image = Settings.model_fields["test_image"].default
    assert f":-{image}}}" in (CHECKOUT / "docker" / "compose.yaml").read_text()


def test_compose_checks_the_health_of_its_server() -> None:
    assert "pg_isready" in (CHECKOUT / "docker" / "compose.yaml").read_text()
    assert "HEALTHCHECK" in (CHECKOUT / "docker" / "Dockerfile.timescaledb").read_text()


def test_the_oldest_libraries_that_are_tested_are_the_oldest_that_are_allowed() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = project["dependencies"] + extras["cli"] + extras["frames"]
    allowed = dict(re.split(r"(?:\[.*\])?>=", requirement) for requirement in requirements)
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (CHECKOUT / ".ci" / "oldest.txt").read_text(), re.MULTILINE))
    assert {name: f"{version}.0.0".split(".")[:3] for name, version in allowed.items()} == {
        name: version.split(".")[:3] for name, version in pinned.items()
    }
