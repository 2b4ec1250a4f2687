"""The pages of docs/: their blocks run as printed, their links lead somewhere, and their lists are complete."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from arbstore.cli.app import app, db
from arbstore.database import Database
from arbstore.settings import Settings

CHECKOUT = Path(__file__).parents[1]
DOCS = CHECKOUT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OTHERS = [CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
# Two pages are run by tests of their own: the guide, and the commands of the benchmark.
RUN_ELSEWHERE = {"timescale.md", "performance.md"}
NOT_RUN = re.compile(r"<!-- (not run: .+|a file of tests) -->")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block of a page; `line` is the number of its fence, `note` a comment in the line before it."""

    page: str
    line: int
    language: str
    text: str
    note: str | None


def blocks(path: Path) -> Iterator[Block]:
    lines = path.read_text().splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("```")]
    for start, end in zip(starts[::2], starts[1::2], strict=True):
        note = NOT_RUN.fullmatch(lines[start - 1])
        text = "\n".join(lines[start + 1 : end]) + "\n"
        yield Block(path.name, start + 1, lines[start].removeprefix("```"), text, note and note[1])


def prose(path: Path) -> str:
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Return the anchors that the site and most hosts make of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def nav(entry: Any) -> Iterator[str]:
    """Yield the pages of a part of the site's navigation, in its order."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from nav(part)


def site() -> list[str]:
    return list(nav(tomllib.loads((CHECKOUT / "zensical.toml").read_text())["project"]["nav"]))


def settings_table() -> str:
    rows = ["| name | default | |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`".lower()
        rows.append(f"| `{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


async def run_python(block: Block, namespace: dict[str, Any], url: str) -> None:
    if "asyncio.run(" in block.text:
        environment = {**os.environ, "ARBSTORE_DATABASE_URL": url}
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", block.text], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block.page}, line {block.line}: {done.stderr}"
        return
    # The lines before the block keep the page's line numbers in tracebacks.
    source = "\n" * block.line + block.text
    code = compile(source, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if inspect.isawaitable(running := eval(code, namespace)):  # noqa: S307 # our own pages
        await running


async def run_shell(block: Block) -> None:
    for command in block.text.splitlines():
        program, *words = shlex.split(command, comments=True)
        assert program == "arbstore", f"{block.page}, line {block.line}: mark it as not run"
        result = await asyncio.to_thread(CliRunner().invoke, app, words)
        assert result.exit_code == 0, f"{block.page}: {command}: {result.output}"


async def run_sql(block: Block, database: Database) -> None:
    async with database.engine.begin() as connection:
        for statement in filter(str.strip, block.text.split(";\n")):
            await connection.exec_driver_sql(statement)


async def test_the_blocks_of_the_pages_run_in_their_order(
    committed_db: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = committed_db.engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("ARBSTORE_DATABASE_URL", url)
    monkeypatch.chdir(tmp_path)
    for page in site():
        namespace: dict[str, Any] = {"db": committed_db}
        for block in blocks(DOCS / page) if page not in RUN_ELSEWHERE else ():
            if block.note is not None:
                continue
            if block.language == "python":
                await run_python(block, namespace, url)
            elif block.language == "bash":
                await run_shell(block)
            elif block.language == "sql":
                await run_sql(block, committed_db)


def test_the_test_of_an_application_is_the_one_that_the_readme_shows() -> None:
    (shown,) = [block.text for block in blocks(DOCS / "testing.md") if block.note == "a file of tests"]
    assert shown in (CHECKOUT / "README.md").read_text()  # whose blocks are run


def test_the_table_of_settings_is_that_of_the_code() -> None:
    printed = (DOCS / "operations.md").read_text().partition("by the tests -->\n")[2]
    assert printed.partition("\n<!-- end of settings")[0] == settings_table()


@pytest.mark.parametrize("path", [*OTHERS, *PAGES], ids=lambda path: path.relative_to(CHECKOUT).as_posix())
def test_links_lead_to_a_file_and_a_heading_that_exist(path: Path) -> None:
    for link in LINK.findall(prose(path)):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = path.parent / place if place else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    assert sorted(site()) == sorted(path.relative_to(DOCS).as_posix() for path in PAGES)


def test_every_command_is_described() -> None:
    described = " ".join(path.read_text() for path in PAGES)
    for group, words in ((app, "arbstore"), (db, "arbstore db")):
        for command in group.registered_commands:
            assert command.callback is not None
            assert command.hidden or f"{words} {command.name or command.callback.__name__}" in described
