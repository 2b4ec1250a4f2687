"""The layers: imports only point down, without a circle, and each task is done in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
PATHS = sorted(SOURCE.rglob("*.py"))

# A module may import from its own line, and from lines below. `arbstore` itself hands on names from anywhere.
LAYERS = [
    {"arbstore.cli"},
    {"arbstore.deploy", "arbstore.demo", "arbstore.ingest", "arbstore.migrations", "arbstore.testing"},
    {"arbstore.database"},
    {"arbstore.frames"},
    {"arbstore.services", "arbstore.embedded"},
    {"arbstore.cache", "arbstore.postgres"},
    {"arbstore.models"},
    {"arbstore.kinds"},
    {"arbstore.records", "arbstore.settings", "arbstore.timescale"},
    {"arbstore.errors", "alembic_timescaledb"},
]
BUILD_SQL = {"arbstore.services", "arbstore.postgres", "alembic_timescaledb"}
VIEWS = SOURCE / "arbstore" / "models" / "rollups.py"  # a view is declared by its query
COMMIT = {"arbstore.database", "arbstore.migrations", "alembic_timescaledb"}


def part_of(name: str) -> str:
    """Return the layer's name of a module: `arbstore.services` of `arbstore.services.series`."""
    package, *rest = name.split(".")
    return ".".join([package, *rest[:1]]) if package == "arbstore" else package


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for path in PATHS:
        if (name := module_of(path)) != "arbstore":
            yield name, path, tree_of(path)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(tree: ast.AST) -> list[str]:
    return [name for name in imported(tree) if name.split(".")[0] in ("arbstore", "alembic_timescaledb")]


def level(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def test_imports_point_down() -> None:
    for module, path, tree in modules():
        for name in ours(tree):
            part, other = part_of(module), part_of(name)
            assert level(other) >= level(part), f"{path} imports {name}, which is above it"


def test_no_modules_import_one_another_in_a_circle() -> None:
    names = {module_of(path) for path in PATHS}
    known = {}
    for module, _, tree in modules():
        # Imports for type checkers alone are not run.
        hidden = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for node in ast.walk(block)
        }
        body = ast.Module([node for node in tree.body if id(node) not in hidden], [])
        found = {name if name in names else name.rpartition(".")[0] for name in ours(body)}
        known[module] = {name for name in found & names if not module.startswith(f"{name}.")} - {module}
    while leaves := {module for module, needs in known.items() if not needs & known.keys()}:
        known = {module: needs for module, needs in known.items() if module not in leaves}
    assert not known, f"these import one another: {sorted(known)}"


def test_errors_import_nothing_of_ours() -> None:
    assert not ours(tree_of(SOURCE / "arbstore" / "errors.py"))


def test_the_timescaledb_package_knows_nothing_of_markets() -> None:
    for module, path, tree in modules():
        if part_of(module) == "alembic_timescaledb":
            assert all(name.startswith("alembic_timescaledb") for name in ours(tree)), path


def test_records_and_kinds_know_nothing_of_sqlalchemy() -> None:
    for module, path, tree in modules():
        if part_of(module) in ("arbstore.records", "arbstore.kinds"):
            run = [node for node in tree.body if not isinstance(node, ast.If)]
            assert not [name for name in imported(ast.Module(run, [])) if name.startswith("sqlalchemy")], path


def test_only_the_settings_read_the_environment() -> None:
    for module, path, tree in modules():
        reads = [
            node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
        ]
        assert not reads or part_of(module) == "arbstore.settings", path


def test_only_these_places_build_queries() -> None:
    for module, path, tree in modules():
        names = {name.rpartition(".")[2] for name in imported(tree) if name.startswith("sqlalchemy")}
        allowed = part_of(module) in BUILD_SQL or path == VIEWS
        assert allowed or not names & {"select", "insert", "update", "delete"}, path


def test_only_the_owner_of_a_transaction_commits() -> None:
    for module, path, tree in modules():
        commits = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "commit"]
        assert not commits or part_of(module) in COMMIT, path


def test_a_file_is_one_noun_and_says_which() -> None:
    for path in PATHS:
        assert len(path.read_text().splitlines()) <= 300, path
        assert ast.get_docstring(tree_of(path)), path
