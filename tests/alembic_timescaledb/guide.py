"""Follows docs/timescale.md: runs its blocks in their order, in a project that `alembic init` makes.

A block's language and first line tell its use. `console` blocks are run. `diff` and `python` blocks are the files that
their first line names; a revision is compared with the generated one. Words after `console` name the editions that the
block is true of. Without such a word it runs on all editions, and its output is compared on the richest.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from alembic_timescaledb.server import Edition

TEXT = (Path(__file__).parents[2] / "docs" / "timescale.md").read_text()

_BLOCK = re.compile(r"^```(\w+)(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"# (?P<path>\S+\.\w+)(?P<more>, at its end)?\n+")
_ALEMBICS_OWN = re.compile(r"^[A-Z]+ +\[alembic\..*\n", re.MULTILINE)
_HEAD = """\
from datetime import UTC, datetime, timedelta

import alembic_timescaledb.operations
from alembic import op

revision, down_revision = {revision!r}, {before!r}


"""
# `alembic` for each line of the input, in a fork: what it imports takes longer than most commands. The package itself
# is not among the imports, because the page says where a project imports it.
_COMMANDS = """
import json, os, sys
import alembic.autogenerate, asyncpg, sqlalchemy.ext.asyncio
from alembic.config import main
for line in sys.stdin:
    arguments, printed = json.loads(line)
    if not (child := os.fork()):
        output = os.open(printed, os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.exit(main(arguments, prog="alembic"))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Block:
    """One block of the page; `at` is its line."""

    at: int
    language: str
    words: frozenset[str]
    text: str


def blocks(text: str = TEXT) -> Iterator[Block]:
    for found in _BLOCK.finditer(text):
        yield Block(text[: found.start()].count("\n") + 1, found[1], frozenset(found[2].split()), found[3])


def section(title: str) -> str:
    """Return what is under the heading, up to the next of its rank."""
    return re.split(r"^## ", TEXT.partition(f"\n## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


class Walker:
    """Follows the page in a folder, on a server of an edition. Commands are run inside a `with` block."""

    def __init__(self, folder: Path, url: str, edition: Edition) -> None:
        self.folder = folder
        self.url = url.replace("%", "%%")
        self.edition = edition

    def __enter__(self) -> Walker:
        self._commands = subprocess.Popen(  # noqa: S603 # our own program
            [sys.executable, "-Bc", _COMMANDS],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._commands.communicate()

    async def follow(self, block: Block) -> None:
        if block.language == "console":
            await self._console(block)
        else:
            self.write(block)

    def write(self, block: Block) -> None:
        """Write the file that the block shows; some blocks show no file."""
        if block.language == "diff":
            self._change(block)
        elif block.language == "python" and (named := _NAME.match(block.text)) is not None:
            self._file(block, self.folder / named["path"], block.text[named.end() :], added=bool(named["more"]))

    async def _console(self, block: Block) -> None:
        if block.words and self.edition not in block.words:
            return
        for shown in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, expected = shown.partition("\n")
            code, output = await self.run(command)
            assert code == (255 if "FAILED:" in expected else 0), (block.at, command, output)
            if block.words or self.edition is Edition.COMMUNITY:
                assert output.split() == expected.split(), difference(block, expected, output)

    async def run(self, command: str) -> tuple[int, str]:
        program, *arguments = shlex.split(command)
        work = self._alembic if program == "alembic" else self._python
        code, printed = await asyncio.to_thread(work, arguments)
        return code, _ALEMBICS_OWN.sub("", printed).replace(f"{self.folder}/", "")

    def _alembic(self, arguments: list[str]) -> tuple[int, str]:
        with NamedTemporaryFile("r") as printed:
            assert self._commands.stdin is not None
            assert self._commands.stdout is not None
            print(json.dumps([arguments, printed.name]), file=self._commands.stdin, flush=True)
            return int(self._commands.stdout.readline()), printed.read()

    def _python(self, arguments: list[str]) -> tuple[int, str]:
        done = subprocess.run(  # noqa: S603 # what the page prints
            [sys.executable, "-B", *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def _change(self, block: Block) -> None:
        path = self.folder / block.text.splitlines()[0].removeprefix("--- ")
        for hunk in re.split(r"^@@\n", block.text.partition("\n")[2], flags=re.MULTILINE):
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] != "+")
            after = "".join(line[1:] for line in lines if line[0] != "-")
            text = path.read_text()
            assert text.count(before) == 1, (block.at, before)
            path.write_text(text.replace(before, after).replace("postgresql+asyncpg://localhost/plant", self.url))

    def _file(self, block: Block, path: Path, text: str, *, added: bool) -> None:
        if "versions" not in path.parts:
            path.write_text(path.read_text() + "\n\n" + text if added else text)
        elif path.exists():
            written = re.sub(r"(?m) +$", "", re.sub("(?m)^Create Date: .*", "Create Date: ...", path.read_text()))
            assert written.endswith(text) if text.startswith("def ") else written == text, difference(
                block, text, written
            )
        else:  # as from the repository, where it was generated on the richest edition
            self.revision(path.stem, text)

    def revision(self, name: str, body: str) -> None:
        """Write one by hand; its number is what its name begins with."""
        number = int(name[:4])
        head = _HEAD.format(revision=f"{number:04}", before=f"{number - 1:04}" if number > 1 else None)
        (self.folder / "migrations" / "versions" / f"{name}.py").write_text(head + body)


def difference(block: Block, shown: str, found: str) -> str:
    lines = difflib.unified_diff(shown.splitlines(), found.splitlines(), "the page", "what is", lineterm="", n=1)
    return f"line {block.at} of the page:\n" + "\n".join(lines)
