"""The layers: imports point down, and each thing is done at one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "arbstore"

# A module may import what stands in its own line or further down.
LAYERS = [
    {"cli"},
    {"deploy", "demo", "ingest", "migrations", "testing"},
    {"database", "frames"},
    {"embedded", "services"},
    {"cache", "postgres"},
    {"models", "kinds", "records", "settings", "locks"},
    {"errors", "lazy", "timescale"},
]
SQL = {"services", "postgres"}
VIEWS = SOURCE / "models" / "rollups.py"  # what a view is, its query says


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if part != "__init__":
            yield part, path, ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def level(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def test_imports_point_down() -> None:
    for part, path, tree in modules():
        for name in imported(tree):
            if name.startswith("arbstore."):
                other = name.split(".")[1]
                assert level(other) >= level(part), f"{path.name} of {part} imports {name}, which is above it"


def test_errors_import_nothing_of_ours() -> None:
    for part, _, tree in modules():
        if part == "errors":
            assert not [name for name in imported(tree) if name.startswith("arbstore")]


def test_alembic_timescaledb_knows_nothing_of_markets() -> None:
    paths = sorted((SOURCE.parent / "alembic_timescaledb").rglob("*.py"))
    assert paths
    for path in paths:
        assert not [name for name in imported(ast.parse(path.read_text())) if name.split(".")[0] == "arbstore"], path


def test_records_know_nothing_of_sqlalchemy() -> None:
    for part, path, tree in modules():
        if part == "records":
            assert not [name for name in imported(tree) if name.startswith("sqlalchemy")], path


def test_only_the_settings_read_the_environment() -> None:
    for part, path, tree in modules():
        reads = [
            node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
        ]
        assert not reads or part == "settings", path


def test_only_these_places_build_queries() -> None:
    for part, path, tree in modules():
        names = {name.rpartition(".")[2] for name in imported(tree) if name.startswith("sqlalchemy")}
        assert part in SQL or path == VIEWS or not names & {"select", "insert", "update", "delete"}, path


def test_only_the_owner_of_a_transaction_commits() -> None:
    for part, path, tree in modules():
        commits = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "commit"]
        assert not commits or part in {"database", "migrations", "timescale"}, path


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_file_is_one_noun_and_says_which(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300
    assert ast.get_docstring(ast.parse(path.read_text()))
